"""What each of the two passes does to whom, against gradients taken by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from antehoc_hf.training.trainer import AnteHocTrainer

NO_CLIPPING = {"max_grad_norm": 0.0, "interpretation_max_grad_norm": 0.0}


def awake(model):
    """The weight network's last layer starts at zero, so that nothing behind it gets a gradient: not here."""
    torch.manual_seed(1)
    nn.init.normal_(model.map_head.weight_network.head.weight, std=0.3)
    return model


def train(tiny, tmp_path, model, data=None, **options):
    recorder = tiny.GradientRecorder()
    data, parts = data if data is not None else tiny.Images(8), {"callbacks": [recorder]}
    trainer = tiny.build_trainer(model, tmp_path, data, parts, **{**NO_CLIPPING, **options})
    trainer.train()
    return trainer, recorder.steps


def first_batch(trainer):
    return next(iter(trainer.get_train_dataloader()))


def by_hand(model, batch, count=None, joint=0.0):
    """Gradients of the task's loss and of the paper's L_interpret plainly with autograd, and both losses."""
    model = copy.deepcopy(model).train()
    first = model(batch["pixel_values"], phase="task")
    loss = F.cross_entropy(first.logits, batch["labels"])
    images, maps = batch["pixel_values"][:count], first.tap_values[:count]
    model.backbone.eval()
    energy = model.energy_map(images, model.map_head(maps, (64, 64)).interpretation_map)
    difference = model.backbone(energy).softmax(-1) - first.logits[:count].detach().softmax(-1)
    second = difference.square().mean()
    task = {name: p for name, p in model.named_parameters() if not name.startswith("map_head")}
    maps = {name: p for name, p in model.named_parameters() if name.startswith("map_head")}
    own = torch.autograd.grad(loss, list(task.values()))
    other = torch.autograd.grad(second, [*task.values(), *maps.values()])
    gradients = [g + joint * more for g, more in zip(own, other, strict=False)] + list(other[len(task) :])
    return dict(zip([*task, *maps], gradients, strict=True)), loss.item(), second.item()


def assert_close(actual, expected, tolerance=1e-6):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(actual[name], value, rtol=1e-4, atol=tolerance), name


@pytest.mark.parametrize(("share", "count"), [(1.0, 4), (0.5, 2), (0.3, 2)])
def test_each_loss_reaches_its_own_parameters(tiny, tmp_path, share, count):
    model = awake(tiny.build_model("test_convnext"))
    start = copy.deepcopy(model)
    trainer, steps = train(tiny, tmp_path, model, max_steps=1, interpretation_batch_share=share)
    expected, loss, second = by_hand(start, first_batch(trainer), count)
    assert_close(steps[0], expected)
    assert any(gradient.abs().sum() > 0 for name, gradient in expected.items() if "map_head" in name)
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(loss, rel=1e-5)
    assert log["interpretation_loss"] == pytest.approx(second, rel=1e-5)


def test_joint_training_adds_its_share_to_the_backbone(tiny, tmp_path):
    model = awake(tiny.build_model("test_convnext"))
    start = copy.deepcopy(model)
    trainer, steps = train(tiny, tmp_path, model, max_steps=1, joint_weight=3.0)
    expected, *_ = by_hand(start, first_batch(trainer), joint=3.0)
    without, *_ = by_hand(start, first_batch(trainer))
    assert_close(steps[0], expected)
    assert any(not torch.allclose(without[name], expected[name], atol=1e-6) for name in expected)


@pytest.mark.parametrize("joint_weight", [0.0, 1.0])
def test_activation_checkpointing_changes_no_gradient(tiny, tmp_path, joint_weight):
    gradients = []
    for checkpointing in (False, True):
        model = awake(tiny.build_model("test_convnext"))
        _, steps = train(
            tiny,
            tmp_path / str(checkpointing),
            model,
            max_steps=1,
            joint_weight=joint_weight,
            activation_checkpointing=checkpointing,
        )
        gradients.append(steps[0])
    assert_close(*gradients)


