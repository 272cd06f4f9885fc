"""Compiled, exported and checkpointed models give what the plain model gives."""

import pytest
import torch
from helpers import Explained
from torch import nn


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def agree(first, second, tolerance=1e-4):
    return all(torch.allclose(a, b, atol=tolerance) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("backbone", ["test_resnet", pytest.param("test_vit", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["contributions", "energy"])
def test_compiled_in_one_graph(build, noise, backbone, kind):
    model, pixels = build(backbone, awake=True, map_head=kind), noise(2, 64)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        output, expected = compiled(pixels, output_attention_maps=True), model(pixels, output_attention_maps=True)
    assert output.keys() == expected.keys()
    for name in expected:
        assert torch.allclose(output[name].float(), expected[name].float(), atol=1e-4), name
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.slow
def test_both_passes_compiled(build_energy, noise):
    model, pixels, labels = build_energy(awake=True).train(), noise(4, 64), torch.tensor([0, 1, 2, 3])
    gradients = []
    for step in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        with model.task_phase():
            first = step(pixels, labels=labels, phase="task")
            first.loss.backward()
        with model.interpretation_phase():
            second = step(pixels, tap_values=first.tap_values, phase="interpretation")
            (second.logits.softmax(-1) - first.logits.detach().softmax(-1)).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    # The second run starts from running statistics the first has moved a little.
    assert agree(*gradients, tolerance=1e-2)


@pytest.mark.parametrize(
    "backbone",
    ["test_resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("test_convnext", "test_vit"))],
)
@pytest.mark.parametrize("kind", ["contributions", "energy"])
def test_exported(build, noise, backbone, kind):
    model = Explained(build(backbone, awake=True, map_head=kind))
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(model, (noise(2, 64),), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        for count in (1, 2, 5):
            pixels = noise(count, 64, seed=count)
            assert agree(program.module()(pixels), model(pixels)), count


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("kind", ["contributions", "energy"])
def test_onnx(build, noise, tmp_path, backbone, kind):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = Explained(build(backbone, awake=True, map_head=kind)).eval()
    path = str(tmp_path / "model.onnx")
    program = torch.onnx.export(
        model,
        (noise(2, 64),),
        dynamo=True,
        input_names=["pixel_values"],
        output_names=["logits", "interpretation_map"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
        verbose=False,
    )
    program.save(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        for count in (1, 2, 5):
            pixels = noise(count, 64, seed=count)
            values = session.run(["logits", "interpretation_map"], {"pixel_values": pixels.numpy()})
            assert agree([torch.from_numpy(value) for value in values], model(pixels)), count


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_gradient_checkpointing(build_energy, noise, backbone):
    """Recomputing activations in the backward pass changes no gradient of either pass, and reads no tap twice."""
    model, pixels, labels = build_energy(backbone, awake=True).train(), noise(4, 64), torch.tensor([0, 1, 2, 3])
    start = {name: value.clone() for name, value in model.state_dict().items()}
    runs = []
    inner = [module for module in model.backbone.modules() if isinstance(module, nn.Conv2d | nn.Linear)][8]
    inner.register_forward_pre_hook(lambda module, inputs: runs.append(1))
    gradients, counts = [], []
    for enable in (False, True):
        model.load_state_dict(start)
        model.zero_grad()
        runs.clear()
        if enable:
            model.activation_checkpointing_enable()
        with model.task_phase():
            first = model(pixels, labels=labels, phase="task")
            first.loss.backward()
        # PyTorch stores the statistics of a recomputed batch norm twice: leave them out of the comparison.
        with model.interpretation_phase("batch"):
            second = model(pixels, tap_values=first.tap_values, phase="interpretation")
            second.logits.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        counts.append(len(runs))
    assert counts == [2, 4]
    assert agree(*gradients, tolerance=1e-5)


def test_gradient_checkpointing_where_timm_has_none(build):
    model = build("dla46_c")
    with pytest.raises(ValueError, match="activation checkpointing"):
        model.activation_checkpointing_enable()
