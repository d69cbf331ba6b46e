"""Optional packages: imported where they are used, and named when they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

__all__ = ["MissingExtra", "check", "need"]


class MissingExtra(ImportError):
    """A package of an optional extra is not installed."""


def check(*modules: str) -> None:
    """Raise MissingExtra unless these modules of the extras `cpu` and `gpu` can be imported; imports none of them."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise _missing(module, "cpu")


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
        raise _missing(error.name, extra) from error


def _missing(module: str, extra: str) -> MissingExtra:
    name = "'cpu' (or 'gpu')" if extra == "cpu" else repr(extra)
    return MissingExtra(
        f"this needs the extra {name}: pip install 'lightmill[{extra}]' (no module named {module!r})"
    )
