"""How the tests check every annotated shape: the type checker of jaxtyping's import hook.

A function may refuse what it is given, and tests do hand it wrong shapes to see that it complains well. So arrays are checked after
a call that ended well: what was accepted and what was returned must both be what the annotations say."""
import threading
from collections.abc import Mapping, Set
from functools import partial, wraps
from inspect import isfunction
from typing import Any, get_args

import jaxtyping
import numpy as np
import torch
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


def described(value):
    "What can be seen of a value by an annotation: types, shapes and kinds of numbers; an error where an annotation may look deeper"
    kind = type(value)
    if kind is np.ndarray or issubclass(kind, torch.Tensor): return kind, tuple(value.shape), value.dtype
    if kind in (tuple, list): return kind, *map(described, value)
    if kind is dict: return kind, *map(described, value), *map(described, value.values())
    if issubclass(kind, (tuple, list, Mapping, Set)): raise TypeError(f"{kind} may hold arrays")
    return kind


def checked_once(function, check_result):
    "A function whose calls are checked, but each combination of shapes once: `check_result` takes the result and the arguments"
    known = set()

    @wraps(function)
    def call(*arguments, **options):
        result = function(*arguments, **options)
        try: form = described((result, *arguments)),tuple((name, described(value)) for name,value in options.items())
        except TypeError: form = None
        if form is None or form not in known:
            check_result(result, *arguments, **options)
            if form is not None: known.add(form)
        return result
    return call


def jaxtyped(function=None, *, typechecker=None, full=jaxtyping.jaxtyped):
    "In place of jaxtyping's decorator, which takes time at each definition and each call of a function, also of one without arrays"
    if function is None: return partial(jaxtyped, typechecker=typechecker)
    hints = getattr(function, "__annotations__", {}) if isfunction(function) else {}
    if "return" not in hints or not any(map(has_array, hints.values())): return function

    place,checked = threading.local(),[]

    @wraps(function) # Whose signature it has
    def given(*arguments, **options): return place.result

    def check_result(result, *arguments, **options):
        if not checked: checked.append(full(given, typechecker=typechecker))
        place.result = result
        try: checked[0](*arguments, **options)
        finally: del place.result
    return checked_once(function, check_result)


jaxtyping.jaxtyped = jaxtyped # By this name the import hook decorates each function
