"""The engine that answers a study's questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm import LLM

    from recipes.train.questions import Question


def start(model: str, batch: int) -> LLM:
    """vLLM with a model, ``batch`` requests at a time."""
    from vllm import LLM

    return LLM(model, max_num_seqs=batch, max_num_batched_tokens=16384)


def chat(question: Question) -> Any:
    """The messages that ask a question."""
    return [{"role": "user", "content": question.text}]
