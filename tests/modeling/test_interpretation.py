"""From weights and soft attention maps to the interpretation map and the energy map, computed by hand."""

import pytest
import torch

from antehoc_hf.modeling.interpretation import energy_map, interpretation_map, weight_maps
from antehoc_hf.modeling.weight_network import AutoencoderWeightNetwork, ScalarWeightNetwork

# Two soft attention maps of 2×2 pixels and their weights; Σ WM ⊙ SAM = (.15, .3, .3, .25).
SAMS = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]], [[0.2, 0.6], [0.1, 0.1]]]])
WEIGHTS = torch.tensor([[[[0.5, 0.75], [1.0, 0.5]], [[0.5, 0.25], [0.0, 0.5]]]])
COMBINED = torch.tensor([[0.15, 0.3], [0.3, 0.25]])


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("none", COMBINED),
        ("minmax", torch.tensor([[0.0, 1.0], [1.0, 2 / 3]])),
        ("max", COMBINED / 0.3),
        ("area", COMBINED * 4),
    ],
)
def test_interpretation_map_is_the_weighted_sum_scaled(scaling, expected):
    map_, degenerate = interpretation_map(SAMS, WEIGHTS, map_scaling=scaling)
    assert map_.shape == (1, 1, 2, 2)
    assert torch.allclose(map_[0, 0], expected, atol=1e-6)
    assert degenerate.tolist() == [False]


def test_area_scaling_has_mean_one_for_maps_of_mass_one():
    sams = torch.rand(3, 4, 16, 16)
    sams = sams / sams.sum(dim=(2, 3), keepdim=True)
    map_, _ = interpretation_map(sams, torch.full_like(sams, 1 / 4), map_scaling="area")
    assert torch.allclose(map_.mean(dim=(1, 2, 3)), torch.ones(3), atol=1e-5)


def test_each_soft_attention_map_stretched_before_it_is_weighted():
    map_, _ = interpretation_map(SAMS, WEIGHTS, attention_scaling="minmax", map_scaling="none")
    first = torch.tensor([[0.0, 1 / 3], [2 / 3, 1.0]])
    second = torch.tensor([[0.2, 1.0], [0.0, 0.0]])
    assert torch.allclose(map_[0, 0], WEIGHTS[0, 0] * first + WEIGHTS[0, 1] * second, atol=1e-6)


