"""Traces and their scores, one JSON line each."""

from __future__ import annotations

from recipes.pass_at_k.store import Record


class Trace(Record, frozen=True, kw_only=True):
    """Reasoning sampled for a known answer.

    ``mean_logprob`` is that of the committed tokens, each in the pass that committed it, in nats.
    """

    seed: int
    text: str
    mean_logprob: float | None
    forward_passes: int


class Scored(Record, frozen=True, kw_only=True):
    """log p(answer | question, reasoning) of the trace of the same key, in nats, and its tokens.

    ``sample`` -1 is the question without reasoning. None: the server refused the reasoning, and
    ``note`` says why.
    """

    logprob: float | None
    tokens: int
    note: str = ""

    @property
    def score(self) -> float | None:
        """The mean over the answer's tokens."""
        return None if self.logprob is None else self.logprob / self.tokens


WITHOUT_REASONING = -1
