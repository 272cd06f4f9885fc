"""Files of weights and folders of checkpoints: the same predictions to the bit, or one sentence on what is wrong."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file

from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.baselines import CbahForImageClassification, PlainForImageClassification, SennForImageClassification
from antehoc_hf.sources import read_classifier

KNOWN = {**networks.NORMALISATION, "image_size": 64}
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def network() -> Any:
    return networks.network("test_resnet")


@pytest.fixture(scope="module")
def weights(network: Any) -> Weights:
    return dict(network.state_dict())


def _prefixed(prefix: str) -> Callable[[Weights], Any]:
    return lambda weights: {prefix + name: value for name, value in weights.items()}


def _other(weights: Weights) -> Weights:
    """Weights in training, which nobody evaluates where there are averaged ones."""
    return {name: torch.zeros_like(value) for name, value in weights.items()}


# How training programs save: file name → what stands in it.
SAVED: dict[str, Callable[[Weights], Any]] = {
    "plain.safetensors": dict,
    "plain.pth": dict,
    "distributed.pth": _prefixed("module."),
    "wrapped.pt": _prefixed("model."),
    "compiled.safetensors": _prefixed("_orig_mod."),
    "both.pth": _prefixed("module._orig_mod."),
    "timm.pth.tar": lambda weights: {
        "epoch": 3, "arch": "test_resnet", "state_dict": _other(weights), "optimizer": {"state": {}},
        "state_dict_ema": _prefixed("module.")(weights),
    },
    "lightning.ckpt": lambda weights: {
        "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.5.0", "loops": {}, "optimizer_states": [],
        "state_dict": {**_prefixed("net.")(weights), "criterion.weight": torch.ones(5)},
    },
    "ema.pth": lambda weights: {"model": _other(weights), "model_ema": {**weights}},
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_weights_are_found_wherever_a_training_left_them(
    name: str, network: Any, weights: Weights, tmp_path: Path
) -> None:
    content = SAVED[name](weights)
    path = tmp_path / name
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    found = read_classifier(path, backbone="test_resnet")
    assert found.num_labels == 5
    assert found.weights.keys() == weights.keys()
    assert all(torch.equal(found.weights[key], value) for key, value in weights.items())


@torch.no_grad()
def test_a_file_of_weights_predicts_as_the_network_did(network: Any, weights: Weights, tmp_path: Path) -> None:
    torch.save({"state_dict": _prefixed("module.")(weights)}, tmp_path / "net.pth")
    model = AnteHocForImageClassification.from_classifier(tmp_path / "net.pth", backbone="test_resnet", **KNOWN)
    pixels = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(pixels).logits, network(pixels))


@torch.no_grad()
def test_a_file_of_torchvision(tmp_path: Path) -> None:
    made = networks.network("resnet18")
    torch.save(_prefixed("module.")(dict(made.state_dict())), tmp_path / "net.pth")
    path, pixels = tmp_path / "net.pth", torch.randn(2, 3, 64, 64)
    model = AnteHocForImageClassification.from_classifier(path, backbone="torchvision:resnet18", **KNOWN)
    assert torch.equal(model(pixels).logits, made(pixels))
    with pytest.raises(ValueError, match="torchvision has no network 'resnet19'"):
        read_classifier(path, backbone="torchvision:resnet19")


class _Code:
    """What a pickle would run."""

    def __reduce__(self) -> Any:
        return print, ("run",)


BAD_FILES: dict[str, tuple[Callable[[Weights], Any], dict[str, Any], str]] = {
    "code.pth": (lambda _: {"model": _Code()}, {"backbone": "test_resnet"}, "reading it would run code"),
    "none.pth": (lambda _: {"epoch": 3}, {"backbone": "test_resnet"}, "holds no weights"),
    "alone.pth": (dict, {}, "holds weights alone: say which network they are of, backbone='resnet50'"),
    "typo.pth": (dict, {"backbone": "test_resnett"}, "no architecture named 'test_resnett'. Did you mean test_resnet"),
    "other.pth": (dict, {"backbone": "test_vit"}, "hold no classifier 'head' of 'test_vit'"),
    "wide.pth": (dict, {"backbone": "resnet18"}, "do not fit 'resnet18': .* Name the architecture"),
    "few.pth": (
        lambda weights: dict(list(weights.items())[9:]),
        {"backbone": "test_resnet"},
        "are not those of 'test_resnet': . of .* are missing, such as conv1",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_cannot_be_used(
    name: str, weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, options, message = BAD_FILES[name]
    torch.save(content(weights), tmp_path / name)
    with pytest.raises(ValueError, match=message):
        read_classifier(tmp_path / name, **options).model(**KNOWN)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["test_resnett", "timm/test_resnett.r160_in1k", "hf-hub:timm/test_resnett"])
def test_misspelt_names_need_no_network(name: str) -> None:
    with pytest.raises(ValueError, match=r"timm.* no architecture .*Did you mean test_resnet"):
        read_classifier(name)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "nothing.pth").write_bytes(b"")
    for name, message in (("text.pth", "no file of weights"), ("nothing.pth", "is empty: it holds no weights")):
        with pytest.raises(OSError, match=message):
            read_classifier(tmp_path / name, backbone="test_resnet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "program.pt"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"program.pt is a program of TorchScript: save the state_dict\(\)"):
            read_classifier(tmp_path / "program.pt", backbone="test_resnet")


def test_a_file_that_is_cut_short(weights: Weights, tmp_path: Path) -> None:
    for name, save in (("net.pth", torch.save), ("net.safetensors", save_file)):
        save(weights, tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:5000])
        with pytest.raises(OSError, match="cut short or damaged"):
            read_classifier(tmp_path / name, backbone="test_resnet")


# -- folders ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints in timm's format, in that of TimmWrapper, and in transformers'."""
    return networks.save_folders(tmp_path_factory.mktemp("folders"), weights)


