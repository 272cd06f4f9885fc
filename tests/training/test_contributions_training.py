"""Training of class-conditional maps: the backbone is left alone, runs resume exactly, wrong options are refused."""

import pytest
import torch

from antehoc_hf.training.trainer import AnteHocTrainer

CONTRIBUTIONS = {"weight_network": "contributions"}


def train(tiny, folder, model=CONTRIBUTIONS, resume=None, data=None, **options):
    trainer = AnteHocTrainer(
        model=tiny.build_model(seed=5, **model),
        args=tiny.build_args(folder, **options),
        train_dataset=data or tiny.Images(22, augment=True),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_accumulation_steps": 2, "interpretation_batch_share": 0.5}, {"update_order": "sequential"}],
    ids="-".join,
)
def test_backbone_and_head_train_as_with_the_papers_map(tiny, tmp_path, options):
    drop = {"backbone_kwargs": {"drop_rate": 0.3, "drop_path_rate": 0.3}}
    ours = train(tiny, tmp_path / "ours", {**CONTRIBUTIONS, **drop}, **options).model
    papers = train(tiny, tmp_path / "papers", drop, **options).model
    for (name, value), expected in zip(
        ours.backbone.state_dict().items(), papers.backbone.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name
    fresh = tiny.build_model(seed=5, **CONTRIBUTIONS, **drop)
    for name, value in ours.weight_network.state_dict().items():
        assert not torch.equal(value, fresh.weight_network.state_dict()[name]), name


@pytest.mark.parametrize("model", [{}, CONTRIBUTIONS], ids=["energy map", "contributions"])
def test_a_finished_classifier_can_be_left_as_it_is(tiny, tmp_path, model):
    drop = {"backbone_kwargs": {"drop_rate": 0.3}}
    trained = train(tiny, tmp_path, {**model, **drop}, train_task=False, gradient_accumulation_steps=2)
    fresh = tiny.build_model(seed=5, **model, **drop)
    for (name, value), expected in zip(trained.model.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(value, expected) is name.startswith("backbone"), name
    losses = [row["loss"] for row in trained.state.log_history if "loss" in row]
    assert all(0 < loss < 10 for loss in losses)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}], ids="-".join)
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tiny, tmp_path, options):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, **options}
    straight = train(tiny, tmp_path, **options)
    resumed = train(tiny, tmp_path, resume=str(tmp_path / "checkpoint-4"), **options)
    for (name, value), expected in zip(
        resumed.model.state_dict().items(), straight.model.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name


def test_the_loss_is_logged_and_falls(tiny, tmp_path):
    rows = train(
        tiny, tmp_path, data=tiny.Images(24), max_steps=60, logging_steps=20, learning_rate=1e-3, optim="adamw_torch"
    ).state.log_history
    losses = [row["interpretation_loss"] for row in rows if "interpretation_loss" in row]
    assert all(0 < row["map_mean"] < 1 and row["degenerate_share"] == 0 for row in rows if "map_mean" in row)
    assert len(losses) == 3
    assert all(loss > 0 for loss in losses)


@pytest.mark.parametrize(
    "options",
    [
        {"interpretation_target": "kl"},
        {"joint_weight": 0.5},
        {"interpretation_batch_norm": "batch"},
        {"target_eval": True},
        {"area_weight": 1.0},
    ],
    ids="-".join,
)
def test_options_of_energy_maps_are_refused(tiny, tmp_path, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.* learns from coalitions: leave it out"):
        train(tiny, tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"coalitions_per_image": 3}, "coalitions_per_image must be an even number of at least 2"),
        ({"coalitions_per_image": 0}, "an even number of at least 2"),
        ({"train_task": False, "joint_weight": 1.0}, "train_task=False leaves backbone and head as they are"),
        ({"train_task": False, "interpretation_interval": 2}, "nothing to learn: leave out"),
        ({"coalition_sampling": "owen"}, "coalition_sampling='owen' is not one of 'contiguous', 'shapley'"),
        ({"coalition_background": "white"}, "coalition_background='white' is not one of 'mixed', 'mean'"),
    ],
)
def test_senseless_arguments_are_refused(tiny, tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.build_args(tmp_path, **options)
