"""Options of the configuration: each does something and is kept; senseless ones end in one clear sentence."""

import json
import time

import pytest
import torch

from antehoc_hf.modeling import (
    AnteHocCaptionConfig,
    AnteHocConfig,
    AnteHocForImageClassification,
    AnteHocLandmarkConfig,
    EnergyMapConfig,
)

OF_THE_MODEL = [
    ("num_attention_maps", 4),
    ("taps", "stages"),
    ("taps", ["layer1", "layer3"]),
    ("include_shortcuts", True),
    ("image_mean", [0.1, 0.2, 0.3]),
    ("image_std", [0.3, 0.2, 0.1]),
    ("backbone_kwargs", {"act_layer": "silu"}),
]
OF_THE_ENERGY_MAP = [
    *((name, choice) for name, choices in EnergyMapConfig.choices.items() for choice in choices[1:]),
    ("weight_network_depth", 1),
    ("weight_network_width", 4),
    ("weight_network_stride", 1),
    ("weight_network_skip", True),
]
OF_CONTRIBUTIONS = [("grid", 4), ("width", 16)]


def everything(model, pixels):
    """The interpretation map and the energy map's logits."""
    with torch.no_grad():
        output = model(pixels)
        energy = model.energy_map(pixels, output.interpretation_map)
        return torch.cat([output.interpretation_map.flatten(), model(energy).logits.flatten()])


def with_some_weights(model):
    """The same weights for the same sizes, and none zero: at its start the network gives equal weights to all maps."""
    for parameter in model.map_head.parameters():
        parameter.data = 0.2 * torch.arange(parameter.numel(), dtype=torch.float32).sin().view_as(parameter)
    return model


def check_option(build, noise, folder, default, options):
    """That options change the result, and that a saved model still has them."""
    pixels = noise(2, 64)
    before = everything(with_some_weights(build(**default)), pixels)
    model = with_some_weights(build(**default | options))
    result = everything(model, pixels)
    assert not torch.allclose(result, before, atol=1e-4), f"{options} does nothing"
    model.save_pretrained(folder)
    again = AnteHocForImageClassification.from_pretrained(folder)
    assert again.config.map_head.to_dict() == model.config.map_head.to_dict()
    assert torch.equal(everything(again, pixels), result)
    return again.config


@pytest.mark.parametrize(("name", "value"), OF_THE_MODEL)
@pytest.mark.parametrize("kind", ["contributions", "energy"])
def test_option_changes_the_result_and_survives_saving(build, noise, tmp_path, kind, name, value):
    config = check_option(build, noise, tmp_path, {"map_head": kind}, {name: value})
    assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *(("energy", *option) for option in OF_THE_ENERGY_MAP),
        *(("contributions", *option) for option in OF_CONTRIBUTIONS),
    ],
)
def test_option_of_the_map_head_changes_the_result_and_survives_saving(build, noise, tmp_path, kind, name, value):
    config = check_option(build, noise, tmp_path, {"map_head": kind}, {"map_head": {"kind": kind, name: value}})
    assert getattr(config.map_head, name) == value


def test_image_size_is_height_and_width(build):
    assert build(image_size=64).config.image_size == [64, 64]
    assert build(image_size=(64, 96)).config.image_size == [64, 96]


def test_defaults_are_those_of_the_backbone():
    config = AnteHocConfig(backbone="resnet50")
    assert config.image_size == [224, 224]
    assert config.image_mean == [0.485, 0.456, 0.406]
    assert config.image_std == [0.229, 0.224, 0.225]
    assert AnteHocConfig(backbone="test_resnet").image_size == [160, 160]
    assert AnteHocConfig(backbone="test_resnet").image_mean == [0.5, 0.5, 0.5]


def test_weight_network_is_a_step_deeper_for_larger_images(build_energy):
    small, large = build_energy(image_size=64), build_energy(image_size=96)
    assert [len(model.map_head.weight_network.encoder) for model in (small, large)] == [2, 3]
    assert [model.config.map_head.weight_network_depth for model in (small, large)] == [2, 3]


def test_maps_are_not_gathered_as_predictions():
    ignored = set(AnteHocConfig(backbone="test_resnet").keys_to_ignore_at_inference)
    assert ignored >= {"interpretation_map", "degenerate", "soft_attention_maps", "weight_maps", "weight_logits"}
    assert "logits" not in ignored


