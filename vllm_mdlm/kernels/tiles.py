"""Working on a large logits matrix a few rows at a time, in float32 or float64 scratch memory.

A scratch row is padded with -inf to whole chunks. Maxima and sums go chunk by chunk: torch's
plain reductions are fast, its arg-reductions over a long row are not; and a row's sum is added
in the same order whatever the other rows are, so that no statistic depends on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

CHUNK = 256  # columns
TILE = 1 << 21  # elements


def tile_rows(num_columns: int, num_elements: int = TILE) -> int:
    """Rows in a tile of about `num_elements` elements."""
    return max(1, num_elements // num_columns)


def row_tiles(num_rows: int, num_columns: int, num_elements: int = TILE) -> Iterator[slice]:
    """Consecutive slices of rows, each a tile of about `num_elements` elements."""
    size = tile_rows(num_columns, num_elements)
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


class Scratch:
    """Memory for one tile of logits rows, reused from tile to tile.

    Args:
        logits: [N, V], the matrix that `row_tiles` cuts into tiles of `num_elements`.
        dtype: torch.float32 or torch.float64.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        num_elements: int = TILE,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        num_rows, self._num_columns = logits.shape
        size = min(num_rows, tile_rows(self._num_columns, num_elements))
        width = -(-self._num_columns // CHUNK) * CHUNK
        self._memory = torch.empty(size, width, device=logits.device, dtype=dtype)

    def rows(self, num_rows: int) -> torch.Tensor:
        """The first rows of the memory, [num_rows, W], whatever they hold."""
        return self._memory[:num_rows]

    def load(self, rows: torch.Tensor) -> torch.Tensor:
        """A copy of `rows` [n, V] as [n, W], W whole chunks, the padding -inf. It is valid until
        the next call."""
        tile = self.rows(rows.shape[0])
        tile[:, : self._num_columns] = rows
        tile[:, self._num_columns :] = float("-inf")
        return tile


def row_sum(tile: torch.Tensor) -> torch.Tensor:
    """Sum of every row of a tile [n, W]: [n]."""
    return tile.view(tile.shape[0], -1, CHUNK).sum(dim=2).sum(dim=1)


def chunk_max(tile: torch.Tensor) -> torch.Tensor:
    """Maxima of the chunks of a tile [n, W]: [n, W / c].

    c divides `CHUNK` and is near the root of W: `first_max` looks through the chunks of a row,
    then through one chunk.
    """
    num_rows, width = tile.shape
    chunk = min(CHUNK, max(32, 1 << (width.bit_length() // 2)))
    return tile.view(num_rows, -1, chunk).amax(dim=2)


def first_max(
    tile: torch.Tensor, chunk_maxima: torch.Tensor, without: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest value of every row and the first column that holds it.

    Args:
        tile: [n, W].
        chunk_maxima: [n, W / c], `chunk_max(tile)`.
        without: [n] int64 or None: a column of each row to leave out.

    Returns:
        [n] values, [n] int64 columns.
    """
    num_rows, num_chunks = chunk_maxima.shape
    size = tile.shape[1] // num_chunks
    chunks = tile.view(-1, size)
    first = torch.arange(0, num_rows * num_chunks, num_chunks, device=tile.device)
    if without is not None:
        home = without // size
        reduced = chunks.index_select(0, first + home)
        reduced.scatter_(1, (without % size).unsqueeze(1), float("-inf"))
        maxima = reduced.amax(dim=1, keepdim=True)
        chunk_maxima = chunk_maxima.scatter(1, home.unsqueeze(1), maxima)
    best = chunk_maxima.argmax(dim=1)
    chunk = chunks.index_select(0, first + best)
    if without is not None:
        chunk = torch.where((best == home).unsqueeze(1), reduced, chunk)
    value, offset = chunk.max(dim=1)
    return value, best * size + offset
