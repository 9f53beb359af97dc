"""How a guided request and its companion are recognised across processes."""

from __future__ import annotations

COMPANION_KEY = "mdlm_companion_of"
"""Key in `SamplingParams.extra_args` that marks a companion on its way to the worker."""


def companion_id(request_id: str) -> str:
    """Request id of the companion of a guided request."""
    return f"{request_id}#unconditional"
