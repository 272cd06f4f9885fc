"""Attached models leave torch and this project: ONNX alone, `torch.export`, eight bits, traces."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.export import export_onnx, export_program
from antehoc_hf.training.attach import FitOptions, fit_map

CLOSED = {"kind": "contributions", "closed_form": True}
SIZE = 64
_ALONE = """
import sys
for name in ("torch", "timm", "transformers", "antehoc_hf"):
    sys.modules[name] = None
import json
import numpy as np, onnxruntime
from PIL import Image
folder = sys.argv[1]
session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
known = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
height, width = known["image_size"]
assert (known["crop_pct"], known["crop_mode"]) == (1.0, "squash")
image = Image.open(f"{folder}/photo.png").resize((width, height), Image.Resampling[known["interpolation"].upper()])
pixels = (np.asarray(image, dtype=np.float32) / 255 - known["image_mean"]) / known["image_std"]
logits, map_ = session.run(None, {"pixel_values": pixels.transpose(2, 0, 1)[None].astype(np.float32)})
np.savez(f"{folder}/alone.npz", logits=logits, map=map_, name=known["id2label"][str(logits.argmax())])
"""
_PROGRAM = """
import sys
sys.modules["antehoc_hf"] = sys.modules["timm"] = None
import torch
program = torch.export.load(sys.argv[1])
torch.save(program.module()(torch.load(sys.argv[2])), sys.argv[3])
"""


@pytest.fixture(scope="module")
def fitted() -> Any:
    """Attached models by name, their maps fitted to noise, with all responses in use; each is made once."""
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            options = {**networks.NORMALISATION, "image_size": SIZE, "map_head": CLOSED}
            model = AnteHocForImageClassification.from_classifier(networks.network(name), **options)
            images = [networks.image_of_noise(SIZE, index) for index in range(24)]
            quick = FitOptions(pairs=2, batch_size=8, channels_last=False, precision="float32", progress=False)
            fit_map(model, images, quick)
            weights = model.map_head.coefficients  # of noise the start may be kept, which uses one of them
            drawn = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0))
            weights.add_(0.3 * weights.abs().max() * drawn)
            made[name] = model
        return made[name]

    return get


@pytest.fixture(scope="module")
def graph(fitted: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX graph of an attached timm network, from its folder."""
    folder = tmp_path_factory.mktemp("graph")
    fitted("test_resnet").save_pretrained(folder)
    squashed = {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}
    AnteHocImageProcessor(SIZE, **networks.NORMALISATION, **squashed).save_pretrained(folder)
    return export_onnx(folder, folder / "model.onnx")


def _python(code: str, *arguments: Any) -> None:
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def _agree(found: Any, expected: Any) -> None:
    logits, maps = (torch.as_tensor(values) for values in found)
    torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps, expected.interpretation_map, atol=1e-4, rtol=1e-4)


def _run(path: Path, pixels: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits", "interpretation_map"], {"pixel_values": pixels.numpy()})


@torch.no_grad()
def test_onnxruntime_alone_serves_it(graph: Path, fitted: Any) -> None:
    model, pixels = fitted("test_resnet"), torch.randn(3, 3, SIZE, SIZE)
    for count in (1, 3):
        _agree(_run(graph, pixels[:count]), model(pixels[:count]))
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))
    photo.save(graph.parent / "photo.png")
    _python(_ALONE, graph.parent)
    found = np.load(graph.parent / "alone.npz")
    processor = AnteHocImageProcessor.from_pretrained(graph.parent)
    expected = model(processor(photo, return_tensors="pt")["pixel_values"])
    _agree((found["logits"], found["map"]), expected)
    assert str(found["name"]) == model.config.id2label[int(expected.logits.argmax())]


@torch.no_grad()
def test_eight_bits_keep_the_order_of_the_map(graph: Path, fitted: Any, tmp_path: Path) -> None:
    small, pixels = (
        export_onnx(fitted("test_resnet"), tmp_path / "int8.onnx", int8=True),
        torch.randn(6, 3, SIZE, SIZE),
    )
    assert small.stat().st_size < 0.6 * graph.stat().st_size
    assert onnxruntime.InferenceSession(str(small)).get_modelmeta().custom_metadata_map["image_size"] == "[64, 64]"
    _, maps = _run(small, pixels)
    output = fitted("test_resnet")(pixels)
    orders = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(maps, output.interpretation_map, strict=True)]
    assert np.mean(orders) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(name for name in networks.CLOSED_FORM[1:] if name != "test_vit"), "resnet18"])
@torch.no_grad()
def test_many_networks_as_onnx(fitted: Any, name: str, tmp_path: Path) -> None:
    model, pixels = fitted(name), torch.randn(3, 3, SIZE, SIZE)
    path = export_onnx(model, tmp_path / "any.onnx")
    for count in (1, 3):
        _agree(_run(path, pixels[:count]), model(pixels[:count]))
    path = export_onnx(model, tmp_path / "three.onnx", batch_size=3)
    _agree(_run(path, pixels), model(pixels))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch_size"), [("test_resnet", 1), ("ViT", None), ("resnet18", None)])
@torch.no_grad()
def test_a_program_of_torch_export(fitted: Any, name: str, batch_size: int | None, tmp_path: Path) -> None:
    model, pixels = fitted(name), torch.randn(batch_size or 3, 3, SIZE, SIZE)
    path = export_program(model, tmp_path / "model.pt2", batch_size)
    torch.save(pixels, tmp_path / "pixels.pt")
    _python(_PROGRAM, path, tmp_path / "pixels.pt", tmp_path / "found.pt")
    _agree(torch.load(tmp_path / "found.pt"), model(pixels))
    extra = {"metadata.json": ""}
    torch.export.load(path, extra_files=extra)
    assert json.loads(json.loads(extra["metadata.json"])["image_size"]) == [SIZE, SIZE]


@pytest.mark.parametrize(
    ("name", "kind"), [("test_resnet", "trained"), ("test_resnet", "closed form"), ("ViT", "closed form")]
)
@torch.no_grad()
def test_traced_and_quantised_by_torch(fitted: Any, name: str, kind: str) -> None:
    model, pixels = fitted(name), torch.randn(3, 3, SIZE, SIZE)
    if kind == "trained":
        made = networks.network(name)
        model = AnteHocForImageClassification.from_classifier(made, **networks.NORMALISATION, image_size=SIZE)
    expected = model(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates both
        traced = torch.jit.trace(model, pixels[:2], strict=False)(pixels)
        small = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)(pixels)
    _agree((traced["logits"], traced["interpretation_map"]), expected)
    assert torch.allclose(small.logits, expected.logits, atol=0.02)
    order = spearmanr(small.interpretation_map[0].ravel(), expected.interpretation_map[0].ravel())[0]
    assert order > 0.95
