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

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

KV_MODES = ("exact", "prefix", "dual")


class Blocks:
    """Where the blocks of a canvas lie; positions count from its start.

    Args:
        gen_length: canvas positions.
        block_length: of equal blocks, the last of which may be short.
        listed: [start, end) of every block from the left, where they are not equal; positions
            between them are fixed.
    """

    def __init__(
        self, gen_length: int, block_length: int, listed: Sequence[tuple[int, int]] | None = None
    ) -> None:
        self._gen_length = gen_length
        self._block_length = block_length
        self._listed = listed
        self._ends = None if listed is None else [end for _, end in listed]

    def __len__(self) -> int:
        if self._listed is not None:
            return len(self._listed)
        return -(-self._gen_length // self._block_length)

    def index_at(self, num_final: int) -> int:
        """Index of the active block when the first `num_final` positions are final."""
        if self._ends is not None:
            return bisect_right(self._ends, num_final)
        return num_final // self._block_length

    def bounds(self, index: int) -> tuple[int, int]:
        """Start and end of a block; after the last, the end of the canvas twice."""
        if index >= len(self):
            return self._gen_length, self._gen_length
        if self._listed is not None:
            return self._listed[index]
        start = index * self._block_length
        return start, min(start + self._block_length, self._gen_length)

    def starts(self) -> frozenset[int]:
        """First position of every block."""
        return frozenset(self.bounds(index)[0] for index in range(len(self)))


class Canvas(NamedTuple):
    """Where a request's canvas lies and how it is recomputed."""

    start: int  # tokens of the prompt
    end: int
    blocks: Blocks
    kv_cache: str

    def block_of(self, num_final: int) -> int:
        """Index of the active block when `num_final` canvas tokens are final."""
        return self.blocks.index_at(num_final)

    def span(self, block: int, *, refresh: bool) -> tuple[int, int]:
        """First position of a pass and the position after its last."""
        if refresh or self.kv_cache == "exact":
            return 0, self.end
        first, last = self.blocks.bounds(block)
        if self.kv_cache == "prefix":
            return self.start + first, self.end
        return self.start + first, self.start + last