def test_loss_is_a_mean_the_trainer_must_not_rescale(build):
    assert build().accepts_loss_kwargs is False


def test_configuration_survives_json_and_a_copy(build):
    config = build(taps=["layer1", "layer2"], image_size=(64, 96)).config
    again = AnteHocConfig.from_dict(json.loads(config.to_json_string()))
    assert again.to_dict() == config.to_dict()
    assert AnteHocConfig(**config.to_diff_dict()).to_dict() == config.to_dict()


def test_two_configurations_do_not_share_lists():
    first, second = AnteHocConfig(backbone="test_resnet"), AnteHocConfig(backbone="test_resnet")
    first.image_size[0] = 1
    first.keys_to_ignore_at_inference.append("logits")
    assert second.image_size == [160, 160]
    assert "logits" not in second.keys_to_ignore_at_inference


@pytest.mark.parametrize("name", ["resnt50", "resnet5", "efficientnet-b0", "convnext_tny"])
def test_unknown_backbone_offers_names_that_come_near(name):
    with pytest.raises(ValueError, match=f"no architecture named '{name}'. Did you mean .*"):
        AnteHocConfig(backbone=name)


@pytest.mark.parametrize("name", ["", "qqqqqqqqqqqq", None, 5, "hf-hub:timm/resnet18.a1_in1k"])
def test_hopeless_backbone_points_to_the_list(name):
    with pytest.raises(ValueError, match=r"no architecture named .*timm\.list_models\(\)"):
        AnteHocConfig(backbone=name)


def test_unknown_tag_of_a_known_backbone(build):
    with pytest.raises(ValueError, match="nonsense"):
        build("test_resnet.nonsense")


@pytest.mark.parametrize("kind", ["energy", "contributions"])
def test_encoder_without_a_classifier(kind):
    config = AnteHocConfig(backbone="qwen3_vit_88m_enc", map_head=kind)
    with torch.device("meta"), pytest.raises(ValueError, match="'qwen3_vit_88m_enc' is an encoder without a class"):
        AnteHocForImageClassification(config)


@pytest.mark.parametrize(
    ("backbone", "size"), [("resnet18", 32), ("resnet50", 16), ("test_vit", 16), ("test_vit", 8), ("test_nfnet", 16)]
)
@pytest.mark.parametrize("kind", ["contributions", "energy"])
def test_image_too_small_for_the_layers_asked_for(backbone, size, kind):
    config = AnteHocConfig(
        backbone=backbone, image_size=size, map_head=kind, num_attention_maps=6 if "vit" in backbone else 8
    )
    with torch.device("meta"), pytest.raises(ValueError, match=rf"{size}.*(at least 2×2|[Ss]ize)") as caught:
        AnteHocForImageClassification(config)
    assert backbone in str(caught.value)


@pytest.mark.parametrize("kind", ["contributions", "energy"])
@pytest.mark.parametrize("backbone", ["test_resnet", "resnet18", "test_efficientnet", "test_convnext"])
def test_small_images_are_read_at_the_layers_that_have_positions(build, noise, backbone, kind):
    model = build(backbone, image_size=32, map_head=kind)
    assert 1 <= model.config.num_attention_maps <= 8
    outputs = model(noise(2, 32), output_hidden_states=True)
    assert not outputs.degenerate.any()
    assert all(min(features.shape[-2:]) >= 2 for features in outputs.hidden_states)


def test_more_maps_than_layers(build):
    with pytest.raises(ValueError, match=r"num_attention_maps=99.*only 12 layers to tap: ask for at most 12"):
        build(num_attention_maps=99)
    with pytest.raises(ValueError, match="num_attention_maps=8, but taps names only 2 layers: ask for at most 2"):
        build(num_attention_maps=8, taps=["layer1.0.act1", "layer4.0.act1"])


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (["layer1", "nope"], "taps names 'nope'"),
        (["fc"], "'fc'.* no grid of positions"),
        (["global_pool"], "'global_pool'.* no grid of positions"),
        ("stage", "taps='stage' must be"),
        (["layer1", 3], "3"),
        ([], "taps"),
        (None, "taps"),
        (7, "taps"),
        ({"layer1": 1}, "taps"),
    ],
)
def test_unknown_taps(build, taps, message):
    with pytest.raises(ValueError, match=message):
        build(taps=taps)


