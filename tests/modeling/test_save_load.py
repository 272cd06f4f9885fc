"""Saved models come back bit for bit, in other processes, with and without this package."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

from antehoc_hf.modeling import (
    AnteHocForImageCaptioning,
    AnteHocForImageClassification,
    AnteHocForLandmarkDetection,
    AnteHocImageProcessor,
    AnteHocModel,
)

SMALL_SWIN = {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 3, 6]}
MOST_FILES = 16
FAMILIES = {
    "test_resnet": {},
    "test_vit": {},
    "test_maxvit": {},
    "resnetblur18": {"num_attention_maps": 4},  # blur kernels are no persistent buffers
    "swin_tiny_patch4_window7_224": {"backbone_kwargs": SMALL_SWIN},  # nor are relative positions
}
MORE_FAMILIES = {
    **{name: {} for name in ("test_byobnet", "test_coatnet", "test_convnext", "test_efficientnet_evos")},
    **{name: {} for name in ("test_mambaout", "test_nfnet", "test_vit4", "test_vit_relpos", "vgg11", "repvgg_a0")},
    "levit_128s": {"image_size": 224},
    "tresnet_m": {"num_attention_maps": 4},
    "efficientformerv2_s0": {"image_size": 224},
    "mobilenetv3_small_050": {},
    "gcresnet33ts": {"num_attention_maps": 4},
}


def messages_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def warnings_of_transformers(caplog):
    """transformers' loggers do not hand their records on: listen to them directly."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield lambda: messages_of(caplog)
    logger.removeHandler(caplog.handler)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)).save(path)
    return path


# What another process makes of (folder, images, name of an Auto class) each; without the package with remote code.
LOAD = """
import transformers
torch.manual_seed(99)
options = {"trust_remote_code": True} if remote else {}
results = []
for folder, pixels, name in models:
    model = getattr(transformers, name).from_pretrained(folder, **options)
    config = transformers.AutoConfig.from_pretrained(folder, **options)
    with torch.no_grad():
        output = model(torch.load(pixels))
    results.append({
        "class": type(model).__module__, "name": type(model).__name__, "config": type(config).__name__,
        "model_type": config.model_type, "kind": config.map_head.kind,
        "logits": output.get("logits"), "map": output.interpretation_map,
    })
folder, pixels, _ = models[0]
bare = transformers.AutoModel.from_pretrained(folder, **options)
with torch.no_grad():
    results[0]["features"] = bare(torch.load(pixels)).pooler_output
processor = transformers.AutoImageProcessor.from_pretrained(folder, **options)
results[0]["processed"] = processor(photo, return_tensors="pt")["pixel_values"]
results[0]["classes"] = transformers.pipeline("image-classification", model=folder, **options)(photo)
torch.save(results, results_file)
"""


def in_another_process(client, tmp_path, models, photo, remote):
    """What [`LOAD`] makes of (folder, images, Auto class) each, and everything it said; in every way of the first."""
    given = []
    for index, (folder, pixels, name) in enumerate(models):
        torch.save(pixels, tmp_path / f"pixels-{index}.pt")
        given.append([str(folder), str(tmp_path / f"pixels-{index}.pt"), name])
    found = tmp_path / "results.pt"
    done = client.run(LOAD, models=given, photo=str(photo), remote=remote, results_file=str(found))
    assert done.error is None, done.error[2]
    return torch.load(found, weights_only=False), done.output


def trained(build, backbone, **config):
    """A model whose buffers and running statistics are not those of a fresh one."""
    model = build(backbone, awake=True, **config)
    height, width = model.config.image_size
    model.train()
    with torch.no_grad():
        model(torch.randn(4, 3, height, width) + 1)
    return model.eval()


@pytest.mark.parametrize(("backbone", "config"), FAMILIES.items())
def test_reloaded_to_the_bit(build_each, tmp_path, backbone, config):
    check_reload(build_each, tmp_path, backbone, config)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "config"), MORE_FAMILIES.items())
def test_more_families_reloaded_to_the_bit(build_each, tmp_path, backbone, config):
    check_reload(build_each, tmp_path, backbone, config)


def check_reload(build, tmp_path, backbone, config):
    model = trained(build, backbone, **config)
    pixels = torch.randn(2, 3, *model.config.image_size)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(pixels, output_attention_maps=True)
        again = AnteHocForImageClassification.from_pretrained(tmp_path)
        assert not again.training
        output = again(pixels, output_attention_maps=True)
    assert output.keys() == expected.keys()
    for name in expected:
        assert torch.equal(output[name], expected[name]), name
    before, after = dict(model.named_buffers()), dict(again.named_buffers())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.config.to_dict().keys() >= model.config.to_dict().keys()


