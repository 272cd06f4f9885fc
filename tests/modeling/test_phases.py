"""The two passes of training: who learns, which statistics move, and that everything is put back."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn


@pytest.fixture
def passes(noise):
    def _passes(model, images=None, batch_norm="eval"):
        """Both passes with their backward; the outputs."""
        images = noise(4, 64) if images is None else images
        with model.task_phase():
            first = model(images, labels=torch.arange(len(images)) % 4, phase="task")
            first.loss.backward()
        with model.interpretation_phase(batch_norm):
            second = model(images, tap_values=first.tap_values, phase="interpretation")
            (second.logits.softmax(-1) - first.logits.detach().softmax(-1)).square().sum().backward()
        return first, second

    return _passes


def gradients(module):
    return {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}


def statistics(model):
    return {name: buffer.clone() for name, buffer in model.backbone.named_buffers()}


def modes(model):
    return {name: (module.training, getattr(module, "track_running_stats", None)) for name, module in
            model.named_modules()}  # fmt: skip


def switches(model):
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def test_each_pass_reaches_its_own_parameters(build_energy, noise):
    model, images = build_energy(awake=True).train(), noise(4, 64)
    with model.task_phase():
        first = model(images, labels=torch.tensor([0, 1, 2, 3]), phase="task")
        first.loss.backward()
    after_first = gradients(model.backbone)
    assert all(gradient is not None for gradient in after_first.values())
    assert all(gradient is None for gradient in gradients(model.map_head).values())
    with model.interpretation_phase():
        second = model(images, tap_values=first.tap_values, phase="interpretation")
        second.logits.square().sum().backward()
    assert all(torch.equal(gradient, after_first[name]) for name, gradient in gradients(model.backbone).items())
    assert all(gradient.abs().sum() > 0 for gradient in gradients(model.map_head).values())


def test_what_the_passes_return(build_energy, noise, passes):
    model, images = build_energy(awake=True), noise(4, 64)
    with torch.no_grad():
        plain = model(images, output_attention_maps=True)
    first, second = passes(model, images)
    assert first.interpretation_map is None
    assert not first.tap_values.requires_grad
    assert first.tap_values.dtype == torch.float32
    assert torch.equal(first.tap_values, plain.soft_attention_maps)
    assert torch.allclose(second.interpretation_map, plain.interpretation_map, atol=1e-6)
    assert torch.allclose(second.weight_maps, plain.weight_maps, atol=1e-6)
    assert second.weight_logits.shape[:2] == (4, 8)
    with torch.no_grad():
        energy = model.energy_map(images, plain.interpretation_map)
        assert torch.allclose(second.logits, model(energy).logits, atol=1e-5)


def test_joint_training_reaches_the_backbone_too(build_energy, noise):
    model, images = build_energy(awake=True).train(), noise(2, 64)
    first = model(images, phase="task")
    with model.interpretation_phase(train_backbone=True):
        second = model(images, tap_values=first.tap_values, phase="interpretation")
        second.logits.square().sum().backward()
    assert all(gradient is not None for gradient in gradients(model).values())


def second_pass_by_hand(model, images, maps):
    """The second pass without its phase: everything but the weight network frozen, in evaluation mode."""
    model = copy.deepcopy(model).eval()
    model.backbone.requires_grad_(False)
    energy = model.energy_map(images, model.map_head(maps, images.shape[-2:]).interpretation_map)
    return model, lambda: model.backbone(energy)


def kept_bytes(run):
    """The size of what a forward pass keeps for its backward pass, and the pass's result."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    return sum(storages.values()), result


