"""The second pass's loss, against values worked out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from antehoc_hf.training.objectives import EnergyObjective
from antehoc_hf.training.objectives.losses import (
    prediction_distance,
    reconstruction_error,
    total_variation,
    weight_entropy,
)

LOG3 = math.log(3.0)


def test_probabilities_of_a_categorical_prediction():
    # softmax([0, log 3]) = (1/4, 3/4), softmax([0, 0]) = (1/2, 1/2): each differs by 1/4.
    first, second = torch.tensor([[0.0, LOG3]]), torch.tensor([[0.0, 0.0]])
    assert prediction_distance(second, first, "categorical").item() == pytest.approx(1 / 16)


def test_probabilities_of_independent_labels():
    # sigmoid(log 3) = 3/4, sigmoid(0) = 1/2; the second label agrees.
    first, second = torch.tensor([[LOG3, 7.0]]), torch.tensor([[0.0, 7.0]])
    assert prediction_distance(second, first, "bernoulli").item() == pytest.approx(1 / 32)


def test_a_vector_is_compared_as_it_is():
    first, second = torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 5.0]])
    for target in ("probabilities", "logits"):
        assert prediction_distance(second, first, "vector", target).item() == pytest.approx(2.0)


def test_logits_are_centred_only_where_a_shift_means_nothing():
    first, second = torch.tensor([[1.0, 3.0]]), torch.tensor([[11.0, 13.0]])
    assert prediction_distance(second, first, "categorical", "logits").item() == pytest.approx(0.0, abs=1e-10)
    assert prediction_distance(second, first, "bernoulli", "logits").item() == pytest.approx(100.0)


def test_divergence_of_a_categorical_prediction():
    # KL((1/4, 3/4) ‖ (1/2, 1/2)) = 1/4 log 1/2 + 3/4 log 3/2
    first, second = torch.tensor([[0.0, LOG3]]), torch.tensor([[0.0, 0.0]])
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert prediction_distance(second, first, "categorical", "kl").item() == pytest.approx(expected)


def test_divergence_of_independent_labels_adds_up():
    first, second = torch.tensor([[LOG3, LOG3]]), torch.tensor([[0.0, 0.0]])
    one = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert prediction_distance(second, first, "bernoulli", "kl").item() == pytest.approx(2 * one)


def test_divergence_survives_certainty():
    first, second = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]], requires_grad=True)
    for kind in ("categorical", "bernoulli"):
        loss = prediction_distance(second, first, kind, "kl")
        (gradient,) = torch.autograd.grad(loss, second)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_divergence_of_a_vector_is_refused():
    with pytest.raises(ValueError, match="plain numbers: use target='probabilities'"):
        prediction_distance(torch.zeros(1, 2), torch.zeros(1, 2), "vector", "kl")


@pytest.mark.parametrize("target", ["probabilities", "logits", "kl"])
def test_positions_that_do_not_count_may_hold_anything(target):
    first, second = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = prediction_distance(second[mask], first[mask], "categorical", target)
    second[~mask] = float("nan")
    assert prediction_distance(second, first, "categorical", target, mask).item() == pytest.approx(expected.item())


def test_the_target_is_a_constant():
    first, second = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    prediction_distance(second, first, "categorical").backward()
    assert first.grad is None
    assert second.grad is not None


def test_half_precision_is_compared_in_single():
    first = torch.tensor([[0.0, LOG3]], dtype=torch.bfloat16)
    assert prediction_distance(torch.zeros_like(first), first, "categorical").dtype == torch.float32


def test_total_variation():
    maps = torch.tensor([[[[0.0, 1.0], [0.0, 0.5]]]])
    # vertical: |0|, |-0.5| -> 0.25; horizontal: 1, 0.5 -> 0.75
    assert total_variation(maps).item() == pytest.approx(1.0)


def test_entropy_of_weights():
    assert weight_entropy(torch.full((1, 8, 2, 2), 1 / 8)).item() == pytest.approx(1.0)
    chosen = torch.zeros(1, 4, 1, 1)
    chosen[0, 2] = 1.0
    chosen.requires_grad_()
    entropy = weight_entropy(chosen)
    entropy.backward()
    assert entropy.item() == pytest.approx(0.0)
    assert torch.isfinite(chosen.grad).all()
    assert weight_entropy(torch.ones(1, 1, 2, 2)).item() == 0.0


def test_reconstruction_upsamples_a_coarser_output():
    assert reconstruction_error(torch.full((1, 2, 1, 1), 3.0), torch.ones(1, 2, 4, 4)).item() == pytest.approx(4.0)


def test_the_penalties_are_added_with_their_weights():
    outputs = SimpleNamespace(
        interpretation_map=torch.tensor([[[[0.0, 1.0], [0.0, 0.5]]]]),  # mean 0.375, total variation 1
        weight_maps=torch.full((1, 2, 2, 2), 0.5),  # entropy 1
        weight_logits=torch.zeros(1, 2, 2, 2),
    )
    objective = EnergyObjective(reconstruction_weight=2.0, area_weight=10.0, tv_weight=100.0, entropy_weight=1000.0)
    seen = SimpleNamespace(map_head=SimpleNamespace(network_input=lambda maps: maps))
    loss = objective.penalized(torch.tensor(0.25), seen, outputs, torch.full((1, 2, 2, 2), 3.0))
    assert loss.item() == pytest.approx(0.25 + 2 * 9 + 10 * 0.375 + 100 + 1000)
    assert EnergyObjective().penalized(torch.tensor(0.25), seen, outputs, torch.zeros(1, 2, 2, 2)).item() == 0.25
