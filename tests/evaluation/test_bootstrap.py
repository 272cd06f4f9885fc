"""Bootstrap intervals against theory."""

import json
import math

import pytest
import torch

from antehoc_hf.evaluation import bootstrap_mean, paired_difference
from antehoc_hf.evaluation.bootstrap import bootstrap_means, mean_change


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


def test_pairs_tell_apart_what_single_intervals_do_not():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(200, generator=generator)
    better = images + 0.1 + 0.01 * torch.randn(200, generator=generator)
    estimate = paired_difference(better, images)
    assert estimate.value == pytest.approx(float((better - images).mean()), abs=1e-6)
    assert 0.09 < estimate.low < estimate.high < 0.11
    assert bootstrap_mean(better).low < bootstrap_mean(images).high
    assert paired_difference(images, better).value == pytest.approx(-estimate.value)


def test_pairs_without_a_number_are_left_out():
    first, second = torch.tensor([1.0, math.nan, 5.0, 2.0]), torch.tensor([0.0, 1.0, math.nan, 4.0])
    estimate = paired_difference(first, second)
    assert (estimate.value, estimate.count) == (-0.5, 2)
    assert math.isnan(paired_difference(first[1:3], second[1:3]).value)


def test_change_of_two_means():
    values = torch.tensor([[1.0, 4.0], [3.0, math.nan], [math.nan, 8.0]])
    change = mean_change(values, torch.isfinite(values))
    assert (change.value, change.count) == (4, 2)
    assert 0 <= change.low <= 4 <= change.high <= 7
    same = torch.rand(50, generator=torch.Generator().manual_seed(0))
    nothing = mean_change(torch.stack([same, same], dim=1), torch.ones(50, 2, dtype=torch.bool))
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    maybe = mean_change(torch.stack([same, same.flip(0)], dim=1), torch.ones(50, 2, dtype=torch.bool))
    assert maybe.low == 0 == pytest.approx(maybe.value)
    assert maybe.high > 0.05
    sure = mean_change(torch.stack([same, same - 3], dim=1), torch.ones(50, 2, dtype=torch.bool))
    assert (sure.low, sure.high) == pytest.approx((3, 3), abs=1e-5)


def test_mistakes_end_in_one_sentence():
    with pytest.raises(ValueError, match="one value for each image"):
        paired_difference(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="not finite"):
        paired_difference(torch.tensor([1.0, math.inf]), torch.ones(2))
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        mean_change(torch.ones(3, 3), torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="1 of 2 values are not finite"):
        bootstrap_mean(torch.tensor([1.0, math.nan]))
    with pytest.raises(ValueError, match="level=95"):
        bootstrap_mean(torch.ones(3), level=95)
    with pytest.raises(ValueError, match="resamples=0"):
        bootstrap_mean(torch.ones(3), resamples=0)
    with pytest.raises(ValueError, match=r"\(N,\)"):
        bootstrap_mean(torch.ones(3, 2))
