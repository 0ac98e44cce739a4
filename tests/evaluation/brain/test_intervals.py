"""Intervals of hierarchy scores: from the variances of three bootstraps, clipped, and honest about what is undefined."""

import numpy as np
import pytest
from rsatoolbox.util.inference_util import extract_variances
from scipy.stats import t

from evaluation.brain.hierarchy import Hierarchical
from evaluation.brain.hierarchy_reports import around, with_p


def three(rng, subject, image, pair, num=4000):
    """Resamples of a score whose noise of subjects, images and pairs has known variances; pairs count twice in both."""
    both = rng.normal(0, np.sqrt(subject + image + 2 * pair), num)
    return np.stack([both, rng.normal(0, np.sqrt(subject), num), rng.normal(0, np.sqrt(image), num)])


def test_the_interval_is_rsatoolbox_s_of_the_three_variances():
    again = three(np.random.default_rng(0), 0.004, 0.006, 0.001)
    low, high, said = around(0.1, again, 8, 40)
    covariances = np.stack([np.cov(a[None], ddof=1).reshape(1, 1) for a in again])
    variance, _, _ = extract_variances(covariances, False, n_rdm=8, n_pattern=40)
    half = t.ppf(0.975, 7) * np.sqrt(variance.item())
    assert (low, high) == (pytest.approx(0.1 - half), pytest.approx(0.1 + half)) and said == ""
    assert half**2 < t.ppf(0.975, 7) ** 2 * again[0].var()  # narrower than resamples of both at once


def test_it_stays_within_what_a_correlation_can_be():
    low, high, _ = around(0.9, three(np.random.default_rng(1), 0.05, 0.05, 0.01), 8, 40)
    assert high == 1.0 and -1.0 < low < 0.9


def test_undefined_resamples_are_counted_and_said():
    again = three(np.random.default_rng(2), 0.004, 0.006, 0.001, num=200)
    spoilt = again.copy()
    spoilt[0, :30] = np.nan
    spoilt[2, 20:50] = np.nan  # 50 of 200 in any of the three
    low, high, said = around(0.1, spoilt, 8, 40)
    assert said == "undefined in 25 % of the resamples"
    assert (low, high) == around(0.1, again[:, 50:], 8, 40)[:2]
    (score, _) = with_p("activation_spatial", Hierarchical(0.1, 0.5, np.array([])), (low, high, said), 40, "no")
    assert score.gate == "pass" and score.reason == said and score.ci_low == low
    spoilt[1, 20:] = np.nan
    low, high, said = around(0.1, spoilt, 8, 40)
    assert np.isnan(low) and np.isnan(high) and said == "undefined in 100 % of the resamples"
    (score, _) = with_p("activation_spatial", Hierarchical(0.1, 0.5, np.array([])), (low, high, said), 40, "no")
    assert score.ci_low is None and score.ci_high is None
    (score,) = with_p("activation_spatial", Hierarchical(np.nan, np.nan, np.array([])), None, 40, "all the same")
    assert score.raw is None and score.reason == "all the same"