@pytest.mark.parametrize("kind", ["timm", "wrapper"])
@torch.no_grad()
def test_folders_in_timms_formats(folders: Path, network: Any, kind: str) -> None:
    found = read_classifier(folders / kind)
    model, pixels = found.model(), torch.randn(2, 3, 96, 96)
    assert torch.equal(model(pixels).logits, network(pixels))
    assert list(model.config.id2label.values()) == networks.CLASSES
    assert (model.config.image_size, model.config.image_mean) == ([96, 96], [0.4, 0.4, 0.4])
    processor = found.processor()
    assert (processor.crop_pct, processor.crop_mode, processor.interpolation) == (0.9, "squash", "bilinear")


@torch.no_grad()
def test_a_folder_of_transformers(folders: Path) -> None:
    found = read_classifier(folders / "transformers")
    model, pixels = found.model(), torch.randn(2, 3, 64, 64)
    assert torch.equal(model(pixels).logits, networks.logits_of(networks.network("ViT"), pixels))
    assert list(model.config.id2label.values()) == networks.CLASSES
    assert model.config.image_std == [0.25, 0.25, 0.25]
    assert found.processor().interpolation == "bicubic"


def _config(**change: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return edit


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _elsewhere(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"conv1.0.weight": "../../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


BAD_FOLDERS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "unknown architecture": ("timm", _config(architecture="test_resnett"), "Did you mean test_resnet"),
    "no config": ("timm", lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    "no JSON": ("timm", lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
    "a pickle alone": ("transformers", _pickled, r"pickled weights alone \(pytorch_model.bin\), which may hide code"),
    "code without consent": (
        "transformers",
        _config(auto_map={"AutoModelForImageClassification": "code.Net"}),
        "wants to run code of its own: load it yourself, with trust_remote_code=True if you trust it",
    ),
    "unknown type": ("transformers", _config(model_type="nett"), "type 'nett', which transformers does not know"),
    "no classifier": ("transformers", _config(model_type="bert"), "is not an image classifier"),
    "weights elsewhere": ("timm", _elsewhere, "names a file that is not in the folder: '../../secret.safetensors'"),
    "options that read files": ("timm", _config(model_args={"checkpoint_path": "/etc/passwd"}), "checkpoint_path"),
    "an adapter": ("timm", lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds an adapter"),
    "no numbers": (
        "timm",
        _config(pretrained_cfg={"mean": "x", "input_size": [3, 96, 96]}),
        "^mean of timm's pretrained_cfg must be a list of numbers, not 'x'",
    ),
    "not finite": ("timm", _config(pretrained_cfg={"std": [0.5, float("nan"), 0.5]}), "^std of timm's pretrained_cfg"),
    "other names": ("timm", _config(label_names=["a"]), "names 1 classes, but its weights have 5"),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_folders_that_cannot_be_used(name: str, folders: Path, tmp_path: Path) -> None:
    kind, spoil, message = BAD_FOLDERS[name]
    folder = shutil.copytree(folders / kind, tmp_path / kind)
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        read_classifier(folder)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
            "is not linear on it: train its map by steps instead, with antehoc train --train_task false",
        ),
        (
            lambda: transformers.ViTForImageClassification(
                transformers.ViTConfig(**{**networks.TRANSFORMERS["ViT"], "patch_size": 64}, num_labels=5)
            ),
            "has only 1 position along a side",
        ),
        (lambda: timm.create_model("test_resnet", num_classes=0), "holds? no classifier"),
    ],
    ids=["head", "grid", "features"],
)
def test_networks_that_have_no_such_map(made: Any, message: str) -> None:
    closed = {"kind": "contributions", "closed_form": True}
    with pytest.raises(ValueError, match=message):
        AnteHocForImageClassification.from_classifier(made(), **KNOWN, map_head=closed)


def test_weights_that_are_not_finite_are_no_classifier() -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    network.fc.bias.data[1] = float("nan")
    with pytest.raises(ValueError, match=r"1 of \d+ tensors in .* hold NaN or infinity, such as fc.bias"):
        AnteHocForImageClassification.from_classifier(network, **KNOWN)


# -- this project's own -------------------------------------------------------------------------------------------


@pytest.fixture
def plain() -> PlainForImageClassification:
    names = dict(enumerate(networks.CLASSES))
    return PlainForImageClassification.from_backbone(
        "test_vit", image_size=48, backbone_kwargs={"img_size": 48}, num_labels=5, id2label=names
    ).eval()


@torch.no_grad()
def test_a_plain_network_of_ours_takes_a_map(plain: Any, tmp_path: Path) -> None:
    plain.save_pretrained(tmp_path)
    AnteHocImageProcessor(image_size=[48, 48], crop_pct=0.9, interpolation="lanczos").save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 48, 48)
    for source in (tmp_path, plain, PlainForImageClassification.from_pretrained(tmp_path)):
        found = read_classifier(source)
        model = found.model()
        assert torch.equal(model(pixels).logits, plain(pixels).logits)
        assert list(model.config.id2label.values()) == networks.CLASSES
        assert model.config.image_size == [48, 48]
        assert (found.processor().crop_pct, found.processor().interpolation) == (
            (0.875, "bicubic") if source is plain else (0.9, "lanczos")
        )


@pytest.mark.parametrize(
    "kind", [SennForImageClassification, CbahForImageClassification, AnteHocForImageClassification]
)
def test_what_explains_itself_already_takes_none(kind: Any, tmp_path: Path) -> None:
    model = kind.from_backbone("test_resnet", image_size=64, num_labels=3)
    model.save_pretrained(tmp_path)
    for source in (tmp_path, model):
        with pytest.raises(ValueError, match="explains itself already: use it as it is"):
            read_classifier(source)
