"""Where backbones are read: the layers the method names, in every family's layout."""

import pytest
import timm
import torch
from timm.models import register_model
from torch import nn

from antehoc_hf.modeling import AnteHocConfig, AnteHocModel
from antehoc_hf.modeling.taps import TapPoint, find_layout, forward_with_taps, grid_of_tokens

RESNET50 = "act1 layer1.2.act1 layer2.1.act2 layer2.3.act3 layer3.1.act3 layer3.4.act1 layer4.0.act2 layer4.2.act3"
RESNET18 = "act1 layer1.0.act2 layer2.0.act1 layer2.1.act1 layer3.0.act1 layer3.1.act1 layer4.0.act2 layer4.1.act2"


def on_meta(backbone, **config):
    """Models without weights: where a backbone is tapped does not depend on them."""
    with torch.device("meta"):
        return AnteHocModel(AnteHocConfig(backbone=backbone, **config))


def tapped(backbone, **config):
    return [point["module"] for point in on_meta(backbone, **config).config.tap_points]


@pytest.mark.parametrize(("backbone", "expected"), [("resnet50", RESNET50), ("resnet18", RESNET18)])
def test_layers_at_fixed_intervals_first_and_last_included(backbone, expected):
    assert tapped(backbone, image_size=128) == expected.split()


def test_layers_found_once_belong_to_these_options_alone():
    """What was seen of a network is kept in the process; a change to what one model got of it is its own."""
    first = on_meta("test_resnet", image_size=64).config
    assert tapped("test_resnet", image_size=64, tap_point="conv")[-1] == "layer4.0.conv2"
    first.tap_points[-1]["module"] = "mine"
    first.tap_channels[-1] = 1
    again = on_meta("test_resnet", image_size=64).config
    assert again.tap_points[-1]["module"] == "layer4.0.act2"
    assert again.tap_channels[-1] != 1


@pytest.mark.filterwarnings("ignore:Overwriting")
def test_a_name_registered_anew_is_another_network():
    def register(name):
        def antehoc_changing_network(pretrained=False, **options):
            return timm.create_model(name, **options)

        register_model(antehoc_changing_network)
        return tapped("antehoc_changing_network", image_size=64)

    assert register("test_resnet")[-1] == "layer4.0.act2"
    assert register("test_efficientnet")[-1] == "bn2.act"


def test_layers_do_not_depend_on_the_image_size():
    assert tapped("resnet50", image_size=(96, 320)) == RESNET50.split()


@pytest.mark.parametrize(
    ("point", "last"), [("activation", "layer4.2.act3"), ("norm", "layer4.2.bn3"), ("conv", "layer4.2.conv3")]
)
def test_resnet50_has_49_layers_on_the_main_path_and_53_with_shortcuts(point, last):
    main = tapped("resnet50", num_attention_maps=49, tap_point=point)
    assert len(set(main)) == 49
    assert not [name for name in main if "downsample" in name]
    assert main[-1] == last
    every = tapped("resnet50", num_attention_maps=53, tap_point=point, include_shortcuts=True)
    assert len(set(every)) == 53
    for count, shortcuts in ((50, False), (54, True)):
        with pytest.raises(ValueError, match=f"ask for at most {count - 1}"):
            tapped("resnet50", num_attention_maps=count, tap_point=point, include_shortcuts=shortcuts)


def test_last_layer_alone():
    assert tapped("resnet50", num_attention_maps=1) == ["layer4.2.act3"]


def test_stages():
    assert tapped("resnet50", taps="stages") == ["act1", "layer1", "layer2", "layer3", "layer4"]


def test_named_layers_in_the_order_given():
    assert tapped("resnet50", taps=["layer4", "layer1.1.conv2"]) == ["layer4", "layer1.1.conv2"]


@pytest.mark.parametrize(("point", "first"), [("norm", "bn1"), ("conv", "conv1")])
def test_tap_point(point, first):
    assert tapped("resnet50", tap_point=point)[0] == first


FAMILIES = {
    # backbone: maps, layout of the last tap, whether other image sizes are taken
    "vgg11": (6, "NCHW", True),
    "efficientnet_b0": (8, "NCHW", True),
    "convnext_atto": (8, "NCHW", True),
    "mambaout_femto": (8, "NHWC", True),
    "swin_tiny_patch4_window7_224": (4, "NHWC", False),
    "levit_128s": (3, "NLC", False),
    "test_vit": (6, "NLC", True),
    "regnety_002": (8, "NCHW", True),
}


@pytest.mark.parametrize(("backbone", "expected"), FAMILIES.items())
def test_families(backbone, expected):
    maps, _, any_size = expected
    model = on_meta(backbone, map_head="energy").eval()
    last = TapPoint.from_dict(model.config.tap_points[-1])
    assert (model.config.num_attention_maps, last.layout, not model.config.fixed_image_size) == expected
    height, width = model.config.image_size
    output = model(torch.zeros(2, 3, height, width, device="meta"), output_attention_maps=True)
    assert output.interpretation_map.shape == (2, 1, height, width)
    assert output.soft_attention_maps.shape == (2, maps, height, width)
    other = torch.zeros(1, 3, height + 64, width + 96, device="meta")
    if any_size:
        assert model(other).interpretation_map.shape == (1, 1, height + 64, width + 96)
    else:
        with pytest.raises(ValueError, match=f"{backbone}.*takes no other"):
            model(other)