def saved(build, folder, backbone, **config):
    """A trained model in a folder, images for it, and what it makes of them."""
    model = trained(build, backbone, **config)
    model.save_pretrained(folder)
    AnteHocImageProcessor.from_backbone(backbone, image_size=model.config.image_size).save_pretrained(folder)
    pixels = torch.randn(2, 3, *model.config.image_size)
    with torch.no_grad():
        return (folder, pixels), model(pixels)


WORDS = {"vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
# Class, its options, the Auto class of its task, and what `AutoModel` gives of the same folder.
TASKS = [
    (AnteHocForImageClassification, {}, "AutoModelForImageClassification", "AnteHocModel"),
    (AnteHocForImageClassification, {"map_head": "energy"}, "AutoModelForImageClassification", "AnteHocModel"),
    (AnteHocForLandmarkDetection, {"num_landmarks": 3}, "AutoModelForKeypointDetection", "AnteHocLandmarkModel"),
    (AnteHocForImageCaptioning, WORDS, "AutoModelForImageTextToText", "AnteHocCaptionModel"),
]


@pytest.mark.parametrize("where", ["installed", "stranger"])
def test_reloaded_to_the_bit_in_another_process(build, tmp_path, photo, request, where):
    """Every task and kind of map through every Auto class, and families of networks, with and without the package."""
    cases, expected = [], []
    for index, (kind, options, auto_class, bare) in enumerate(TASKS):
        (folder, pixels), output = saved(build, tmp_path / str(index), "test_resnet", kind=kind, **options)
        for name, loaded in ((auto_class, kind.__name__), ("AutoModel", bare)):
            cases.append((folder, pixels, name))
            expected.append((loaded, AutoConfig.from_pretrained(folder), output))
    for backbone, options in FAMILIES.items() if where == "installed" else ():
        (folder, pixels), output = saved(build, tmp_path / backbone, backbone, **options)
        cases.append((folder, pixels, "AutoModelForImageClassification"))
        expected.append(("AnteHocForImageClassification", AutoConfig.from_pretrained(folder), output))
    remote = where == "stranger"
    results, said = in_another_process(request.getfixturevalue(where), tmp_path, cases, photo, remote)
    home = "transformers_modules" if remote else "antehoc_hf.modeling"
    for result, (name, config, output), (folder, _, _) in zip(results, expected, cases, strict=True):
        assert result["class"].startswith(home)
        assert result["name"] == name
        assert result["config"] == type(config).__name__
        assert result["model_type"] == config.model_type
        assert result["kind"] == config.map_head.kind
        if name == "AnteHocCaptionModel" and result["kind"] == "contributions":
            assert result["map"] is None  # it says no words
        else:
            assert torch.equal(result["map"], output.interpretation_map), folder.name
        if "ForImageClassification" in name:
            assert torch.equal(result["logits"], output.logits), folder.name
    first, (folder, pixels, _) = results[0], cases[0]
    here = AnteHocImageProcessor.from_pretrained(folder)
    assert torch.equal(first["processed"], here(photo, return_tensors="pt")["pixel_values"])
    with torch.no_grad():
        assert torch.equal(first["features"], AnteHocModel.from_pretrained(folder)(pixels).pooler_output)
    assert len(first["classes"]) == 4
    for word in ("y/N", "newly initialized", "deprecat", *([] if remote else ["custom code", "trust_remote_code"])):
        assert word not in said, said


def test_the_code_of_a_classifier_travels_and_no_other(build, tmp_path):
    build().save_pretrained(tmp_path)
    AnteHocImageProcessor().save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.glob("*.py")}
    assert len(files) <= MOST_FILES
    assert not [name for name in files if "caption" in name or "landmark_detection" in name or "word" in name]
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoImageProcessor"}
    for target in auto_map.values():
        module, name = target.split(".")
        assert f"class {name}" in (tmp_path / f"{module}.py").read_text()


