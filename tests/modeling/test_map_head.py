"""What every map head shares: its options, image ⊙ map, and a kind of map from outside the package."""

import json

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification

from antehoc_hf.modeling import (
    AnteHocCaptionConfig,
    AnteHocConfig,
    AnteHocLandmarkConfig,
    ContributionMap,
    ContributionMapConfig,
    EnergyMap,
    EnergyMapConfig,
    Explanation,
    MapHeadConfig,
    configuration_antehoc,
    register_map_head,
)
from antehoc_hf.modeling.map_head import apply_map
from antehoc_hf.modeling.scaling import minmax, resize

MEAN, STD = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)


def test_energy_map_in_pixel_space():
    pixels = torch.rand(2, 3, 8, 8)
    mask = torch.rand(2, 1, 8, 8)
    mask[:, :, 0, 0], mask[:, :, 1, 1] = 0, 1
    normalised = (pixels - MEAN) / STD
    energy = apply_map(normalised, mask, MEAN, STD)
    assert torch.allclose(energy, (pixels * mask - MEAN) / STD, atol=1e-5)
    # Where the map is 0 the image is black, and where it is 1 the image is what it was, to the last bit.
    assert torch.equal(energy[:, :, 0, 0], (-MEAN / STD).flatten().expand(2, 3))
    assert torch.equal(energy[:, :, 1, 1], normalised[:, :, 1, 1])


def test_energy_map_of_a_map_of_ones_is_the_image():
    normalised = 3 * torch.randn(2, 3, 32, 32)
    assert torch.equal(apply_map(normalised, torch.ones(2, 1, 32, 32), MEAN, STD), normalised)


def test_energy_map_in_normalised_space():
    normalised, mask = torch.randn(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    assert torch.equal(apply_map(normalised, mask, MEAN, STD, "normalized"), normalised * mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_energy_map_has_the_type_of_the_image(dtype):
    energy = apply_map(torch.randn(1, 3, 4, 4).to(dtype), torch.rand(1, 1, 4, 4), MEAN, STD)
    assert energy.dtype == dtype


# -- options: a configuration of their own ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("energy", "energy"),
        ("contributions", "contributions"),
        ({"kind": "energy", "map_scaling": "max"}, "energy"),
        ({"kind": "contributions", "grid": 4}, "contributions"),
        (EnergyMapConfig(map_scaling="max"), "energy"),
        (ContributionMapConfig(grid=4), "contributions"),
    ],
)
def test_a_map_head_may_be_named_described_or_given(build, noise, tmp_path, given, kind):
    model = build(map_head=given)
    options = model.config.map_head
    assert options.kind == kind
    assert isinstance(model.map_head, {"energy": EnergyMap, "contributions": ContributionMap}[kind])
    if not isinstance(given, str):
        name, value = ("map_scaling", "max") if kind == "energy" else ("grid", 4)
        assert getattr(options, name) == value
    model.save_pretrained(tmp_path)
    for config in (AutoConfig.from_pretrained(tmp_path), AnteHocConfig(**model.config.to_diff_dict())):
        assert type(config.map_head) is type(options)
        assert config.map_head.to_dict() == options.to_dict()
    written = json.loads((tmp_path / "config.json").read_text())["map_head"]
    assert written == {key: value for key, value in options.to_dict().items() if key != "transformers_version"}
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(noise(1, 64)).interpretation_map, model(noise(1, 64)).interpretation_map)


def test_the_default_is_contributions_where_there_are_classes_or_points():
    def kind(config_class, **options):
        return config_class(backbone="test_resnet", **options).map_head.kind

    assert kind(AnteHocConfig) == kind(AnteHocConfig, num_labels=10) == "contributions"
    assert kind(AnteHocConfig, problem_type="multi_label_classification") == "contributions"
    assert kind(AnteHocConfig, problem_type="regression", num_labels=3) == "energy"
    assert kind(AnteHocConfig, num_labels=1) == "energy"
    assert kind(AnteHocLandmarkConfig, num_landmarks=3) == "contributions"
    assert kind(AnteHocCaptionConfig) == "energy"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"map_head": {"kind": "energy", "grid": 8}}, "'energy' has no option 'grid'; its options are channel_reduct"),
        ({"map_head": {"kind": "contributions", "mask_space": "pixel"}}, "'mask_space'; its options are grid, width"),
        ({"map_head": "saliency"}, "map_head='saliency' is not a kind of map; there are 'contributions', 'energy'"),
        ({"map_head": {"grid": 8}}, "names no kind of map: add 'kind', one of 'contributions', 'energy'"),
        ({"channel_reduction": "max"}, r"write map_head=\{'kind': 'energy', 'channel_reduction': 'max'\}"),
        ({"grid": 4}, r"write map_head=\{'kind': 'contributions', 'grid': 4\}"),
    ],
)
def test_an_option_of_the_other_kind_is_refused(build, options, sentence):
    for make in (build, lambda **given: AnteHocConfig(backbone="test_resnet", **given)):
        with pytest.raises(ValueError, match=sentence) as caught:
            make(**options)
        assert "\n" not in str(caught.value)


