__version__ = "0.1.0"

__all__ = ["dance"]

def __getattr__(name):
    "Import what costs seconds only when it is asked for"
    if name=="dance":
        from .generate import dance
        return dance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

def __dir__(): return sorted([*globals(), *__all__])
