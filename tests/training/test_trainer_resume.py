"""A resumed run ends, bit for bit, where the uninterrupted one does."""

import logging
import re
import shutil

import pytest
import torch

from antehoc_hf.training.checkpoints import RunFolderError
from antehoc_hf.training.trainer import AnteHocTrainer


def train(tiny, folder, resume=None, backbone_kwargs=None, data=None, **options):
    torch.manual_seed(1234 if resume else 4321)  # what happened before must not matter
    data = data if data is not None else tiny.Images(22, augment=True)
    model, parts = tiny.build_model(seed=5, backbone_kwargs=backbone_kwargs), {"eval_dataset": tiny.Images(8)}
    trainer = tiny.build_trainer(model, folder, data, parts, **{"save_strategy": "steps", "save_steps": 1, **options})
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def assert_same_end(straight, resumed):
    for (name, value), (_, expected) in zip(
        resumed.model.state_dict().items(), straight.model.state_dict().items(), strict=True
    ):
        assert torch.equal(value, expected), name
    moments, expected = resumed.optimizer.state_dict(), straight.optimizer.state_dict()
    for index, state in expected["state"].items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(moments["state"][index][name]), torch.as_tensor(value)), name


def test_resuming_in_and_between_epochs(tiny, tmp_path):
    """An epoch has six batches, the last of them smaller; dropout and augmentations draw from the same generator."""
    options = {"max_steps": 8, "backbone_kwargs": {"drop_rate": 0.3, "drop_path_rate": 0.2}}
    straight = train(tiny, tmp_path, **options)
    for at in (1, 5, 6):
        resumed = train(tiny, tmp_path, resume=str(tmp_path / f"checkpoint-{at}"), save_steps=100, **options)
        assert resumed.state.global_step == 8
        assert_same_end(straight, resumed)
        names = ("loss", "interpretation_loss", "map_mean", "grad_norm")
        logs = [{row["step"]: row for row in t.state.log_history if "loss" in row} for t in (straight, resumed)]
        for step in range(1, 9):
            assert [logs[0][step][name] for name in names] == [logs[1][step][name] for name in names], step


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_accumulation_steps": 2, "interpretation_interval": 2},
        {"update_order": "sequential", "gradient_accumulation_steps": 2},
        pytest.param({"interpretation_interval": 3, "interpretation_batch_share": 0.5}, marks=pytest.mark.slow),
        pytest.param({"eval_strategy": "steps", "eval_steps": 1}, marks=pytest.mark.slow),
        {"train_sampling_strategy": "sequential"},
        pytest.param({"interpretation_batch_norm": "update", "joint_weight": 0.5}, marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_resuming_with_options(tiny, tmp_path, options):
    straight = train(tiny, tmp_path, max_steps=4, save_steps=2, **options)
    resumed = train(tiny, tmp_path, resume=str(tmp_path / "checkpoint-2"), max_steps=4, save_steps=100, **options)
    assert_same_end(straight, resumed)


def test_a_log_without_a_second_pass_since_the_checkpoint_is_what_it_would_have_been(tiny, tmp_path):
    options = {"max_steps": 4, "interpretation_interval": 2, "logging_steps": 4}
    logs = [
        next(row for row in trainer.state.log_history if "loss" in row)
        for trainer in (
            train(tiny, tmp_path, **options),
            train(tiny, tmp_path, resume=str(tmp_path / "checkpoint-3"), **options),
        )
    ]
    assert all(log.pop("images_per_second") > 0 for log in logs)
    assert logs[0] == logs[1]


def test_resuming_a_data_set_of_the_library(tiny, tmp_path):
    import datasets

    def augmented(rows):
        images = [torch.full((3, tiny.SIZE, tiny.SIZE), float(v)) for v in rows["value"]]
        return {"pixel_values": [image + torch.randn_like(image) for image in images], "labels": rows["label"]}

    data = datasets.Dataset.from_dict({"value": list(range(22)), "label": [i % 4 for i in range(22)]})
    data = data.with_transform(augmented)
    options = {"data": data, "max_steps": 4, "save_steps": 2, "remove_unused_columns": False}
    straight = train(tiny, tmp_path, **options)
    resumed = train(tiny, tmp_path, resume=str(tmp_path / "checkpoint-2"), **options)
    assert_same_end(straight, resumed)


def test_the_last_checkpoint_is_found(tiny, tmp_path):
    straight = train(tiny, tmp_path, max_steps=4)
    (tmp_path / "checkpoint-4" / "optimizer.pt").unlink()
    resumed = train(tiny, tmp_path, resume=True, max_steps=4)
    assert_same_end(straight, resumed)


def test_augmentation_in_a_collator_is_repeated_too(tiny, tmp_path):
    def mixing(samples):
        images = torch.stack([sample["pixel_values"] for sample in samples])
        return {"pixel_values": images + torch.randn(1), "labels": torch.tensor([s["labels"] for s in samples])}

    def run(resume=None):
        trainer = AnteHocTrainer(
            model=tiny.build_model(),
            args=tiny.build_args(tmp_path, save_strategy="steps", save_steps=100 if resume else 1, max_steps=6),
            train_dataset=tiny.Images(22, augment=True),
            data_collator=mixing,
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    straight = run()
    assert_same_end(straight, run(str(tmp_path / "checkpoint-5")))  # one batch of the epoch is left


def test_workers_are_warned_about(tiny, tmp_path, caplog):
    options = {"max_steps": 3, "dataloader_num_workers": 1}
    train(tiny, tmp_path, **options)
    with caplog.at_level(logging.WARNING, logger="antehoc_hf"):
        train(tiny, tmp_path, resume=str(tmp_path / "checkpoint-2"), **options)
    assert any("set dataloader_num_workers=0 if that matters" in record.getMessage() for record in caplog.records)


def test_a_checkpoint_of_another_run_is_passed_over_and_named(tiny, tmp_path, caplog):
    run, other = tmp_path / "run", tmp_path / "other"
    straight = train(tiny, run, max_steps=4)
    train(tiny, other, max_steps=4, seed=7)
    for name in ("checkpoint-3", "checkpoint-4"):
        shutil.rmtree(run / name)
    shutil.copytree(other / "checkpoint-4", run / "checkpoint-4")
    with caplog.at_level(logging.WARNING, logger="antehoc_hf"):
        assert_same_end(straight, train(tiny, run, resume=True, max_steps=4))
    assert f"Ignoring {run / 'checkpoint-4'}, a checkpoint of another run (seed: 7 there, 42 here)." in caplog.text
    alone = shutil.copytree(other / "checkpoint-2", tmp_path / "alone" / "checkpoint-2")
    with pytest.raises(RunFolderError, match=r"checkpoint-2 holds another run \(seed: 7 there, 42 here\): "):
        train(tiny, run, resume=str(alone), max_steps=4)


@pytest.mark.parametrize("place", ["_partial/checkpoint-2", "_replaced-checkpoint-2/"])
def test_resuming_from_where_a_kill_has_left_a_whole_checkpoint(tiny, tmp_path, place):
    straight = train(tiny, tmp_path, max_steps=4)
    kept = tmp_path / place
    kept.parent.mkdir(exist_ok=True)
    (tmp_path / "checkpoint-2").rename(kept)
    assert_same_end(straight, train(tiny, tmp_path, resume=str(tmp_path) + "/" + place, max_steps=4))


@pytest.mark.parametrize(
    "file", ["scaler.pt", "optimizer.bin", "pytorch_model.bin", "model.safetensors.index.json", "progress_1.pth"]
)
def test_a_file_added_to_a_checkpoint_is_damage_like_any_other(tiny, tmp_path, caplog, file):
    train(tiny, tmp_path, max_steps=2)
    (tmp_path / "checkpoint-2" / file).write_bytes(b"junk")
    (tmp_path / "checkpoint-1" / "notes.txt").write_text("what nothing reads may lie there")
    with pytest.raises(RunFolderError, match=rf"added: {re.escape(file)}\)"):
        train(tiny, tmp_path, resume=str(tmp_path / "checkpoint-2"), max_steps=3)
    with caplog.at_level(logging.WARNING, logger="antehoc_hf"):
        assert train(tiny, tmp_path, resume=True, max_steps=3).state.global_step == 3
    assert f"Ignoring the damaged checkpoint {tmp_path / 'checkpoint-2'}" in caplog.text
