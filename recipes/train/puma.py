"""PUMA's streaming buffer: rows that keep their partial state from one optimiser step to the
next.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from recipes.train.data import Batch, Source
from recipes.train.masking import PumaState, puma_advance, puma_stages
from recipes.train.settings import PumaMasking


class PumaBuffer:
    """As many rows as a batch has; a finished row is replaced by the next row of the source.

    The source's batches must all have one shape and no padding.
    """

    def __init__(self, scheme: PumaMasking, source: Source, steps: int) -> None:
        self.scheme, self.source, self.steps = scheme, source, steps
        first = source.batch(0)
        self.tokens, self.maskable = first.tokens.clone(), first.maskable.clone()
        count = len(self.tokens)
        self.state = PumaState(first.maskable.clone(), torch.zeros(count, dtype=torch.int64))
        self.drawn = count

    def rows(self) -> tuple[Batch, Tensor]:
        """The gold rows in the buffer and which of their cells are masked now."""
        return Batch(self.tokens, self.maskable), self.state.masked

    def advance(self, logits: Tensor, masked: Tensor, step: int) -> None:
        """Reveal by the logits [n, vocab] of the masked cells, then refill what is finished."""
        scheme = self.scheme
        stages = puma_stages(
            step, self.steps, scheme.stages_start, scheme.stages_end, scheme.stages_increment
        )
        confidence = torch.zeros(masked.shape, device=logits.device)
        confidence[masked] = logits.softmax(-1).amax(-1)
        self.state, finished = puma_advance(self.state, confidence.cpu(), stages, scheme.threshold)
        self._refill(finished.nonzero().squeeze(1))

    def _refill(self, rows: Tensor) -> None:
        size = len(self.tokens)
        index = torch.arange(self.drawn, self.drawn + len(rows))
        for number in (index // size).unique().tolist():
            batch = self.source.batch(number)
            here = index // size == number
            self.tokens[rows[here]] = batch.tokens[index[here] % size]
            self.maskable[rows[here]] = batch.maskable[index[here] % size]
        self.state.masked[rows] = self.maskable[rows]
        self.state.stage[rows] = 0
        self.drawn += len(rows)

    def state_dict(self) -> dict[str, object]:
        return {
            "tokens": self.tokens,
            "maskable": self.maskable,
            "masked": self.state.masked,
            "stage": self.state.stage,
            "drawn": self.drawn,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.tokens, self.maskable = state["tokens"].cpu(), state["maskable"].cpu()
        self.state = PumaState(state["masked"].cpu(), state["stage"].cpu())
        self.drawn = int(state["drawn"])
