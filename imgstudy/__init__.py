__version__ = "0.2.0"

from importlib import import_module
from .moved import answer_old_paths # needs nothing but Python itself

answer_old_paths()
_here = dict(style='report.figures', save_figure='report.figures', best='best') # name -> module that has it

def __getattr__(name): # imported when it is asked for: `import imgstudy` stays quick
    if name not in _here: raise AttributeError(f"module 'imgstudy' has no attribute {name!r}")
    module = import_module(f'imgstudy.{_here[name]}')
    return module if name == _here[name] else getattr(module, name) # `imgstudy.best` is a module that can be called
