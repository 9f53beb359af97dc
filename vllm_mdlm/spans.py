"""Which positions a pass recomputes: the KV modes.

The first pass of a block recomputes prompt and canvas in every mode. The others recompute, and
write to the cache, only what the mode says; they attend to all of prompt and canvas.

| mode | other passes of a block | source |
| --- | --- | --- |
| `exact` | prompt and canvas | LLaDA `generate.py` |
| `prefix` | from the block to the end | Fast-dLLM (arXiv 2505.22618), prefix cache |
| `dual` | the block | Fast-dLLM, dual cache |
"""

from __future__ import annotations

from typing import NamedTuple

KV_MODES = ("exact", "prefix", "dual")


class Canvas(NamedTuple):
    """Where a request's canvas lies and how it is recomputed."""

    start: int  # tokens of the prompt
    end: int
    block_length: int
    kv_cache: str

    def block_of(self, num_final: int) -> int:
        """Index of the active block when `num_final` canvas tokens are final."""
        return num_final // self.block_length

    def span(self, block: int, *, refresh: bool) -> tuple[int, int]:
        """First position of a pass and the position after its last."""
        if refresh or self.kv_cache == "exact":
            return 0, self.end
        first = self.start + block * self.block_length
        if self.kv_cache == "prefix":
            return first, self.end
        return first, min(first + self.block_length, self.end)
