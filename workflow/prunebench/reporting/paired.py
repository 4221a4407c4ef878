"""What n paired differences say: mean, intervals, tests, effect size, and what such a design could have found.

Pure numbers; ``docs/statistics.md`` says which of them is shown when, and why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from prunebench.reporting import ENOUGH

LEVEL = 0.95
SIGNIFICANCE = 0.05
POWER = 0.8
_RESAMPLES = 9999
# Percentages lie in 0 to 100, so spreads below this are rounding of the subtraction and no variance.
_NO_SPREAD = 1e-9


@dataclass(frozen=True)
class PairedComparison:
    """What n differences say; ``nan`` where n or the spread of the differences does not allow it.

    Attributes:
        n: How many differences there are.
        mean_difference: Their mean, in their unit.
        ci_low: Lower end of the two-sided 95 % t interval of the mean.
        ci_high: Its upper end.
        p_value: Of the paired two-sided t test.
        bootstrap_low: Lower end of the 95 % studentised bootstrap interval of the mean, from 8 differences on.
        bootstrap_high: Its upper end.
        p_wilcoxon: Of the two-sided Wilcoxon signed-rank test, from 8 differences on.
        hedges_g: Mean over standard deviation of the differences (Cohen's d_z), with Hedges' correction; from 3 differences on.
        g_low: Lower end of its 95 % interval, from the noncentral t distribution.
        g_high: Its upper end.
        share_above: Share of differences above zero; zeros count half.
        sd: Sample standard deviation of the differences (n - 1).
    """

    n: int
    mean_difference: float
    ci_low: float = math.nan
    ci_high: float = math.nan
    p_value: float = math.nan
    bootstrap_low: float = math.nan
    bootstrap_high: float = math.nan
    p_wilcoxon: float = math.nan
    hedges_g: float = math.nan
    g_low: float = math.nan
    g_high: float = math.nan
    share_above: float = math.nan
    sd: float = math.nan


def paired_comparison(differences: Sequence[float]) -> PairedComparison:
    """Test whether the mean of paired differences is zero (two-sided one-sample t test of the differences).

    With a single difference, or with differences that are all the same, there is no spread to judge by: a handful
    of replicates that happen to agree on a finite test set does not make an infinitely certain result. Intervals and
    p values are then ``nan``.

    Raises:
        ValueError: there is no difference at all.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = int(values.size)
    if n == 0:
        raise ValueError("no differences to compare")
    mean = float(values.mean())
    share = float(np.mean(np.where(np.abs(values) <= _NO_SPREAD, 0.5, values > 0)))
    if n < 2 or float(np.ptp(values)) <= _NO_SPREAD:
        return PairedComparison(n, mean, share_above=share)
    test = stats.ttest_1samp(values, 0.0)
    bounds = test.confidence_interval(LEVEL)
    low, high = bootstrap_interval(values.tolist())
    g, g_low, g_high = _effect(float(test.statistic), n)
    return PairedComparison(
        n=n,
        mean_difference=mean,
        ci_low=float(bounds.low),
        ci_high=float(bounds.high),
        p_value=float(test.pvalue),
        bootstrap_low=low,
        bootstrap_high=high,
        p_wilcoxon=_wilcoxon(values.tolist()),
        hedges_g=g,
        g_low=g_low,
        g_high=g_high,
        share_above=share,
        sd=float(values.std(ddof=1)),
    )


def is_tie(differences: Sequence[float]) -> bool:
    """Whether there are two differences at least and all are zero: no test says so, but nothing is to be told apart."""
    return len(differences) > 1 and float(np.abs(differences).max()) <= _NO_SPREAD


def bootstrap_interval(differences: Sequence[float]) -> tuple[float, float]:
    """The studentised bootstrap interval of a mean (Efron and Tibshirani 1993, section 12.5), 9999 resamples with a fixed seed.

    Each resample is judged by its own standard error, which makes up for the small n that percentile and BCa intervals suffer from:
    of 10 values they hold 95 % about nine times in ten (``tests/test_statistics.py``).

    Returns:
        Lower and upper end; ``nan`` below 8 differences, and where so many of them are equal that more than one resample in a hundred
        has no spread.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = values.size
    if n < ENOUGH:
        return math.nan, math.nan
    # Sorted, and one seed for all: the same differences give the same interval, in whatever order they come.
    resamples = np.sort(values)[np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))]
    errors = resamples.std(axis=1, ddof=1) / math.sqrt(n)
    spread = errors > _NO_SPREAD
    if spread.mean() < 0.99:
        return math.nan, math.nan
    pivots = (resamples.mean(axis=1)[spread] - values.mean()) / errors[spread]
    lower, upper = np.quantile(pivots, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    error = values.std(ddof=1) / math.sqrt(n)
    return float(values.mean() - upper * error), float(values.mean() - lower * error)


def _wilcoxon(differences: Sequence[float]) -> float:
    # Zeros are ranked and then left out (Pratt 1959); without zeros and ties the p value is exact.
    values = np.where(np.abs(differences) <= _NO_SPREAD, 0.0, differences)
    if values.size < ENOUGH:
        return math.nan
    # Values that subtraction has made differ in the last digit are ties.
    return float(stats.wilcoxon(np.round(values, 9), zero_method="pratt").pvalue)


def _effect(t: float, n: int) -> tuple[float, float, float]:
    """Hedges' g of paired differences and its interval: the standardised means under which t lies at either 2.5 % point."""
    df = n - 1
    if df < 2:
        return math.nan, math.nan, math.nan
    correction = math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2)
    scale = correction / math.sqrt(n)
    low, high = (_noncentrality(t, df, share) for share in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return t * scale, low * scale, high * scale


def _noncentrality(t: float, df: int, share: float) -> float:
    """The noncentrality of which ``t`` is the quantile ``share``."""

    def excess(centre: float) -> float:
        return _noncentral_t(t, df, centre) - share

    reach = 4.0 + abs(t)
    while not excess(t - reach) > 0 > excess(t + reach):
        reach *= 2
    return float(optimize.brentq(excess, t - reach, t + reach))


def _noncentral_t(t: float, df: int, centre: float) -> float:
    """Distribution function of the noncentral t: the normal one's mean over what the standard deviation may come out as.

    SciPy's ``nct.cdf`` is ``nan`` for some of the few degrees of freedom and large centres that are asked for here.
    """
    deviations, weights = _deviations(df)
    return float(np.sum(weights * special.ndtr(t * deviations - centre)))


@cache
def _deviations(df: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard deviations that ``df`` degrees of freedom may give where the true one is 1, and their weights (Gauss-Legendre)."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return np.sqrt(stats.chi2.ppf((nodes + 1) / 2, df) / df), weights / 2


@cache
def detectable_effect(n: int, significance: float = SIGNIFICANCE) -> float:
    """The smallest true mean, in standard deviations of the differences, that a two-sided t test of n of them finds 4 times in 5.

    Args:
        n: number of differences.
        significance: level of the test.

    Returns:
        ``nan`` below 2 differences.
    """
    if n < 2:
        return math.nan
    df = n - 1
    critical = float(stats.t.isf(significance / 2, df))

    def lacking(centre: float) -> float:
        power = 1 - _noncentral_t(critical, df, centre) + _noncentral_t(-critical, df, centre)
        return power - POWER

    high = critical + 2.0
    while lacking(high) < 0:
        high *= 2
    return float(optimize.brentq(lacking, 0.0, high)) / math.sqrt(n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979) of one family of tests; ``nan`` is no test and stays ``nan``."""
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, math.nan)
    tested = ~np.isnan(values)
    p = values[tested]
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    # Not by statsmodels' multipletests, whose call of the garbage collector takes a tenth of a second.
    adjusted[np.flatnonzero(tested)[order]] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def verdict(mean_difference: float, p_holm: float, better: str | None = "higher") -> str:
    """What a comparison decides where the Holm-adjusted p value is below 0.05; ``undecided`` otherwise.

    Args:
        mean_difference: in the quantity's unit.
        p_holm: the adjusted p value, or ``nan``.
        better: which way is good, ``higher`` or ``lower``: the verdict is ``better`` or ``worse``. None: it is ``higher`` or ``lower``.
    """
    if math.isnan(p_holm) or p_holm >= SIGNIFICANCE:
        return "undecided"
    if better is None:
        return "higher" if mean_difference > 0 else "lower"
    return "better" if (mean_difference > 0) == (better == "higher") else "worse"
