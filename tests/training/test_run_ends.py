"""A run that has ended, by its steps or by a callback, does nothing but finish when it is resumed."""

import json
import shutil

import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from antehoc_hf.training.checkpoints import RunFolderError, last_whole_checkpoint

SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def comparable(folder):
    """trainer_state.json without what depends on the clock."""
    state = json.loads((folder / "trainer_state.json").read_text())
    timed = ("runtime", "per_second")
    state["log_history"] = [
        {name: value for name, value in row.items() if not name.endswith(timed)} for row in state["log_history"]
    ]
    return state


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 8},  # of 6 steps an epoch
        {"max_steps": -1, "num_train_epochs": 1.5},
        {"max_steps": 6, "eval_strategy": "epoch", "logging_strategy": "epoch"},
        {"max_steps": 8, "gradient_accumulation_steps": 2, "logging_steps": 3, "eval_strategy": "steps"},
        {"max_steps": 5, "eval_on_start": True, "eval_strategy": "epoch"},
        {
            "max_steps": 7,
            "save_steps": 1,
            "save_total_limit": 1,
            "load_best_model_at_end": True,
            "metric_for_best_model": "degenerate_share",
            "eval_strategy": "steps",
            "eval_steps": 1,
        },
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_finished_run_resumed_does_nothing_but_finish(tiny, tmp_path, options):
    options = {**SAVING, "logging_steps": 3, **options}

    def run(**resume):
        data, parts = tiny.Images(22, augment=True), {"eval_dataset": tiny.Images(8)}
        trainer = tiny.build_trainer(tiny.build_model(), tmp_path, data, parts, **options)
        outcome = trainer.train(**resume)
        trainer.save_state()
        return trainer, outcome, comparable(tmp_path)

    trainer, straight, state = run()
    last = trainer.state.global_step
    assert (tmp_path / f"checkpoint-{last}").is_dir()
    for checkpoint in (True, *([] if "save_total_limit" in options else [str(tmp_path / "checkpoint-2")])):
        resumed, outcome, again = run(resume_from_checkpoint=checkpoint)
        assert resumed.state.global_step == outcome.global_step == last
        assert again == state
        assert outcome.training_loss == straight.training_loss
        for name, value in resumed.model.state_dict().items():
            assert torch.equal(value, trainer.model.state_dict()[name]), name


class Stop(TrainerCallback):
    """Ends a training at an event."""

    def __init__(self, event, step):
        self.event, self.step = event, step

    def __getattribute__(self, name):
        if not name.startswith("on_") or name != self.event:
            return super().__getattribute__(name)

        def stop(args, state, control, **kwargs):
            control.should_training_stop |= state.global_step >= self.step

        return stop


@pytest.mark.parametrize(
    "event", ["on_step_begin", "on_substep_end", "on_step_end", "on_log", "on_evaluate", "on_save"]
)
@pytest.mark.parametrize(
    ("step", "options"),
    [
        (3, {"eval_strategy": "steps", "eval_steps": 1, "gradient_accumulation_steps": 2}),
        (3, {"save_steps": 3, "eval_strategy": "epoch"}),
        (6, {"save_strategy": "epoch", "eval_strategy": "epoch", "logging_strategy": "epoch"}),
    ],
)
def test_a_run_that_any_callback_ended_does_nothing_but_finish_when_resumed(tiny, tmp_path, event, step, options):
    late = "save_steps" in options

    def run(max_steps=12, **resume):
        data, stop = tiny.Images(22, augment=True), Stop(event, step)
        parts = {"eval_dataset": tiny.Images(8), "callbacks": [] if late else [stop]}
        given = {**SAVING, "logging_steps": 1, "max_steps": max_steps, **options}
        trainer = tiny.build_trainer(tiny.build_model(), tmp_path, data, parts, **given)
        if late:
            trainer.add_callback(stop)
        trainer.train(**resume)
        trainer.save_state()
        return trainer, comparable(tmp_path)

    trainer, state = run()
    resumed, again = run(resume_from_checkpoint=True)
    assert resumed.state.global_step == trainer.state.global_step
    assert again == state
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[name]), name