# Plain batch norms; batch norms that hold their activation; with the network's parts run again in the backward pass.
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_the_second_pass_has_the_gradients_of_a_frozen_network(build_energy, noise, backbone, checkpointing):
    model, images = build_energy(backbone, awake=True).train(), noise(4, 64)
    with torch.no_grad():
        maps = model(images, phase="task").tap_values
    other, run = second_pass_by_hand(model, images, maps)
    expected = run()
    expected.square().sum().backward()
    if checkpointing:
        model.activation_checkpointing_enable()
    with model.interpretation_phase():
        second = model(images, tap_values=maps, phase="interpretation")
        assert torch.equal(second.logits, expected)
        second.logits.square().sum().backward()
    for (name, own), by_hand in zip(model.map_head.named_parameters(), other.map_head.parameters(),
                                    strict=True):  # fmt: skip
        assert own.grad.abs().sum() > 0
        assert torch.allclose(own.grad, by_hand.grad, rtol=1e-4, atol=1e-5 * by_hand.grad.abs().max()), name


def test_frozen_batch_norms_keep_no_activation(build_energy, noise):
    model, images = build_energy(awake=True).train(), noise(8, 64)
    with torch.no_grad():
        maps = model(images, phase="task").tap_values
    by_hand, expected = kept_bytes(second_pass_by_hand(model, images, maps)[1])
    energy = model.energy_map(images, model.map_head(maps, images.shape[-2:]).interpretation_map)
    with model.interpretation_phase():
        kept, logits = kept_bytes(lambda: model.backbone(energy))
    assert torch.equal(logits, expected)
    assert kept < 0.8 * by_hand


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_in_the_second_pass(build_energy, noise, autocast):
    """The types are those of the network outside of the phase, and so are the gradients but for rounding."""
    model, images = build_energy(awake=True).train(), noise(4, 64)
    if not autocast:
        model.backbone, images = model.backbone.bfloat16(), images.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        with torch.no_grad():
            maps = model(images, phase="task").tap_values
        other, run = second_pass_by_hand(model, images, maps)
        expected = run()
        with model.interpretation_phase():
            second = model(images, tap_values=maps, phase="interpretation")
            assert torch.equal(second.logits, expected)
            assert second.logits.dtype == expected.dtype == torch.bfloat16
            second.logits.float().square().sum().backward()
    expected.float().square().sum().backward()
    own, by_hand = model.map_head.weight_network.head.weight.grad, other.map_head.weight_network.head.weight.grad
    assert torch.nn.functional.cosine_similarity(own.flatten(), by_hand.flatten(), dim=0) > 0.99


@pytest.mark.slow
def test_the_second_pass_compiles(build_energy, noise):
    model, images = build_energy(awake=True).train(), noise(4, 64)
    with torch.no_grad():
        maps = model(images, phase="task").tap_values
    gradients_of = []
    for network in (model, torch.compile(model, backend="aot_eager")):
        model.zero_grad()
        with model.interpretation_phase():
            network(images, tap_values=maps, phase="interpretation").logits.square().sum().backward()
        gradients_of.append(model.map_head.weight_network.head.weight.grad.clone())
    assert torch.allclose(*gradients_of, rtol=1e-3, atol=1e-4 * gradients_of[0].abs().max())


@pytest.mark.parametrize(("batch_norm", "moves"), [("eval", False), ("batch", False), ("update", True)])
def test_running_statistics_in_the_second_pass(build_energy, noise, batch_norm, moves):
    model, images = build_energy(awake=True).train(), noise(4, 64)
    maps = model(images, phase="task").tap_values
    before = statistics(model)
    with model.interpretation_phase(batch_norm):
        model(images, tap_values=maps, phase="interpretation")
    after = statistics(model)
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert bool(changed) == moves
    if moves:
        assert any("running_mean" in name for name in changed)
        assert any("num_batches_tracked" in name for name in changed)


def test_batch_statistics_in_the_second_pass(build_energy, noise):
    """ "batch" normalises by the masked batch itself, as a network in training mode would; "eval" does not."""
    model, images = build_energy(awake=True).train(), noise(4, 64)
    maps = model(images, phase="task").tap_values
    results = {}
    for batch_norm in ("eval", "batch", "update"):
        trial = copy.deepcopy(model)
        with trial.interpretation_phase(batch_norm):
            results[batch_norm] = trial(images, tap_values=maps, phase="interpretation")
    energy = model.energy_map(images, results["batch"].interpretation_map)
    assert torch.allclose(results["batch"].logits, copy.deepcopy(model).backbone(energy), atol=1e-5)
    assert torch.allclose(results["update"].logits, results["batch"].logits, atol=1e-5)
    assert torch.allclose(results["eval"].logits, copy.deepcopy(model).eval().backbone(energy), atol=1e-5)
    assert not torch.allclose(results["eval"].logits, results["batch"].logits, atol=1e-2)


