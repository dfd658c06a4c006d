"""Stands before the package of this name, which compiles its grammar of web addresses when it is imported: 2 s in each process that imports
jsonschema, as every process of Ray and of Jupyter does. Here it waits until an address is checked."""
import sys
from importlib import import_module
from pathlib import Path


def is_valid_syntax(term, value):
    "As the package's own, which takes this module's place"
    sys.path[:] = [place for place in sys.path if Path(place)!=Path(__file__).parent]
    sys.modules.pop(__name__, None)
    return import_module(__name__).is_valid_syntax(term, value)
