"The checker of shapes that all tests rely on does check"
import importlib
import sys

import numpy as np
import pytest
from jaxtyping import TypeCheckError, install_import_hook

SOURCE = '''
from dataclasses import dataclass
import numpy as np
from jaxtyping import Float

def plain(x): return x

def named(x:int)->str: return str(x)

def pairs(x:Float[np.ndarray, "n 2"])->Float[np.ndarray, "n"]: return x[...,0]

def wrong(x:Float[np.ndarray, "n 2"])->Float[np.ndarray, "n"]: return x

def several(x:list[Float[np.ndarray, "n"]])->int: return len(x)

def inside(x:np.ndarray)->int:
    def first(x:Float[np.ndarray, "n 2"])->Float[np.ndarray, "n"]: return x
    return len(first(x))

@dataclass
class Clip:
    frames:Float[np.ndarray, "T 2"]
    def first(self)->Float[np.ndarray, "2"]: return self.frames
'''


@pytest.fixture
def checked(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path/"checked_sample.py").write_text(SOURCE)
    with install_import_hook("checked_sample", "shapes.check"): yield importlib.import_module("checked_sample")
    del sys.modules["checked_sample"]


def test_arrays_are_checked(checked):
    good,bad = np.zeros((3, 2)),np.zeros((3, 2, 1))
    assert checked.pairs(good).shape==(3,) and checked.several([np.zeros(2)])==1
    for call in (lambda: checked.pairs(bad), lambda: checked.wrong(good), lambda: checked.several([good]), lambda: checked.inside(good), lambda: checked.Clip(good).first()):
        with pytest.raises(TypeCheckError): call()


def test_what_has_no_arrays_is_left_as_it_is(checked):
    assert not any(hasattr(function, "__wrapped__") for function in (checked.plain, checked.named, checked.inside))
    assert checked.named("no number")=="no number" and hasattr(checked.pairs, "__wrapped__")
