"""Bootstrap intervals against theory."""

import json
import math

import pytest
import torch

from antehoc_hf.evaluation import bootstrap_mean, bootstrap_means


def test_interval_is_that_of_the_normal_theory():
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    estimate = bootstrap_mean(values, resamples=2000)
    error = float(values.std()) / 2000**0.5
    assert estimate.value == pytest.approx(float(values.mean()), abs=1e-6)
    assert estimate.low == pytest.approx(estimate.value - 1.96 * error, abs=0.15 * error)
    assert estimate.high == pytest.approx(estimate.value + 1.96 * error, abs=0.15 * error)
    assert estimate.count == 2000


def test_seeded():
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_equal_values_and_no_values():
    estimate = bootstrap_mean(torch.full((7,), 3.0))
    assert (estimate.value, estimate.low, estimate.high) == (3, 3, 3)
    nothing = bootstrap_mean(torch.zeros(0))
    assert math.isnan(nothing.value)
    assert nothing.count == 0
    assert json.loads(json.dumps(nothing.to_dict(), allow_nan=False)) == {
        "value": None,
        "low": None,
        "high": None,
        "count": 0,
    }


def test_mean_over_some_of_the_images():
    values = torch.tensor([[1.0, 10.0], [3.0, math.nan], [math.nan, math.nan]])
    first, second = bootstrap_means(values, torch.isfinite(values))
    assert (first.value, first.count) == (2, 2)
    assert 1 <= first.low <= first.high <= 3
    assert (second.value, second.low, second.high, second.count) == (10, 10, 10, 1)


def test_mistakes_end_in_one_sentence():
    with pytest.raises(ValueError, match="1 of 2 values are not finite"):
        bootstrap_mean(torch.tensor([1.0, math.nan]))
    with pytest.raises(ValueError, match="level=95"):
        bootstrap_mean(torch.ones(3), level=95)
    with pytest.raises(ValueError, match="resamples=0"):
        bootstrap_mean(torch.ones(3), resamples=0)
    with pytest.raises(ValueError, match=r"\(N,\)"):
        bootstrap_mean(torch.ones(3, 2))