@pytest.mark.parametrize(
    "options",
    [
        {"nonsense": 1},
        {"drop_path_rate": "much"},
        {"num_classes": 7},
        {"in_chans": 1},
        {"features_only": True},
        {"pretrained": True},
        "drop_rate",
        [1],
    ],
)
def test_backbone_options_that_cannot_be(build, options):
    with pytest.raises(ValueError, match=r"backbone_kwargs|test_resnet"):
        build(backbone_kwargs=options)


def test_backbone_options_that_cannot_be_saved(build):
    with pytest.raises(ValueError, match="backbone_kwargs"):
        build(backbone_kwargs={"act_layer": torch.nn.SiLU})


EDITS = [
    {"image_size": "big"},
    {"image_size": 64.5},
    {"image_size": True},
    {"image_size": [64]},
    {"image_size": [64, 0]},
    {"image_size": [64, "64"]},
    {"image_size": {"height": 64, "width": 64}},
    {"image_size": 0},
    {"image_mean": [0.5, 0.5]},
    {"image_mean": "grey"},
    {"image_mean": 0.5},
    {"image_mean": [float("nan")] * 3},
    {"image_std": [0, 1, 1]},
    {"image_std": [float("nan")] * 3},
    {"image_std": [float("inf")] * 3},
    {"backbone": "resnt50"},
    {"backbone": None},
    {"num_attention_maps": 3},
    {"num_attention_maps": "8"},
    {"num_attention_maps": 8.0},
    {"num_attention_maps": 0},
    {"num_attention_maps": None},
    {"num_labels": 10**9},
    {"id2label": "x"},
    {"tap_points": "layer1"},
    {"tap_points": {"module": "layer1"}},
    {"tap_points": []},
    {"tap_points": [{"module": "nope"}]},
    {"tap_points": [{"module": "nope"}], "num_attention_maps": 1},
    {"tap_points": [{"module": 3}], "num_attention_maps": 1},
    {"tap_points": [{"module": ""}], "num_attention_maps": 1},
    {"tap_points": [{"layout": "NCHW"}], "num_attention_maps": 1},
    {"tap_points": [3], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "colour": 1}], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "layout": "WHCN"}], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "call": 7}], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "call": "a"}], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "item": "a"}], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "item": 5}], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "stride": 5}], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "stride": [0, 0], "layout": "NLC"}], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "layout": "NLC"}], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "prefix_tokens": "1"}], "num_attention_maps": 1},
    {"tap_points": [{"module": "layer1", "prefix_tokens": -1}], "num_attention_maps": 1},
    {"tap_points": [{"module": "fc"}], "num_attention_maps": 1},
    {"taps": None},
    {"tap_point": "act"},
    {"tap_point": None},
    {"tap_point": ["conv"]},
    {"include_shortcuts": "no"},
    {"map_head": "x"},
    {"map_head": {}},
    {"map_head": 3},
    {"map_head": ["energy"]},
    {"map_head": {"kind": ["energy"]}},
    {"map_head": {"kind": "x"}},
    {"map_head": {"kind": "contributions", "grid": 1}},
    {"map_head": {"kind": "contributions", "grid": "8"}},
    {"map_head": {"kind": "contributions", "width": 0}},
    {"map_head": {"kind": "contributions", "map_scaling": "area"}},
    {"map_head": {"kind": "energy", "grid": 8}},
    {"map_head": {"kind": "energy", "weight_network": "unet"}},
    {"map_head": {"kind": "energy", "weight_network_depth": "3"}},
    {"map_head": {"kind": "energy", "weight_network_depth": 0}},
    {"map_head": {"kind": "energy", "weight_network_depth": 2.0}},
    {"map_head": {"kind": "energy", "weight_network_depth": 30}},
    {"map_head": {"kind": "energy", "weight_network_width": 0}},
    {"map_head": {"kind": "energy", "weight_network_width": None}},
    {"map_head": {"kind": "energy", "weight_network_stride": None}},
    {"map_head": {"kind": "energy", "weight_network_skip": "no"}},
    {"map_head": {"kind": "energy", "attention_softmax": "joint", "attention_resize": "resize_first"}},
    {"map_head": {"kind": "energy", "mask_space": "rgb"}},
    {"map_head": {"kind": "energy", "map_scaling": None}},
    {"fixed_image_size": "yes"},
    {"backbone_kwargs": "x"},
    {"num_labels": 0},
]