@pytest.mark.parametrize("options", [{}, {"update_order": "sequential"}], ids=["simultaneous", "sequential"])
def test_accumulated_micro_batches_equal_one_batch(tiny, tmp_path, options):
    parameters, logs = [], []
    for size, accumulation in ((8, 1), (4, 2)):
        model = awake(tiny.build_model("test_nfnet"))
        trainer, _ = train(
            tiny,
            tmp_path / str(size),
            model,
            tiny.Images(16),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=2,
            optim="sgd",
            interpretation_learning_rate=0.1,
            **options,
        )
        parameters.append({name: p.detach() for name, p in model.named_parameters()})
        logs.append(trainer.state.log_history)
    assert_close(*parameters)
    for name in ("loss", "interpretation_loss", "map_mean", "grad_norm", "interpretation_grad_norm"):
        assert logs[0][1][name] == pytest.approx(logs[1][1][name], rel=1e-4), name


def test_every_parameter_learns(tiny, tmp_path):
    model = tiny.build_model("test_resnet")
    start = copy.deepcopy(model.state_dict())
    train(tiny, tmp_path, model, max_steps=4)
    same = [name for name, p in model.named_parameters() if torch.equal(p, start[name])]
    assert same == []


def test_the_second_pass_can_start_late(tiny, tmp_path):
    trainer, steps = train(tiny, tmp_path, tiny.build_model(), max_steps=5, interpretation_start=0.5)
    made = [any(name.startswith("map_head") for name in step) for step in steps]
    assert made == [False, False, False, True, True]
    assert ["interpretation_loss" in row for row in trainer.state.log_history[:-1]] == made


def test_the_second_pass_keeps_to_its_interval(tiny, tmp_path):
    trainer, steps = train(tiny, tmp_path, tiny.build_model(), max_steps=5, interpretation_interval=2)
    made = [any(name.startswith("map_head") for name in step) for step in steps]
    assert made == [True, False, True, False, True]
    assert ["interpretation_loss" in row for row in trainer.state.log_history[:-1]] == made


def test_sequential_order_goes_through_the_updated_backbone(tiny, tmp_path):
    model = awake(tiny.build_model("test_convnext"))
    start = copy.deepcopy(model)
    options = {"optim": "sgd", "learning_rate": 0.3, "lr_scheduler_type": "constant", "max_steps": 1}
    trainer, _ = train(tiny, tmp_path, model, update_order="sequential", interpretation_learning_rate=2.0, **options)
    batch = first_batch(trainer)
    first = start(batch["pixel_values"], phase="task")
    maps = first.tap_values
    updated = copy.deepcopy(start)
    updated.backbone.load_state_dict(model.backbone.state_dict())
    energy = updated.energy_map(batch["pixel_values"], updated.map_head(maps, (64, 64)).interpretation_map)
    loss = (updated.backbone(energy).softmax(-1) - first.logits.detach().softmax(-1)).square().mean()
    learning = dict(updated.map_head.named_parameters())
    gradients = torch.autograd.grad(loss, list(learning.values()))
    after = dict(model.map_head.named_parameters())
    for (name, before), gradient in zip(learning.items(), gradients, strict=True):
        assert torch.allclose(after[name], before - 2.0 * gradient, atol=1e-7), name
    assert not torch.equal(start.backbone.head.fc.weight, model.backbone.head.fc.weight)


def test_batch_norm_of_the_second_pass(tiny, tmp_path):
    """Only `update` lets masked images into the running statistics; `batch` gives the map another gradient."""
    statistics, gradients = {}, {}
    for mode in ("eval", "batch", "update"):
        model = awake(tiny.build_model("test_resnet"))
        _, steps = train(tiny, tmp_path / mode, model, max_steps=1, interpretation_batch_norm=mode)
        statistics[mode] = model.backbone.state_dict()["bn1.running_mean"]
        gradients[mode] = steps[0]["map_head.weight_network.head.weight"]
    plain = tiny.build_model("test_resnet").train()
    trainer = AnteHocTrainer(model=plain, args=tiny.build_args(tmp_path / "x"), train_dataset=tiny.Images(8))
    plain.backbone(first_batch(trainer)["pixel_values"])
    expected = plain.backbone.state_dict()["bn1.running_mean"]
    assert torch.equal(statistics["eval"], expected)
    assert torch.equal(statistics["batch"], expected)
    assert not torch.allclose(statistics["update"], expected)
    assert not torch.allclose(gradients["eval"], gradients["batch"])
    assert torch.allclose(gradients["batch"], gradients["update"])


