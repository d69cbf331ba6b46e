"""Optional packages: imported where they are used, and named when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["MissingExtra", "need"]


class MissingExtra(ImportError):
    """A package of an optional extra is not installed."""


def need(module: str, extra: str = "cpu") -> ModuleType:
    """Import a module of an extra; `cpu` and `gpu` hold the same ones.

    Raises
    ------
    MissingExtra
        saying which extra to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        name = "'cpu' (or 'gpu')" if extra == "cpu" else repr(extra)
        raise MissingExtra(
            f"this needs the extra {name}: pip install 'lightmill[{extra}]' (no module named {error.name!r})"
        ) from error
