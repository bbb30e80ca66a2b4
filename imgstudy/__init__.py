__version__ = "0.2.0"

from .moved import answer_old_paths # needs nothing but Python itself

answer_old_paths()
