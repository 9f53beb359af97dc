"""Replace a method once, keeping the original reachable as `__wrapped__`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def wrap(owner: Any, name: str, make: Callable[[Callable[..., Any]], Any]) -> None:
    """Set `owner.name` to `make(original)`, unless that was done before in this process.

    Args:
        owner: class or module.
        name: attribute that must exist; an AttributeError tells that vLLM changed.
        make: from the original to its replacement.
    """
    original = getattr(owner, name)
    if getattr(original, "__mdlm_shim__", False):
        return
    replacement = make(original)
    replacement.__mdlm_shim__ = True
    replacement.__wrapped__ = original
    setattr(owner, name, replacement)