def test_auto_classes(build, noise, tmp_path, photo):
    model, pixels = build(awake=True), noise(2, 64)
    model.save_pretrained(tmp_path)
    processor = AnteHocImageProcessor.from_backbone("test_resnet", image_size=64)
    processor.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(model.config)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert torch.equal(again(pixels).interpretation_map, model(pixels).interpretation_map)
    own = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(own) is AnteHocImageProcessor
    classes = pipeline("image-classification", model=str(tmp_path))(str(photo), top_k=2)
    scores = model(processor(photo, return_tensors="pt")["pixel_values"]).logits.softmax(-1)[0]
    assert classes[0]["score"] == pytest.approx(scores.max().item(), abs=1e-6)
    assert classes[0]["label"] == model.config.id2label[int(scores.argmax())]


def test_bare_model_from_the_checkpoint_of_a_classifier(build_each, noise, tmp_path, warnings_of_transformers):
    model, pixels = trained(build_each, "test_resnet"), noise(2, 64)
    model.save_pretrained(tmp_path)
    bare = AutoModel.from_pretrained(tmp_path)
    assert isinstance(bare, AnteHocModel)
    assert warnings_of_transformers() == []
    with torch.no_grad():
        assert torch.equal(bare(pixels).interpretation_map, model(pixels).interpretation_map)
        features = model.backbone.forward_head(model.backbone.forward_features(pixels), pre_logits=True)
        assert torch.equal(bare(pixels).pooler_output, features)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_classifier_from_the_checkpoint_of_a_bare_model(
    build_energy, noise, tmp_path, backbone, warnings_of_transformers
):
    bare = build_energy(backbone, kind=AnteHocModel, awake=True)
    bare.save_pretrained(tmp_path)
    model = AnteHocForImageClassification.from_pretrained(tmp_path, num_labels=4)
    assert any("newly initialized" in message or "MISSING" in message for message in warnings_of_transformers())
    output, expected = model(noise(2, 64)), bare(noise(2, 64))
    assert output.logits.shape == (2, 4)
    assert output.logits.isfinite().all()
    assert torch.equal(output.interpretation_map, expected.interpretation_map)


def test_a_bare_model_with_a_map_for_each_class_keeps_its_classifier(build, noise, tmp_path, warnings_of_transformers):
    bare = build(kind=AnteHocModel, awake=True)
    bare.save_pretrained(tmp_path)
    model = AnteHocForImageClassification.from_pretrained(tmp_path)
    assert warnings_of_transformers() == []
    output, expected = model(noise(2, 64)), bare(noise(2, 64))
    assert torch.equal(output.interpretation_map, expected.interpretation_map)
    assert torch.equal(output.logits, bare.backbone.fc(expected.pooler_output))


def test_another_number_of_classes(build_each, noise, tmp_path):
    model, pixels = trained(build_each, "test_resnet"), noise(2, 64)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"do not fit.*is \[4.* in the file and \[9.*ignore_mismatched_sizes"):
        AnteHocForImageClassification.from_pretrained(tmp_path, num_labels=9)
    again = AnteHocForImageClassification.from_pretrained(tmp_path, num_labels=9, ignore_mismatched_sizes=True)
    own, other = model.backbone.state_dict(), again.backbone.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own if not name.startswith("fc."))
    assert other["fc.weight"].shape[0] == 9
    assert other["fc.weight"].isfinite().all()
    assert 0 < other["fc.weight"].std() < 1
    output = again(pixels)
    assert output.logits.isfinite().all()
    if model.map_head.per_target:
        assert torch.equal(again.map_head.baseline_worth, torch.full((9,), 1 / 9))
        assert torch.equal(again.map_head.entry.weight, model.map_head.entry.weight)
        assert not output.degenerate.any()
    else:
        assert torch.equal(output.interpretation_map, model(pixels).interpretation_map)


@pytest.mark.parametrize("size", [96, (64, 64), [128, 128], (96, 64), None])
@pytest.mark.parametrize("auto_class", [AutoModelForImageClassification, AutoModel])
def test_a_convolutional_network_for_another_image_size(build_each, noise, tmp_path, size, auto_class):
    model = build_each(awake=True)
    model.save_pretrained(tmp_path)
    again = auto_class.from_pretrained(tmp_path, image_size=size)
    height, width = {None: (64, 64), 96: (96, 96)}.get(size if isinstance(size, int | None) else 0, size)
    assert again.config.image_size == [height, width]
    assert again.config.map_head.to_dict() == model.config.map_head.to_dict()
    assert again.config.tap_points == model.config.tap_points
    with torch.no_grad():
        pixels = noise(1, height, width)
        assert torch.equal(again(pixels).interpretation_map, model(pixels).interpretation_map)


