"""Names of this package's modules, looked up when they are asked for (written by hand; see nbs/04_moved.ipynb)"""
from ..moved import lazy_names, old_packages

__getattr__ = lazy_names(__name__, old_packages['records'])

from . import card # how a record shows itself
