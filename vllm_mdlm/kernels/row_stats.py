"""Statistics of logits rows: what the samplers rank by, and the proposed token of every row."""

from __future__ import annotations

from typing import NamedTuple

import torch


class RowStats(NamedTuple):
    """One number a logits row; entropies and log-probabilities in nats."""

    token: torch.Tensor  # [N] int64, proposed token
    logprob: torch.Tensor  # [N] float32, log of its untempered probability
    top_logprob: torch.Tensor  # [N] float32, log of the largest probability among allowed tokens
    entropy: torch.Tensor | None  # [N] float32
    margin: torch.Tensor | None  # [N] float32, first minus second largest probability


def row_stats(
    logits: torch.Tensor,
    choice_logits: torch.Tensor | None = None,
    *,
    noise_keys: torch.Tensor | None = None,
    temperature: torch.Tensor | None = None,
    drawn_rows: torch.Tensor | None = None,
    need_entropy: bool = False,
    need_margin: bool = False,
) -> RowStats:
    from vllm_mdlm.kernels.noise import gumbel

    choice = logits if choice_logits is None else choice_logits
    lp = logits.float().log_softmax(1)
    token = choice.argmax(1)
    top = choice.argmax(1)
    if drawn_rows is not None and len(drawn_rows):
        assert noise_keys is not None and temperature is not None
        lanes = torch.arange(logits.shape[1], device=logits.device)
        noisy = choice[drawn_rows].double() / temperature[drawn_rows].unsqueeze(1)
        token[drawn_rows] = (noisy + gumbel(noise_keys[drawn_rows], lanes)).argmax(1)
    return RowStats(
        token,
        lp.gather(1, token.unsqueeze(1)).squeeze(1),
        lp.gather(1, top.unsqueeze(1)).squeeze(1),
        None,
        None,
    )
