"""pass@k from n samples a question, and its confidence interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 2000
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean over questions and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def pass_at_k(n: Ints, c: Ints, k: int) -> Floats:
    """The chance that k of n samples, drawn without replacement, hold one of the c right ones.

    Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374), section
    2.1: 1 - C(n - c, k) / C(n, k), unbiased for the chance with k fresh samples. Evaluated as
    1 - prod over i from 0 to k - 1 of (n - c - i) / (n - i): no factorial is formed, and every
    factor is in [0, 1].

    Args:
        n: samples of every question, int64 [questions].
        c: how many of them are right, int64 [questions].
        k: 1 to the least of ``n``.

    Returns:
        float64 [questions].

    Raises:
        ValueError: k, n and c do not fit together.
    """
    n, c = np.asarray(n), np.asarray(c)
    if n.shape != c.shape or (c < 0).any() or (c > n).any() or not 1 <= k <= n.min():
        raise ValueError(
            f"pass@{k} needs 0 <= c <= n, and k from 1 to the least n; got n {n.tolist()}, "
            f"c {c.tolist()}"
        )
    i = np.arange(k)
    wrong_left = np.maximum(n[:, None] - c[:, None] - i, 0)
    failure: Floats = (wrong_left / (n[:, None] - i)).prod(axis=1)
    return 1.0 - failure


def mean_with_interval(values: Floats, seed: int = 0) -> Estimate:
    """Mean over questions, with a percentile bootstrap over questions (scipy).

    Questions are what a study samples from a larger set; the samples of one question are not
    redrawn, their noise is part of the values. One question alone has no interval: NaN.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, float("nan"), float("nan"))
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high))
