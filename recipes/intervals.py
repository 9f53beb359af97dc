"""Confidence intervals that several studies report."""

from scipy.stats import binomtest


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the share ``right / count``; trials are taken as independent."""
    found = binomtest(right, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
