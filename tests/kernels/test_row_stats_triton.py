"""The Triton body against the torch body.

Runs where there is a GPU, or with TRITON_INTERPRET=1 where Triton is installed.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from vllm_mdlm.kernels.noise import row_keys
from vllm_mdlm.kernels.row_stats import row_stats as torch_row_stats

pytest.importorskip("triton", reason="Triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (torch.cuda.is_available() or INTERPRETED):
    pytest.skip("there is no GPU", allow_module_level=True)

from vllm_mdlm.kernels.row_stats_triton import row_stats  # noqa: E402

DEVICE = "cpu" if INTERPRETED else "cuda"
NEG_INF = float("-inf")


def options(num_rows: int, num_columns: int, kind: str) -> dict[str, Any]:
    if kind == "plain":
        return {}
    if kind == "statistics":
        return {"need_entropy": True, "need_margin": True, "mask_token": 3 % num_columns}
    rows = torch.arange(num_rows, device=DEVICE)
    temperature = torch.tensor([0.0, 0.5, 1.0, 2.0, 1e-300, 1e300], dtype=torch.float64)
    drawn = {
        "temperature": temperature[:num_rows].to(DEVICE),
        "noise_keys": row_keys(rows, rows, rows),
    }
    if kind == "drawn":
        return drawn
    edited = torch.tensor([4, 1], device=DEVICE)
    choice = torch.randn(2, num_columns, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    choice[:, 1::2] = NEG_INF
    return {
        **drawn,
        "choice_logits": choice,
        "choice_rows": edited,
        "need_entropy": True,
        "need_margin": True,
    }


@pytest.mark.parametrize("kind", ["plain", "statistics", "drawn", "edited"])
@pytest.mark.parametrize("num_columns", [2, 300, 4096, 9001])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_agrees_with_torch(kind: str, num_columns: int, dtype: torch.dtype) -> None:
    logits = torch.randn(6, num_columns, generator=torch.Generator().manual_seed(0)) * 4
    logits[1] = logits[1].round()  # ties
    logits[2, 1:] = NEG_INF
    logits = logits.to(dtype).to(DEVICE)
    wanted = torch_row_stats(logits, **options(6, num_columns, kind))
    got = row_stats(logits, **options(6, num_columns, kind))
    assert torch.equal(got.token, wanted.token)
    for one, other in zip(got[1:], wanted[1:], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=3e-6)


def test_no_rows() -> None:
    assert len(row_stats(torch.empty(0, 7, device=DEVICE)).token) == 0
