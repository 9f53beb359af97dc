"""How often right reasoning has the higher score: AUC and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from recipes.pass_at_k.estimator import CONFIDENCE, RESAMPLES, Estimate

Floats = NDArray[np.float64]

BATCH = 100
"""Resamples at a time, which bounds the memory."""


class Contest(NamedTuple):
    """Scores of right reasoning against those of corrupted reasoning, of the same questions.

    wins: [questions, questions], how many corrupted reasonings of the second question have a lower
    score than the right one of the first; ties count half. corrupted: [questions], their number.
    """

    wins: Floats
    corrupted: Floats

    @property
    def auc(self) -> float:
        """The Mann-Whitney statistic as a share: over all pairs, whatever their questions."""
        return float(self.wins.sum() / (len(self.wins) * self.corrupted.sum()))

    @property
    def paired(self) -> float:
        """The share of corrupted reasonings below the right one of their own question."""
        return float(self.wins.trace() / self.corrupted.sum())


def contest(right: Mapping[int, float], corrupted: Mapping[int, Sequence[float]]) -> Contest:
    """Compare scores by question; questions without a corrupted reasoning are left out."""
    questions = [question for question, scores in corrupted.items() if scores]
    gold = np.array([right[question] for question in questions])
    wins = [
        np.sum([(gold > score) + 0.5 * (gold == score) for score in corrupted[question]], axis=0)
        for question in questions
    ]
    counts = [len(corrupted[question]) for question in questions]
    return Contest(np.array(wins).T, np.array(counts, dtype=float))


def auc_with_interval(found: Contest, seed: int = 0) -> Estimate:
    """The AUC with a percentile bootstrap over questions (scipy): a question is redrawn with all
    its reasonings. One question alone has no interval: NaN.
    """
    count = len(found.wins)
    if count < 2:
        return Estimate(found.auc, float("nan"), float("nan"))

    def redrawn(sample: NDArray[np.int64], axis: int = -1) -> Floats:
        rows = sample.reshape(-1, count)
        times = np.zeros(rows.shape)
        np.add.at(times, (np.arange(len(rows))[:, None], rows), 1)
        wins = ((times @ found.wins) * times).sum(axis=1)
        shares: Floats = wins / (count * (times @ found.corrupted))
        return shares.reshape(sample.shape[:-1])

    interval = bootstrap(
        (np.arange(count),),
        redrawn,
        n_resamples=RESAMPLES,
        batch=BATCH,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(found.auc, float(interval.low), float(interval.high))