@pytest.mark.parametrize("backbone", ["test_vit", "test_coatnet"])
@pytest.mark.parametrize("auto_class", [AutoModelForImageClassification, AutoModel])
def test_a_network_of_one_image_size_keeps_it(build_each, tmp_path, backbone, auto_class):
    build_each(backbone).save_pretrained(tmp_path)
    assert auto_class.from_pretrained(tmp_path, image_size=(64, 64)).config.image_size == [64, 64]
    for size in (96, [128, 128], (64, 96)):
        with pytest.raises(ValueError, match=r"do not fit this configuration: .*image_size") as caught:
            auto_class.from_pretrained(tmp_path, image_size=size)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["96", 0, -1, (1, 2, 3), 64.0, True, (64, 0), 10**9, "big"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_an_image_size_that_is_none(build, tmp_path, backbone, size):
    build(backbone).save_pretrained(tmp_path)
    for auto_class in (AutoModelForImageClassification, AutoModel):
        with pytest.raises(
            ValueError, match=r"image_size=.* (must be a positive number of pixels|makes .* pixels, more than the)"
        ):
            auto_class.from_pretrained(tmp_path, image_size=size)


def test_another_number_of_maps_makes_a_fresh_map_head(build_each, noise, tmp_path):
    model = build_each(awake=True)
    model.save_pretrained(tmp_path)
    again = AnteHocForImageClassification.from_pretrained(
        tmp_path, num_attention_maps=3, tap_points=None, ignore_mismatched_sizes=True
    )
    assert torch.equal(again(noise(1, 64)).logits, model(noise(1, 64)).logits)
    output = again(noise(1, 64), output_attention_maps=True, output_hidden_states=True)
    assert len(output.hidden_states) == again.config.num_attention_maps == 3
    assert output.interpretation_map.isfinite().all()
    assert output.weight_maps is None or output.weight_maps.shape[1] == 3


@pytest.mark.parametrize("missing", ["map_head", "backbone.layer3", "backbone.bn1"])
def test_weights_missing_from_a_file_get_the_initial_values_of_timm(build_each, noise, tmp_path, missing):
    from safetensors.torch import load_file, save_file

    model = trained(build_each, "test_resnet")
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(missing)}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.manual_seed(0)
    again = AnteHocForImageClassification.from_pretrained(tmp_path)
    for name, value in again.state_dict().items():
        if not name.startswith(missing):
            assert torch.equal(value, weights[name]), name
        elif "running_var" in name or (name.endswith("weight") and ".bn" in name and "bn3" not in name):
            assert value.eq(1).all(), name
    output = again(noise(1, 64), output_attention_maps=True)
    assert output.logits.isfinite().all()
    assert output.interpretation_map.isfinite().all()
    if missing == "map_head" and model.map_head.per_target:
        assert again.map_head.gates.weight.eq(0).all()
        assert again.map_head.baseline_worth.eq(1 / 4).all()
    elif missing == "map_head":
        assert torch.allclose(output.weight_maps, torch.tensor(1 / 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backbone", ["test_resnet", "resnetblur18"])
def test_kind_of_number_is_kept(build_each, noise, tmp_path, dtype, backbone):
    model = trained(build_each, backbone, num_attention_maps=4).to(dtype)
    model.save_pretrained(tmp_path)
    again = AnteHocForImageClassification.from_pretrained(tmp_path, dtype="auto")
    assert again.dtype == dtype
    for (name, value), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    with torch.no_grad():
        output, expected = again(noise(1, 64).to(dtype)), model(noise(1, 64).to(dtype))
    assert torch.equal(output.logits, expected.logits)
    assert output.interpretation_map.dtype == torch.float32
    assert output.interpretation_map.isfinite().all()
    assert torch.equal(output.interpretation_map, expected.interpretation_map)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_loading_as_another_kind_of_number(build_each, noise, tmp_path, dtype):
    model = build_each(awake=True)
    model.save_pretrained(tmp_path)
    again = AnteHocForImageClassification.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in again.parameters()} == {dtype}
    output = again(noise(1, 64).to(dtype))
    assert output.interpretation_map.dtype == torch.float32
    assert not output.degenerate.any()


def test_saving_twice_gives_the_same_files(build, tmp_path):
    model = build()
    model.save_pretrained(tmp_path / "first")
    AnteHocForImageClassification.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    names = {path.name for path in (tmp_path / "first").iterdir()}
    assert names == {path.name for path in (tmp_path / "second").iterdir()}
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(OSError, match=r"config\.json|model\.safetensors"):
        AnteHocForImageClassification.from_pretrained(tmp_path)
