"""Class-conditional maps: a map for each class, from the one pass that predicts."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocConfig
from antehoc_hf.modeling.map_head import of_target
from antehoc_hf.modeling.scaling import contribution_map, on_grid, patch_grid, scaled_vectors

KIND = {"map_head": "contributions"}
TAPS = ["stages.1", "stages.2"]  # not the last stage: what the head reads has other channels


@pytest.fixture(scope="module")
def model(build):
    return build("test_resnet", awake=True, **KIND)


def share(logits, model):
    return logits.softmax(dim=1) - model.map_head.baseline_worth


def rounding(output):
    """The weights of these tests are large: what cancels in a sum does so to float32's precision."""
    return 1e-6 * output.contributions.abs().sum(dim=(2, 3)).max().item()


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_vit", "test_mambaout"])
def test_contributions_sum_to_what_the_image_adds(build, noise, backbone):
    model, pixels = build(backbone, awake=True, **KIND), noise(3, 64)
    with torch.no_grad():
        output = model(pixels, output_attention_maps=True)
    assert output.contributions.shape == (3, 4, 8, 8)
    assert output.interpretation_map.shape == (3, 1, 64, 64)
    summed = output.contributions.sum(dim=(2, 3))
    assert torch.allclose(summed, share(output.logits, model), atol=rounding(output))
    assert torch.equal(output.logits, model.backbone(pixels))
    assert not output.degenerate.any()


def test_independent_labels_share_their_own_probability(build, noise):
    model = build("test_resnet", awake=True, problem_type="multi_label_classification", **KIND)
    output = model(noise(2, 64), output_attention_maps=True)
    expected = output.logits.sigmoid() - model.map_head.baseline_worth
    assert torch.allclose(output.contributions.sum(dim=(2, 3)), expected, atol=rounding(output))


def test_prediction_and_map_come_from_one_pass_of_the_backbone(model, noise):
    calls = []
    handle = model.backbone.conv1.register_forward_hook(lambda *args: calls.append(1))
    try:
        model(noise(2, 64), output_attention_maps=True)
    finally:
        handle.remove()
    assert len(calls) == 1


@torch.no_grad()
def test_every_class_has_a_map_of_its_own(model, noise):
    pixels = noise(3, 64)
    output = model(pixels)
    maps = [model.interpretation(pixels, target).interpretation_map for target in range(4)]
    assert all(not torch.allclose(maps[a], maps[b], atol=0.05) for a in range(4) for b in range(a))
    own = output.logits.argmax(dim=1)
    # By itself the predicted class alone is computed.
    of_all = model(pixels, output_attention_maps=True).interpretation_map
    assert torch.allclose(of_all, output.interpretation_map, atol=1e-4)
    assert torch.equal(model.interpretation(pixels).interpretation_map, of_all)
    assert torch.equal(model.interpretation(pixels, own).interpretation_map, of_all)
    # As an explainer, with the targets that all explainers take.
    explainer = load_explainer("antehoc", model)
    assert torch.equal(explainer(pixels), of_all)
    assert torch.equal(explainer(pixels, 2), maps[2])
    assert torch.equal(explainer(pixels, [0, 1, 3])[1], maps[1][1])


@torch.no_grad()
def test_the_map_does_not_depend_on_the_batch(model, noise):
    pixels = noise(4, 64)
    assert torch.allclose(model(pixels).interpretation_map[2:3], model(pixels[2:3]).interpretation_map, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("closed_form", [False, True])
def test_an_untrained_network_shows_the_heads_evidence(build, noise, closed_form):
    """Class activation mapping of the predicted class against the mean class: the head's weights at each position."""
    kind = {"kind": "contributions", "closed_form": closed_form}
    model, pixels = build("test_resnet", map_head=kind), noise(2, 64)
    weight = torch.nn.init.normal_(model.backbone.fc.weight, std=0.3)
    output = model(pixels)
    features = F.interpolate(model.backbone.forward_features(pixels), size=(8, 8), mode="bilinear")
    against_mean = (weight - weight.mean(dim=0))[output.logits.argmax(dim=1)]
    evidence = torch.einsum("bchw,bc->bhw", features, against_mean)[:, None]
    expected, _ = contribution_map(evidence, (64, 64))
    assert torch.allclose(output.interpretation_map, expected, atol=1e-3)


@torch.no_grad()
def test_the_map_of_a_class_follows_from_the_heads_weights_of_it(build, noise):
    model, pixels = build("test_resnet", awake=True, **KIND), noise(3, 64)
    model.map_head.baseline_worth.fill_(0.25)
    before = [model.interpretation(pixels, target).interpretation_map for target in (0, 1)]
    weight, bias = model.backbone.fc.weight, model.backbone.fc.bias
    weight[[0, 1]], bias[[0, 1]] = weight[[1, 0]], bias[[1, 0]]
    after = [model.interpretation(pixels, target).interpretation_map for target in (1, 0)]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))
    assert not torch.allclose(before[0], before[1], atol=0.05)


