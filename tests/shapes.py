"""How the tests check every annotated shape: the type checker of jaxtyping's import hook.

A function may refuse what it is given, and tests do hand it wrong shapes to see that it complains well. So arrays are checked after
a call that ended well: what was accepted and what was returned must both be what the annotations say."""
from functools import partial
from inspect import isfunction
from typing import Any, get_args

import jaxtyping
from beartype import beartype
from jaxtyping import AbstractArray, Float, Num


def is_array(hint): return isinstance(hint, type) and issubclass(hint, AbstractArray)


def has_array(hint):
    "Whether an annotation speaks of an array anywhere"
    return is_array(hint) or any(map(has_array, get_args(hint)))


def as_argument(hint):
    "Whole numbers may be given where numbers are asked for; what comes back is held to its word"
    return Num[hint.array_type, hint.dim_str] if is_array(hint) and hint.dtype is Float else hint


def check(function):
    "Check the arrays among arguments and result"
    hints = getattr(function, "__annotations__", {})
    if hints.get("return", Any) is Any: return function # The check before the call
    if function.__name__=="__init__": return function # A dataclass may mend what it is given in `__post_init__`
    function.__annotations__ = {name: hint if name=="return" else as_argument(hint) for name,hint in hints.items() if has_array(hint)}
    return beartype(function)


def jaxtyped(function=None, *, typechecker=None, full=jaxtyping.jaxtyped):
    "In place of jaxtyping's decorator, which takes time at each definition and each call of a function, also of one without arrays"
    if function is None: return partial(jaxtyped, typechecker=typechecker)
    hints = getattr(function, "__annotations__", {}) if isfunction(function) else {}
    return full(function, typechecker=typechecker) if "return" in hints and any(map(has_array, hints.values())) else function


jaxtyping.jaxtyped = jaxtyped # By this name the import hook decorates each function