@pytest.mark.slow
def test_more_steps_train_on(tiny, tmp_path):
    """Whoever asks for more than was planned gets it, also where the last steps were in the middle of an epoch."""

    def run(folder, resume=None, callbacks=(), **options):
        data, parts = tiny.Images(22, augment=True), {"eval_dataset": tiny.Images(8), "callbacks": list(callbacks)}
        given = {**SAVING, "lr_scheduler_type": "constant", "max_steps": -1, **options}
        trainer = tiny.build_trainer(tiny.build_model(), folder, data, parts, **given)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    straight = run(tmp_path / "straight", num_train_epochs=2.5)
    assert run(tmp_path / "run", num_train_epochs=1.5).state.global_step == 9
    longer = run(tmp_path / "run", resume=True, num_train_epochs=2.5)
    assert longer.state.global_step == 15
    for name, value in longer.model.state_dict().items():
        assert torch.equal(value, straight.model.state_dict()[name]), name
    assert run(tmp_path / "ended", callbacks=[Stop("on_log", 3)], max_steps=8).state.global_step < 8
    assert run(tmp_path / "ended", resume=True, max_steps=9).state.global_step == 9


def stop_early(tiny, folder, resume=None, patience=2, data=None, **options):
    """By a metric that is 0 at every evaluation: none is better than the first."""
    best = {"metric_for_best_model": "degenerate_share", "eval_strategy": "steps", "eval_steps": 1}
    options = {**SAVING, **best, "load_best_model_at_end": True, "save_steps": 1, "max_steps": 20, **options}
    parts = {"eval_dataset": tiny.Images(8), "callbacks": [EarlyStoppingCallback(patience)]}
    trainer = tiny.build_trainer(tiny.build_model(), folder, data or tiny.Images(22), parts, **options)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_state()
    return trainer


@pytest.mark.parametrize(
    "options",
    [
        {"logging_strategy": "epoch"},
        {"eval_steps": 2, "save_steps": 4, "load_best_model_at_end": False, "gradient_accumulation_steps": 2},
        {"eval_strategy": "epoch", "save_strategy": "epoch"},
    ],
    ids=lambda options: "-".join(options),
)
def test_a_run_that_was_stopped_early_does_nothing_but_finish_when_resumed(tiny, tmp_path, options):
    trainer = stop_early(tiny, tmp_path, **options)
    state, last = comparable(tmp_path), trainer.state.global_step
    assert last < 20
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / f"checkpoint-{last}")
    resumed = stop_early(tiny, tmp_path, resume=True, **options)
    assert resumed.state.global_step == last
    assert comparable(tmp_path) == state
    if "eval_steps" in options:
        assert last == 6  # the first evaluation at 2, and patience for those at 4 and 6
        again = stop_early(tiny, tmp_path, resume=str(tmp_path / "checkpoint-4"), **options)
        assert again.state.global_step == 6  # it remembers that the evaluation at 4 was no better
        assert stop_early(tiny, tmp_path, resume=True, patience=3, **options).state.global_step == 8


def test_early_stopping_may_be_added_when_a_run_is_resumed(tiny, tmp_path):
    tiny.build_trainer(tiny.build_model(), tmp_path, tiny.Images(22), **SAVING).train()
    options = {"load_best_model_at_end": False, "max_steps": 5, "patience": 9}
    assert stop_early(tiny, tmp_path, resume=True, **options).state.global_step == 5


def test_a_best_checkpoint_that_was_damaged_is_not_loaded(tiny, tmp_path):
    run = tmp_path / "run"
    stop_early(tiny, run)
    moved = run.rename(tmp_path / "moved")
    resumed = stop_early(tiny, moved, resume=True)
    assert resumed.state.best_model_checkpoint == str(moved / "checkpoint-1")
    weights = moved / "checkpoint-1" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-64:] = bytes(64 * [7])
    sentence = r"checkpoint-1, the run's best checkpoint, is damaged \(absent, changed, added: model.safetensors\): "

    class Damaging(tiny.Images):
        def __getitem__(self, index):
            weights.write_bytes(content)
            return super().__getitem__(index)

    with pytest.raises(RunFolderError, match=sentence):  # while it trains
        stop_early(tiny, moved, resume=str(moved / "checkpoint-2"), data=Damaging(22))
    with pytest.raises(RunFolderError, match=sentence):  # before it trains
        stop_early(tiny, moved, resume=True, patience=50)
    last = stop_early(tiny, moved, resume=True, load_best_model_at_end=False)
    assert last.state.global_step == 3


def test_a_copy_of_a_run_takes_its_own_best_checkpoint(tiny, tmp_path):
    stop_early(tiny, tmp_path / "run")
    copied = shutil.copytree(tmp_path / "run", tmp_path / "copied")
    assert stop_early(tiny, copied, resume=True).state.best_model_checkpoint == str(copied / "checkpoint-1")