def test_class_vectors_by_hand():
    weight = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert torch.allclose(scaled_vectors(weight, exclusive=False), weight * (3 / 11) ** 0.5)
    centred = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 0.0]])
    assert torch.allclose(scaled_vectors(weight, exclusive=True), centred * (3 / 8) ** 0.5)
    assert torch.equal(scaled_vectors(torch.ones(2, 3), exclusive=True), torch.zeros(2, 3))


@torch.no_grad()
def test_a_head_that_is_no_linear_layer_gets_vectors_of_the_networks_own(build, noise):
    linear, other = build("test_resnet", **KIND), build("test_convnext", num_attention_maps=2, taps=TAPS, **KIND)
    assert linear.map_head.own_vectors is None
    assert other.map_head.own_vectors.shape == (4, other.config.tap_channels[-1])
    assert other(noise(2, 64)).interpretation_map.shape == (2, 1, 64, 64)


def test_the_map_of_a_class_by_hand():
    contributions = torch.tensor([[[[0.0, 0.0]], [[-1.0, 3.0]]]])
    map_, degenerate = contribution_map(of_target(contributions, torch.tensor([1])), (1, 2))
    assert map_.flatten().tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    assert not degenerate.any()
    map_, degenerate = contribution_map(of_target(contributions, torch.tensor([0])), (1, 2))
    assert map_.sum() == 0
    assert degenerate.all()


def test_layers_are_brought_to_the_grid():
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    means = torch.tensor([2.5, 4.5, 10.5, 12.5])
    expected = means / means.square().mean().sqrt()
    assert torch.allclose(on_grid(fine, (2, 2)).flatten(), expected)
    coarse = torch.rand(2, 5, 3, 4)
    scaled = coarse / coarse.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    wanted = F.interpolate(scaled, size=(8, 8), mode="bilinear", align_corners=False)
    assert torch.allclose(on_grid(coarse, (8, 8)), wanted, atol=1e-6)
    assert on_grid(torch.zeros(1, 3, 4, 4), (8, 8)).abs().sum() == 0


def test_the_grid_follows_the_images_proportions():
    assert patch_grid((64, 64), 8) == (8, 8)
    assert patch_grid((64, 128), 8) == (8, 16)
    assert patch_grid((96, 64), 6) == (9, 6)


@torch.no_grad()
def test_other_sizes_at_run_time(model, noise):
    assert model(noise(1, 96, 64)).interpretation_map.shape == (1, 1, 96, 64)


def test_no_gradient_reaches_the_backbone(build, noise):
    model = build("test_resnet", awake=True, **KIND)
    model.interpretation(noise(2, 64)).interpretation_map.sum().backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert model.map_head.entry.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("target", [4, -1, [0, 1, 2], 0.5, 1.7, "cat", [None, 1], {}, True, [[0, 1]], [], 10**30])
def test_classes_that_do_not_exist_are_refused(model, noise, target):
    with pytest.raises(
        ValueError, match=r"target must be a class, 0…3, or one for each of the 2 images, not"
    ) as caught:
        model.interpretation(noise(2, 64), target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [1, [1, 1], (1, 1), torch.tensor(1), torch.tensor([1, 1], dtype=torch.uint8)])
@torch.no_grad()
def test_a_class_may_be_given_in_any_of_these_ways(model, noise, target):
    assert torch.equal(
        model.interpretation(noise(2, 64), target).interpretation_map,
        model.interpretation(noise(2, 64), torch.tensor([1, 1])).interpretation_map,
    )


def test_a_map_that_depends_on_no_class_takes_no_target(build, noise):
    with pytest.raises(ValueError, match="the same for every target: leave target out"):
        build("test_resnet", map_head="energy").interpretation(noise(1, 64), 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"map_head": {"kind": "contributions", "grid": 1}}, "a single patch, .*: use at least 2"),
        ({"map_head": {"kind": "contributions", "grid": 4.5}}, "grid=4.5 must be a whole number of at least 1"),
        ({"map_head": {"kind": "contributions", "width": 0}}, "width=0 must be a whole number of at least 1"),
        (
            {"map_head": {"kind": "contributions", "closed_form": True}, "problem_type": "regression"},
            "closed form explains the probabilities of classes: leave closed_form out",
        ),
        (
            {"map_head": {"kind": "contributions", "map_scaling": "area"}},
            "kind 'contributions' has no option 'map_scaling'; its options are grid, width",
        ),
    ],
)
def test_senseless_configurations_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        AnteHocConfig(backbone="test_resnet", **options)


@torch.no_grad()
def test_the_bare_model_shows_the_map_of_the_predicted_class(model, noise, tmp_path):
    pixels = noise(2, 64)
    model.save_pretrained(tmp_path)
    bare = AutoModel.from_pretrained(tmp_path)
    output, expected = bare(pixels), model(pixels)
    assert torch.equal(output.interpretation_map, expected.interpretation_map)
    assert torch.equal(output.pooler_output, model.backbone.forward_head(output.last_hidden_state, pre_logits=True))
    assert torch.equal(
        bare.interpretation(pixels, 1).interpretation_map, model.interpretation(pixels, 1).interpretation_map
    )


def test_the_second_pass_needs_the_first(model, noise):
    with pytest.raises(ValueError, match="phase='interpretation' needs the tap_values of the first pass"):
        model(noise(1, 64), phase="interpretation")
