"""Names of this package's modules, looked up when they are asked for (written by hand; see nbs/04_moved.ipynb)"""
from ..core import import_stack
from ..moved import lazy_names, old_packages

__getattr__ = lazy_names(__name__, old_packages['data'])

import_stack() # here, so that it is done once and first