@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_config_json_edited_to_nonsense(build, noise, tmp_path, edit):
    """At the latest the first forward pass says in one sentence what is wrong; most say it while loading."""
    build(num_attention_maps=1 if edit.get("num_attention_maps") == 1 else 8).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    if "num_labels" in edit:
        values = {key: value for key, value in values.items() if key not in ("id2label", "label2id")}
    file.write_text(json.dumps({**values, **edit}))
    with pytest.raises(ValueError, match=r"\w") as caught:
        AnteHocForImageClassification.from_pretrained(tmp_path)(noise(1, 64))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert any(name in message or str(value) in message for name, value in flat(edit))


def flat(edit):
    """Names and values, those of the map head among them."""
    for name, value in edit.items():
        yield name, value
        yield from flat(value) if isinstance(value, dict) else ()


ABSURD = [
    {"backbone_kwargs": {"layers": [30_000] * 4}},
    {"backbone_kwargs": {"layers": 10**9}},
    {"backbone_kwargs": {"layers": [1, 1, 1, 490]}},
    {"backbone_kwargs": {"drop_path_rate": 7}},
    {"backbone_kwargs": {"channels": [10**9] * 4}},
    {"backbone_kwargs": {"stem_width": -1}},
    {"backbone_kwargs": {"block": "x"}},
    {"backbone_kwargs": {"block_args": 3}},
    {"backbone_kwargs": {"cardinality": 0}},
    {"num_labels": 10**9},
    {"num_labels": "3"},
    {"num_labels": 2.5},
    {"num_labels": True},
    {"id2label": "x"},
    {"id2label": ["a", "b"]},
    {"id2label": {"a": "b"}},
    {"label2id": "x"},
    {"num_attention_maps": 10**9},
    {"image_size": 10**9},
    {"map_head": {"kind": "contributions", "grid": 10**9}},
    {"map_head": {"kind": "contributions", "width": 10**9}},
    {"map_head": {"kind": "energy", "weight_network_width": 10**9}},
]


@pytest.mark.parametrize("options", ABSURD, ids=str)
def test_absurd_options_end_in_one_sentence_at_once(build, options):
    begin = time.process_time()
    name = [name for name, _ in flat(options) if name != "kind"][1 if "map_head" in options else 0]
    with pytest.raises(ValueError, match=name) as caught:
        build(**options)
    assert time.process_time() - begin < 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config_class", "options"),
    [
        (AnteHocCaptionConfig, {"vocab_size": 10**9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}),
        (AnteHocCaptionConfig, {"decoder_hidden_size": 10**9}),
        (AnteHocCaptionConfig, {"decoder_embedding_size": 10**9}),
        (AnteHocLandmarkConfig, {"num_landmarks": 10**9}),
        (AnteHocLandmarkConfig, {"num_landmarks": 2, "landmark_parts": "x"}),
    ],
)
def test_absurd_options_of_the_other_tasks(config_class, options):
    name = list(options)[-1] if "landmark_parts" in options else next(iter(options))
    with pytest.raises(ValueError, match=f"{name}="):
        config_class(backbone="test_resnet", **options)


def test_misspelt_option_of_from_backbone(build):
    with pytest.raises(ValueError, match=r"has no option 'num_atention_maps': did you mean 'num_attention_maps'\?"):
        build(num_atention_maps=4)
    with pytest.raises(ValueError, match=r"'energy' has no option 'chanel_reduction'.*channel_reduction"):
        build(map_head={"kind": "energy", "chanel_reduction": "max"})


@pytest.mark.parametrize("count", [0, -1])
def test_a_classifier_without_classes(build, count):
    with pytest.raises(ValueError, match="num_labels must be at least 1"):
        build(num_labels=count)


def test_tuples_are_lists(build):
    config = build(image_mean=(0.4, 0.5, 0.6), image_size=(64, 96), taps=("layer1", "layer2")).config
    assert config.image_mean == [0.4, 0.5, 0.6]
    assert config.image_size == [64, 96]
    assert config.taps == ["layer1", "layer2"]