@torch.no_grad()
def test_options_changed_while_loading(build, noise, tmp_path):
    model = build(awake=True)
    model.save_pretrained(tmp_path)
    finer = AutoModelForImageClassification.from_pretrained(tmp_path, map_head={"grid": 16})
    assert finer.config.map_head.width == model.config.map_head.width
    assert finer(noise(1, 64), output_attention_maps=True).contributions.shape == (1, 4, 16, 16)
    for options, sentence in (
        ({"width": 8}, r"do not fit this configuration: map_head\."),
        ({"map_scaling": "max"}, "its options are grid, width"),
        ({"kind": "energy", "map_scaling": "max"}, "name the kind alone for a new map of it, map_head='energy'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            AutoModelForImageClassification.from_pretrained(tmp_path, map_head=options)
    other = AutoModelForImageClassification.from_pretrained(tmp_path, map_head="energy")
    assert torch.equal(other(noise(1, 64)).logits, model(noise(1, 64)).logits)
    assert other.config.map_head.kind == "energy"


# -- a kind of map from outside the package ---------------------------------------------------------------------------


class LastTapConfig(MapHeadConfig):
    """The mean over the last tap's channels to some power."""

    model_type = "last_tap"
    kind, objective = "last_tap", "energy"
    counts = ("power",)
    power: int = 1

    def build(self, config, classifier):
        return LastTap(self.power)


class LastTap(nn.Module):
    per_target, mask_space = False, "pixel"

    def __init__(self, power):
        super().__init__()
        self.power, self.gain = power, nn.Parameter(torch.ones(1))

    def keep(self, features, size):
        return features.detach().float().mean(dim=1, keepdim=True)

    def combine(self, kept, size):
        return kept[-1]

    def check(self, tap_values):
        if tap_values.shape[1:2] != (1,):
            raise ValueError(f"tap_values must be (batch, 1, rows, columns), not {tuple(tap_values.shape)}.")

    def forward(self, tap_values, size, targets=None, detailed=False):
        maps = minmax(resize(self.gain * tap_values, size)) ** self.power
        return Explanation(interpretation_map=maps, degenerate=maps.amax(dim=(1, 2, 3)) == 0)

    def second_pass(self, tap_values, size, targets, predict_masked):
        explained = self(tap_values, size)
        return predict_masked(explained.interpretation_map), explained


@pytest.fixture
def last_tap():
    register_map_head(LastTapConfig)
    yield
    configuration_antehoc._MAP_HEADS.pop("last_tap")


@pytest.mark.usefixtures("last_tap")
@pytest.mark.parametrize("auto_class", [AutoModelForImageClassification, AutoModel])
def test_a_kind_of_map_from_outside(build, noise, tmp_path, auto_class):
    model, pixels = build(map_head={"kind": "last_tap", "power": 2}), noise(2, 64)
    output = model(pixels, output_hidden_states=True)
    mean = output.hidden_states[-1].mean(dim=1, keepdim=True)
    assert torch.allclose(output.interpretation_map, minmax(resize(mean, (64, 64))) ** 2, atol=1e-6)
    with model.task_phase():
        first = model(pixels, labels=torch.tensor([0, 1]), phase="task")
    with model.interpretation_phase():
        model(pixels, tap_values=first.tap_values, phase="interpretation").logits.square().sum().backward()
    assert model.map_head.gain.grad is not None
    with pytest.raises(ValueError, match="tap_values must be"):
        model(pixels, tap_values=torch.zeros(2, 3, 4, 4), phase="interpretation")
    model.save_pretrained(tmp_path)
    again = auto_class.from_pretrained(tmp_path)
    assert again.config.map_head.power == 2
    assert torch.equal(again(pixels).interpretation_map, output.interpretation_map)
    with pytest.raises(ValueError, match="'last_tap' has no option 'grid'; its options are power"):
        build(map_head={"kind": "last_tap", "grid": 2})
