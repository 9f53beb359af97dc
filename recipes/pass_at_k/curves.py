"""What the answers and grades of a study say, one curve a task and setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from recipes.pass_at_k.estimator import Estimate, Floats, Ints, mean_with_interval, pass_at_k
from recipes.pass_at_k.settings import Sampler, Study
from recipes.pass_at_k.store import Answer, Grade, Key


class Curve(NamedTuple):
    """Counts of one setting on one task.

    ``n`` and ``c`` are samples and right samples by question, int64 [questions], in the order of
    ``questions``, which ascends; ``passes`` and ``tokens`` are means over all samples;
    ``different`` is the mean over questions of how many different answers there are, as texts;
    ``acceptance`` is the share of proposals accepted, None where the sampler has none.
    """

    task: str
    sampler: Sampler
    questions: tuple[str, ...]
    n: Ints
    c: Ints
    passes: float
    tokens: float
    different: float
    acceptance: float | None

    def at_samples(self, k: int) -> Estimate | None:
        """pass@k; None where too few samples were drawn."""
        values = self._values(k)
        return None if values is None else mean_with_interval(values)

    def less(self, other: Curve, k: int, other_k: int) -> Estimate | None:
        """pass@k less the other's pass@other_k, question by question; None where a k is 0 or was
        not sampled, or the questions are not the same.
        """
        if not k or not other_k or self.questions != other.questions:
            return None
        own, its = self._values(k), other._values(other_k)
        if own is None or its is None:
            return None
        return mean_with_interval(own - its)

    def affordable(self, budget: float) -> int:
        """The largest k whose samples cost ``budget`` passes a question at most, in the mean."""
        return int(budget / self.passes)

    def _values(self, k: int) -> Floats | None:
        if self.sampler.is_deterministic:
            k = 1  # All samples are the same one.
        return pass_at_k(self.n, self.c, k) if k <= self.n.min() else None


def curves(study: Study, answers: Iterable[Answer], grades: Mapping[Key, Grade]) -> list[Curve]:
    """A curve for every task and setting that has graded answers, in the study's order."""
    groups: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        if answer.key in grades:
            groups.setdefault((answer.task, answer.setting), []).append(answer)
    return [
        curve(task.name, sampler, groups[task.name, sampler.label], grades)
        for task in study.tasks
        for sampler in study.samplers
        if (task.name, sampler.label) in groups
    ]


def curve(task: str, sampler: Sampler, answers: list[Answer], grades: Mapping[Key, Grade]) -> Curve:
    """Count samples and right ones by question."""
    counts: dict[str, list[int]] = {}
    for answer in answers:
        count = counts.setdefault(answer.question, [0, 0])
        count[0] += 1
        count[1] += grades[answer.key].right
    questions = tuple(sorted(counts))
    n, c = np.array([counts[question] for question in questions], dtype=np.int64).T
    texts = {(answer.question, answer.text) for answer in answers}
    proposals = sum(answer.proposals or 0 for answer in answers)
    accepted = sum(answer.acceptances or 0 for answer in answers)
    return Curve(
        task,
        sampler,
        questions,
        n,
        c,
        float(np.mean([answer.forward_passes for answer in answers])),
        float(np.mean([answer.completion_tokens for answer in answers])),
        len(texts) / len(questions),
        accepted / proposals if proposals else None,
    )