@pytest.mark.parametrize("scaling", ["minmax", "max", "area", "none"])
def test_images_are_scaled_one_by_one(scaling):
    sams = torch.rand(4, 3, 8, 8)
    weights = torch.rand(4, 3, 8, 8).softmax(dim=1)
    together, _ = interpretation_map(sams, weights, map_scaling=scaling)
    alone = [interpretation_map(sams[i : i + 1], weights[i : i + 1], map_scaling=scaling)[0] for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_minmax_map_of_a_large_image_has_full_contrast():
    sams = torch.rand(1, 2, 1024, 1024)
    sams = sams / sams.sum(dim=(2, 3), keepdim=True)
    map_, degenerate = interpretation_map(sams, torch.full_like(sams, 0.5))
    assert map_.min() == 0
    assert map_.max().item() == pytest.approx(1, abs=1e-5)
    assert map_.max() <= 1
    assert not degenerate.any()


@pytest.mark.parametrize(("scaling", "expected"), [("minmax", 0.0), ("max", 1.0), ("area", 1.0), ("none", 1 / 64)])
def test_constant_map_is_flagged(scaling, expected):
    sams = torch.full((2, 3, 8, 8), 1 / 64)
    sams[1] = torch.rand(3, 8, 8)
    map_, degenerate = interpretation_map(sams, torch.full_like(sams, 1 / 3), map_scaling=scaling)
    assert degenerate.tolist() == [True, False]
    assert torch.allclose(map_[0], torch.tensor(expected))


@pytest.mark.parametrize("scaling", ["minmax", "max", "area", "none"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_map_that_is_not_finite_is_flagged_and_zero(scaling, value):
    sams = torch.rand(2, 3, 8, 8)
    sams[0, 1, 3, 4] = value
    map_, degenerate = interpretation_map(sams, torch.full_like(sams, 1 / 3), map_scaling=scaling)
    assert degenerate.tolist() == [True, False]
    assert map_[0].eq(0).all()
    assert map_[1].isfinite().all()
    assert map_[1].max() > 0


def test_gradient_of_a_constant_map_is_finite():
    """A batch with one grey image must not ruin the weight network."""
    logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
    sams = torch.full((2, 3, 8, 8), 1 / 64)
    sams[1] = torch.rand(3, 8, 8)
    map_, _ = interpretation_map(sams, weight_maps(logits, (8, 8)))
    map_.square().sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().sum() > 0


@pytest.mark.parametrize("scaling", ["minmax", "max", "area", "none"])
def test_gradient_reaches_the_weights_under_every_scaling(scaling):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    map_, _ = interpretation_map(torch.rand(1, 3, 8, 8), weight_maps(logits, (8, 8)), map_scaling=scaling)
    (map_ * torch.rand(1, 1, 8, 8)).sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_weight_maps_are_the_softmax_over_maps_at_their_own_grid():
    logits = torch.tensor([0.0, 1.0, 2.0]).log1p().view(1, 3, 1, 1).expand(2, 3, 4, 4)
    expected = torch.tensor([1.0, 2.0, 3.0]) / 6
    assert torch.allclose(weight_maps(logits, (4, 4)), expected.view(1, 3, 1, 1).expand(2, 3, 4, 4))


@pytest.mark.parametrize("size", [(64, 64), (37, 61), (5, 3)])
@pytest.mark.parametrize("grid", [(1, 1), (16, 16), (9, 15)])
def test_weight_maps_sum_to_one_at_every_pixel(size, grid):
    weights = weight_maps(5 * torch.randn(2, 6, *grid), size)
    assert weights.shape == (2, 6, *size)
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(dim=1), torch.ones(2, *size), atol=1e-5)


MEAN, STD = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)


def test_energy_map_in_pixel_space():
    pixels = torch.rand(2, 3, 8, 8)
    mask = torch.rand(2, 1, 8, 8)
    mask[:, :, 0, 0], mask[:, :, 1, 1] = 0, 1
    normalised = (pixels - MEAN) / STD
    energy = energy_map(normalised, mask, MEAN, STD)
    assert torch.allclose(energy, (pixels * mask - MEAN) / STD, atol=1e-5)
    # Where the map is 0 the image is black, and where it is 1 the image is what it was, to the last bit.
    assert torch.equal(energy[:, :, 0, 0], (-MEAN / STD).flatten().expand(2, 3))
    assert torch.equal(energy[:, :, 1, 1], normalised[:, :, 1, 1])


def test_energy_map_of_a_map_of_ones_is_the_image():
    normalised = 3 * torch.randn(2, 3, 32, 32)
    assert torch.equal(energy_map(normalised, torch.ones(2, 1, 32, 32), MEAN, STD), normalised)


def test_energy_map_in_normalised_space():
    normalised, mask = torch.randn(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    assert torch.equal(energy_map(normalised, mask, MEAN, STD, "normalized"), normalised * mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_energy_map_has_the_type_of_the_image(dtype):
    energy = energy_map(torch.randn(1, 3, 4, 4).to(dtype), torch.rand(1, 1, 4, 4), MEAN, STD)
    assert energy.dtype == dtype


@pytest.mark.parametrize("size", [(64, 64), (33, 57), (2, 3), (1, 1)])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_weight_network_starts_at_zero_for_any_size(size, skip, depth):
    network = AutoencoderWeightNetwork(5, depth=depth, width=4, skip=skip)
    logits = network(torch.rand(2, 5, *size))
    assert logits.shape[:2] == (2, 5)
    assert [abs(2 * small - side) <= 1 for small, side in zip(logits.shape[2:], size, strict=True)] == [True, True]
    assert logits.eq(0).all()


def test_depth_width_and_skip_make_other_networks():
    torch.manual_seed(0)
    maps = torch.rand(1, 4, 16, 16)

    def sizes(**options):
        return [tuple(p.shape) for p in AutoencoderWeightNetwork(4, **options).parameters()]

    assert sizes(depth=2, width=8)[:4] == [(8, 4, 3, 3), (8,), (16, 8, 3, 3), (16,)]
    assert sizes(depth=2, width=8) != sizes(depth=3, width=8)
    plain, skipping = AutoencoderWeightNetwork(4, 2), AutoencoderWeightNetwork(4, 2, skip=True)
    torch.nn.init.normal_(plain.head.weight)
    skipping.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(maps), skipping(maps))


def test_weight_network_does_not_look_at_the_rest_of_the_batch():
    network = AutoencoderWeightNetwork(4, depth=2).train()
    torch.nn.init.normal_(network.head.weight)
    maps = torch.rand(3, 4, 32, 32)
    assert torch.allclose(network(maps)[1:2], network(maps[1:2]), atol=1e-6)


def test_scalar_network_has_one_weight_a_map():
    network = ScalarWeightNetwork(3)
    assert sum(p.numel() for p in network.parameters()) == 3
    with torch.no_grad():
        network.logits.copy_(torch.tensor([1.0, 2.0, 5.0]).log())
    weights = weight_maps(network(torch.rand(2, 3, 8, 8)), (8, 8))
    assert torch.allclose(weights, torch.tensor([1 / 8, 2 / 8, 5 / 8]).view(1, 3, 1, 1).expand(2, 3, 8, 8))


def test_a_weight_network_that_would_not_fit_into_memory_is_refused():
    with pytest.raises(ValueError, match="depth"):
        AutoencoderWeightNetwork(8, depth=30)