@pytest.mark.parametrize("batch_norm", ["eval", "batch", "update"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(build_energy, batch_norm, training, fails):
    model = build_energy().train(training)
    model.backbone.layer1.requires_grad_(False)
    next(model.map_head.parameters()).requires_grad_(False)
    before = modes(model), switches(model)
    for phase in (model.task_phase(), model.interpretation_phase(batch_norm)):
        with pytest.raises(ZeroDivisionError) if fails else nullcontext(), phase:
            assert (modes(model), switches(model)) != before or not training
            if fails:
                raise ZeroDivisionError
        assert (modes(model), switches(model)) == before


def test_batch_norms_frozen_by_the_user_stay_frozen_after_the_second_pass(build_energy):
    """A common way to fine-tune: the backbone's batch norms in evaluation mode, the rest in training mode."""
    model = build_energy().train()
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    before = modes(model)
    with model.interpretation_phase():
        pass
    assert modes(model) == before


def test_train_inside_the_second_pass_keeps_its_mode(build_energy, noise):
    """transformers' Trainer calls `model.train()` at the start of every training step."""
    model = build_energy().train()
    with model.interpretation_phase():
        model.train()
        assert model.map_head.training
        assert not any(module.training for module in model.backbone.modules())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("batch_norm", ["eval", "batch", "update"])
def test_dropout_is_off_in_the_second_pass(build_energy, noise, batch_norm):
    options = {"drop_rate": 0.5, "drop_path_rate": 0.5}
    model, images = build_energy(awake=True, backbone_kwargs=options).train(), noise(4, 64)
    first = [model(images, phase="task") for _ in range(2)]
    assert not torch.equal(first[0].logits, first[1].logits)
    state = torch.get_rng_state()
    with model.interpretation_phase(batch_norm):
        second = [model(images, tap_values=first[0].tap_values, phase="interpretation").logits for _ in range(2)]
    assert torch.equal(second[0], second[1]) or batch_norm == "update"
    assert torch.equal(torch.get_rng_state(), state), "the second pass must not change what pass 1 draws next"


def test_first_pass_is_plain_training(build_energy, noise):
    """Loss, gradients and running statistics are those of the timm network alone, dropout included."""
    model = build_energy(backbone_kwargs={"drop_rate": 0.3}).train()
    plain, images, labels = copy.deepcopy(model.backbone), noise(4, 64), torch.tensor([0, 1, 2, 3])
    torch.manual_seed(5)
    with model.task_phase():
        model(images, labels=labels, phase="task").loss.backward()
    torch.manual_seed(5)
    nn.functional.cross_entropy(plain(images), labels).backward()
    for (name, own), other in zip(model.backbone.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad), name
    for (name, own), other in zip(model.backbone.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(own, other), name


def test_unknown_batch_norm_mode_is_refused_and_leaves_the_model_usable(build_energy):
    model = build_energy().train()
    before = modes(model), switches(model)
    with pytest.raises(ValueError, match=r"batch_norm='frozen' is not one of"), model.interpretation_phase("frozen"):
        pass
    assert (modes(model), switches(model)) == before
    assert all(module.training for module in model.train().modules())


def test_second_pass_on_a_part_of_the_batch(build_energy, noise, passes):
    model, images = build_energy(awake=True), noise(4, 64)
    maps = model(images, phase="task").tap_values
    with model.interpretation_phase():
        part = model(images[:2], tap_values=maps[:2], phase="interpretation")
        whole = model(images, tap_values=maps, phase="interpretation")
    assert torch.allclose(part.logits, whole.logits[:2], atol=1e-5)