def test_the_target_may_be_taken_in_evaluation_mode(tiny, tmp_path):
    model = tiny.build_model("test_resnet", backbone_kwargs={"drop_rate": 0.5})
    start = copy.deepcopy(model)
    trainer, _ = train(tiny, tmp_path, model, max_steps=1, target_eval=True)
    batch = first_batch(trainer)
    start.train()
    maps = start(batch["pixel_values"], phase="task").tap_values  # also moves the running statistics
    start.eval()
    energy = start.energy_map(batch["pixel_values"], start.map_head(maps, (64, 64)).interpretation_map)
    with torch.no_grad():
        difference = start.backbone(energy).softmax(-1) - start.backbone(batch["pixel_values"]).softmax(-1)
    assert trainer.state.log_history[0]["interpretation_loss"] == pytest.approx(
        difference.square().mean().item(), rel=1e-4
    )


def test_each_pass_is_clipped_by_itself(tiny, tmp_path):
    model = awake(tiny.build_model())
    _, steps = train(tiny, tmp_path, model, max_steps=1, max_grad_norm=0.5, interpretation_max_grad_norm=1e-6)
    norms = {
        own: torch.stack([g.norm() for n, g in steps[0].items() if n.startswith("map_head") is own]).norm()
        for own in (True, False)
    }
    assert norms[True].item() == pytest.approx(1e-6, rel=0.02)
    assert norms[False].item() == pytest.approx(0.5, rel=1e-3)


def test_optimizer_groups(tiny, tmp_path):
    model = tiny.build_model()
    options = {"weight_decay": 0.1, "interpretation_weight_decay": 0.2, "interpretation_learning_rate": 0.03}
    trainer, _ = train(tiny, tmp_path, model, max_steps=1, lr_scheduler_type="constant", learning_rate=0.01, **options)
    of_parameter = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(of_parameter) == len(list(model.parameters()))
    assert of_parameter[id(model.backbone.conv1[0].weight)] == (0.01, 0.1)
    assert of_parameter[id(model.backbone.fc.bias)] == (0.01, 0.0)
    assert of_parameter[id(model.map_head.weight_network.head.weight)] == (0.03, 0.2)
    assert of_parameter[id(model.map_head.weight_network.head.bias)] == (0.03, 0.0)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
@pytest.mark.parametrize("target", ["probabilities", "logits"])
def test_the_trainer_knows_no_task(tiny, tmp_path, problem, target):
    class Vectors(tiny.Images):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "labels": F.one_hot(torch.tensor(index % 4), 4).float()}

    model = tiny.build_model(problem_type=problem)
    start = copy.deepcopy(model.map_head.state_dict())
    train(tiny, tmp_path, model, Vectors(8), max_steps=3, interpretation_target=target)
    assert all(not torch.equal(p, start[name]) for name, p in model.map_head.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("joint_weight", [0.0, 1.0])
def test_compiled_training_equals_uncompiled(tiny, tmp_path, joint_weight):
    parameters = []
    for backend in (None, "aot_eager"):
        model = awake(tiny.build_model("test_resnet"))
        train(
            tiny,
            tmp_path / str(backend),
            model,
            max_steps=2,
            optim="sgd",
            joint_weight=joint_weight,
            torch_compile_backend=backend,
        )
        parameters.append({name: p.detach() for name, p in model.named_parameters()})
    assert_close(*parameters, tolerance=1e-5)
