"""Training of class-conditional maps: the backbone is left alone, runs resume exactly, wrong options are refused."""

import pytest
import torch

from antehoc_hf.training.objectives import CoalitionObjective, EnergyObjective
from antehoc_hf.training.trainer import AnteHocTrainer

CONTRIBUTIONS = {"map_head": "contributions"}
COALITIONS = {"coalitions_per_image": 8}


def train(tiny, folder, model=CONTRIBUTIONS, resume=None, data=None, **options):
    data = data or tiny.Images(22, augment=True)
    options = {**(COALITIONS if "map_head" in model else {}), **options}
    trainer = tiny.build_trainer(tiny.build_model(seed=5, **model), folder, data, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 2, "interpretation_batch_share": 0.5, "coalition_sampling": "ranked"},
        {"update_order": "sequential"},
    ],
    ids="-".join,
)
def test_backbone_and_head_train_as_with_the_papers_map(tiny, tmp_path, options):
    drop = {"backbone_kwargs": {"drop_rate": 0.3, "drop_path_rate": 0.3}}
    ours = train(tiny, tmp_path / "ours", {**CONTRIBUTIONS, **drop}, **options).model
    common = {name: value for name, value in options.items() if name != "coalition_sampling"}
    papers = train(tiny, tmp_path / "papers", drop, **common).model
    for (name, value), expected in zip(
        ours.backbone.state_dict().items(), papers.backbone.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name
    fresh = tiny.build_model(seed=5, **CONTRIBUTIONS, **drop)
    for name, value in ours.map_head.state_dict().items():
        assert not torch.equal(value, fresh.map_head.state_dict()[name]), name


@pytest.mark.parametrize(("coalitions", "seen"), [(2, 16 * 2 + 2), (4, 16 * 4 + 2)])
def test_a_second_pass_sees_little_more_than_its_coalitions(tiny, tmp_path, coalitions, seen):
    model, counted = tiny.build_model(**CONTRIBUTIONS), []
    model.backbone.register_forward_pre_hook(lambda _, inputs: counted.append(len(inputs[0])))
    options = {"per_device_train_batch_size": 16, "coalitions_per_image": coalitions, "max_steps": 1}
    tiny.build_trainer(model, tmp_path, tiny.Images(16), **options).train()
    assert sum(counted) == 16 + seen


@pytest.mark.parametrize("model", [{}, CONTRIBUTIONS], ids=["energy map", "contributions"])
def test_a_finished_classifier_can_be_left_as_it_is(tiny, tmp_path, model):
    drop = {"backbone_kwargs": {"drop_rate": 0.3}}
    trained = train(tiny, tmp_path, {**model, **drop}, train_task=False, gradient_accumulation_steps=2)
    fresh = tiny.build_model(seed=5, **model, **drop)
    for (name, value), expected in zip(trained.model.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(value, expected) is name.startswith("backbone"), name
    losses = [row["loss"] for row in trained.state.log_history if "loss" in row]
    assert all(0 < loss < 10 for loss in losses)


@pytest.mark.parametrize(
    "options", [{}, {"gradient_accumulation_steps": 2}, {"coalition_sampling": "ranked"}], ids="-".join
)
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tiny, tmp_path, options):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, **options}
    straight = train(tiny, tmp_path, **options)
    resumed = train(tiny, tmp_path, resume=str(tmp_path / "checkpoint-4"), **options)
    for (name, value), expected in zip(
        resumed.model.state_dict().items(), straight.model.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("model", [{}, CONTRIBUTIONS], ids=["energy map", "contributions"])
def test_the_first_pass_can_see_images_in_part(tiny, tmp_path, model):
    seen = []
    trainer = tiny.build_trainer(
        tiny.build_model(seed=5, **model), tmp_path, tiny.Images(8), partial_image_share=0.5, max_steps=1
    )
    hook = trainer.model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    trainer.train()
    hook.remove()
    first = seen[0]
    images = torch.stack([tiny.Images(8)[index]["pixel_values"] for index in range(8)])
    # Of each image of the batch, how much differs from the one that it shows a part of.
    differs = [(images - image).abs().amax(dim=1).gt(1e-5).float().mean(dim=(1, 2)) for image in first]
    share = torch.stack([of_each.min() for of_each in differs])
    half = len(first) // 2
    assert (share[:half] < 0.01).all()
    assert ((share[half:] > 0.01) & (share[half:] < 1)).all()


def test_partial_images_are_the_same_after_resuming(tiny, tmp_path):
    options = {"partial_image_share": 0.5, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    straight = train(tiny, tmp_path, **options)
    resumed = train(tiny, tmp_path, resume=str(tmp_path / "checkpoint-2"), **options)
    plain = train(tiny, tmp_path / "plain", max_steps=4)
    for (name, value), expected in zip(
        resumed.model.state_dict().items(), straight.model.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name
    assert not torch.equal(plain.model.backbone.fc.weight, straight.model.backbone.fc.weight)


@pytest.mark.slow
def test_the_loss_is_logged_and_falls(tiny, tmp_path):
    rows = train(
        tiny, tmp_path, data=tiny.Images(24), max_steps=60, logging_steps=20, learning_rate=1e-3, optim="adamw_torch"
    ).state.log_history
    losses = [row["interpretation_loss"] for row in rows if "interpretation_loss" in row]
    assert all(0 < row["map_mean"] < 1 and row["degenerate_share"] == 0 for row in rows if "map_mean" in row)
    assert len(losses) == 3
    assert all(loss > 0 for loss in losses)


@pytest.mark.parametrize(
    ("kind", "objective", "sentence"),
    [
        ("contributions", EnergyObjective(tv_weight=0.1), "EnergyObjective cannot teach this model's ContributionMap"),
        ("energy", "coalitions", "CoalitionObjective cannot teach this model's EnergyMap, which learns by"),
        ("energy", "lime", "There is no objective 'lime': choose one of 'coalitions', 'energy', or pass an object"),
    ],
)
def test_an_objective_that_does_not_fit_the_map_is_refused(tiny, tmp_path, kind, objective, sentence):
    with pytest.raises(ValueError, match=sentence):
        AnteHocTrainer(tiny.build_model(map_head=kind), tiny.build_args(tmp_path), objective=objective)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"coalitions_per_image": 3}, "coalitions_per_image must be an even number of at least 2, not 3"),
        ({"coalitions_per_image": 0}, "an even number of at least 2"),
        ({"sampling": "owen"}, "sampling='owen' is not one of 'contiguous', 'ranked', 'shapley'"),
        ({"background": "white"}, "background='white' is not one of 'mixed', 'mean'"),
        ({"backgrund": "black"}, "CoalitionOptions has no option 'backgrund': did you mean 'background'"),
    ],
)
def test_senseless_options_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        CoalitionObjective(**options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"train_task": False, "interpretation_interval": 2}, "nothing to learn: leave out"),
        ({"interpretation_start": 1.0}, r"must be a number in \[0, 1\), not 1.0"),
        ({"train_task": False, "interpretation_start": 0.5}, "nothing to learn: leave out"),
        ({"partial_image_share": 1.0}, r"must be a number in \[0, 1\), not 1.0"),
        ({"train_task": False, "partial_image_share": 0.5}, "trains no backbone that could learn from partial images"),
    ],
)
def test_senseless_arguments_are_refused(tiny, tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.build_args(tmp_path, **options)