def output_of(model, name, pixels):
    """What a layer of the backbone returns, by a hook of our own."""
    seen = []
    handle = model.backbone.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    with torch.no_grad():
        model.backbone(pixels)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("backbone", "tap"), [("test_resnet", "layer2"), ("test_mambaout", "stages.1"), ("test_vit", "blocks.5")]
)
def test_a_bright_square_is_seen_where_it_is(build, backbone, tap):
    """Neither mirrored nor transposed, in each of the three layouts."""
    model = build(backbone, taps=[tap], image_size=160)
    point = TapPoint.from_dict(model.config.tap_points[0])
    dark = torch.zeros(1, 3, 160, 160)
    square = dark.clone()
    square[:, :, 96:128, 16:48] = 5
    lit, unlit = (point.features(output_of(model, tap, pixels), (160, 160)) for pixels in (square, dark))
    strength = (lit - unlit).square().sum(dim=1)[0]
    row, column = divmod(int(strength.argmax()), strength.shape[1])
    assert abs((row + 0.5) * 160 / strength.shape[0] - 112) <= 32
    assert abs((column + 0.5) * 160 / strength.shape[1] - 32) <= 32


def test_soft_attention_maps_are_those_of_the_tapped_layers(build_energy, noise):
    """Channel mean, softmax over positions, resized, divided by the sum."""
    model, pixels = build_energy(taps=["layer1", "layer3"]), noise(2, 64)
    with torch.no_grad():
        maps = model(pixels, output_attention_maps=True).soft_attention_maps
    for index, name in enumerate(("layer1", "layer3")):
        features = output_of(model, name, pixels)
        attention = features.mean(1).flatten(1).softmax(1).view(2, 1, *features.shape[2:])
        resized = nn.functional.interpolate(attention, size=(64, 64), mode="bilinear", align_corners=False)
        expected = resized / resized.sum(dim=(2, 3), keepdim=True)
        assert torch.allclose(maps[:, index : index + 1], expected, atol=1e-7)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_nfnet", "test_convnext"])
def test_every_tap_shows_something(build_energy, noise, backbone):
    with torch.no_grad():
        maps = build_energy(backbone)(noise(1, 64), output_attention_maps=True).soft_attention_maps
    low, high = maps.amin(dim=(2, 3)), maps.amax(dim=(2, 3))
    assert ((high - low) / high > 1e-5).all()


def test_class_token_is_no_position(build, noise):
    model = build("test_vit", image_size=64, taps=["blocks.2"])
    tokens = output_of(model, "blocks.2", noise(1, 64))
    assert tokens.shape[1] == 1 + 16
    point = TapPoint.from_dict(model.config.tap_points[0])
    grid = point.features(tokens, (64, 64))
    assert grid.shape[-2:] == (4, 4)
    assert torch.equal(grid[0, :, 0, 0], tokens[0, 1])
    assert torch.equal(grid[0, :, 1, 2], tokens[0, 1 + 4 + 2])
    assert torch.equal(grid[0, :, 3, 3], tokens[0, 16])


def test_a_layer_that_runs_twice_is_read_at_each_of_its_calls():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.activation = nn.ReLU()

        def forward(self, pixels):
            return self.activation(2 * self.activation(pixels))

    pixels, backbone = torch.rand(1, 3, 4, 4), Doubling()
    points = [TapPoint("activation", call=1), TapPoint("activation", call=0)]
    result, readings = forward_with_taps(backbone, points, lambda x, _: x.sum(dim=1), lambda: backbone(pixels), (4, 4))
    assert torch.equal(result, 2 * pixels)
    assert torch.equal(readings[0], 2 * pixels.sum(dim=1))
    assert torch.equal(readings[1], pixels.sum(dim=1))


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((1, 8, 16, 24), (64, 96), ("NCHW", (16, 24))),
        ((1, 16, 24, 8), (64, 96), ("NHWC", (16, 24))),
        ((1, 24, 8), (64, 96), ("NLC", (4, 6))),
        ((1, 25, 8), (64, 96), ("NLC", (4, 6))),
        ((1, 8, 1, 1), (64, 96), None),
        ((1, 10), (64, 96), None),
        ((1, 8, 17, 25), (64, 96), ("NCHW", (17, 25))),
    ],
)
def test_layout_is_found_by_shape(shape, size, expected):
    found = find_layout(torch.zeros(shape), size)
    if expected is None:
        assert found is None or min(found["grid"]) == 1
    else:
        assert (found["layout"], found["grid"]) == expected


def test_layout_inside_a_tuple_and_of_something_else():
    grid = torch.zeros(1, 8, 16, 24)
    assert find_layout((torch.zeros(1, 3), grid, None), (64, 96))["item"] == 1
    assert find_layout("text", (64, 96)) is None
    assert find_layout(torch.zeros(1, 8, 16, 24, dtype=torch.long), (64, 96)) is None
    assert find_layout({"a": grid}, (64, 96)) is None


def test_token_grid_of_another_image_than_the_one_looked_at():
    assert grid_of_tokens(6 * 10, (96, 160), (16.0, 16.0)) == (6, 10)
    assert grid_of_tokens(7 * 7, (100, 100), None) == (7, 7)
    assert grid_of_tokens(4 * 6, (64, 96), None) == (4, 6)


def test_tap_point_round_trip():
    point = TapPoint("blocks.3", call=1, layout="NLC", prefix_tokens=1, stride=(16.0, 16.0))
    assert TapPoint.from_dict(point.to_dict()) == point
    assert TapPoint("layer1").to_dict() == {"module": "layer1"}
