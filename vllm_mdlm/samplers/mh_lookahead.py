"""Global tempering with the mean-field look-ahead: an approximation of p^alpha, token by token.

Source: the global tempering of "Locally Confident, Globally Stuck" (Fang et al. 2026), whose exact
conditional at position i is p(v | x)^alpha Z(v), Z(v) the sum of p(rest | x, v)^alpha. The
look-ahead Z cannot be summed; its mean-field stand-in is the product, over positions that are still
masked, of sum_u p_j(u | x, v)^alpha, read from one pass with v inserted. `candidates` tokens are
drawn from q(v) = p(v)^alpha / z; the chain over them accepts with min(1, exp(s' - s)), s the
logarithm of that product: the local factors cancel.

It is biased twice: by the mean field, and by a chain of few candidates. `mh` is exact.

Inferred, not read in the source: that formula, and that all candidates are drawn first and scored
together. Our choices: one position at a time, from the left; the look-ahead ends with the active
block (`block_length` = `gen_length` looks at the whole canvas); both defaults. The winner's pass is
the next token's, so a token costs at most `candidates` passes, and equal candidates share theirs.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from vllm_mdlm.samplers.base import ChainParams, ChainSampler

MOST_CANDIDATES = 256
"""Our choice: they travel with every pass."""


class MhLookaheadParams(ChainParams, frozen=True, kw_only=True):
    candidates: Annotated[
        int,
        Meta(
            ge=1,
            le=MOST_CANDIDATES,
            description="Tokens drawn for a position, of which the chain keeps one; 1: no "
            "look-ahead.",
        ),
    ] = 4


SAMPLER = ChainSampler("mh_lookahead", MhLookaheadParams)
