"""Checkpoints are whole or not there, and a folder is one run's."""

import json
import logging
import multiprocessing
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.training.checkpoints import RunFolderError, damaged_files, last_whole_checkpoint, rotate, seal
from antehoc_hf.training.data import load_image_data
from antehoc_hf.training.run_lock import run_lock
from antehoc_hf.training.runs.identity import content_digest
from antehoc_hf.training.trainer import AnteHocTrainer

SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def make_checkpoint(folder, step):
    path = folder / f"checkpoint-{step}"
    (path / "deep").mkdir(parents=True)
    (path / "weights").write_bytes(b"w" * 100)
    (path / "deep" / "state").write_bytes(b"s" * 10)
    seal(path, step)
    return path


def build(tiny, tmp_path, data=None, **options):
    data = data or tiny.Images(22, augment=True)
    return tiny.build_trainer(tiny.build_model(), tmp_path, data, **{**SAVING, **options})


def folders(path):
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


# -- whole and torn -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["absent", "short", "no list", "broken list", "deep"])
def test_a_torn_checkpoint_is_passed_over_by_name(tmp_path, caplog, damage):
    make_checkpoint(tmp_path, 2)
    torn = make_checkpoint(tmp_path, 10)
    if damage == "absent":
        (torn / "weights").unlink()
    elif damage == "short":
        (torn / "weights").write_bytes(b"w" * 99)
    elif damage == "no list":
        (torn / "checkpoint_complete.json").unlink()
    elif damage == "broken list":
        (torn / "checkpoint_complete.json").write_text('{"step": 10, "fil')
    else:
        (torn / "deep" / "state").unlink()
    with caplog.at_level(logging.WARNING, logger="antehoc_hf"):
        assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert any(f"Ignoring the damaged checkpoint {torn}" in record.getMessage() for record in caplog.records)


def test_an_unfinished_checkpoint_is_passed_over_by_name(tmp_path, caplog):
    make_checkpoint(tmp_path, 2)
    unfinished = make_checkpoint(tmp_path / "_partial", 4)
    with caplog.at_level(logging.WARNING, logger="antehoc_hf"):
        assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert any(str(unfinished) in record.getMessage() for record in caplog.records)


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert last_whole_checkpoint(tmp_path) is None
    assert last_whole_checkpoint(tmp_path / "absent") is None


def test_a_replaced_checkpoint_counts_until_the_new_one_stands(tmp_path):
    make_checkpoint(tmp_path, 2)
    os.replace(make_checkpoint(tmp_path, 4), tmp_path / "_replaced-checkpoint-4")  # killed between two renames
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "_replaced-checkpoint-4")
    make_checkpoint(tmp_path, 4)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")


def test_the_oldest_are_deleted_but_never_the_best_nor_a_whole_one_for_a_torn(tmp_path):
    for step in (2, 4, 6, 8):
        make_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-8" / "weights").unlink()
    rotate(tmp_path, 2, str(tmp_path / "checkpoint-2"))
    assert folders(tmp_path) == ["checkpoint-2", "checkpoint-6", "checkpoint-8"]
    rotate(tmp_path, None, None)
    assert folders(tmp_path) == ["checkpoint-2", "checkpoint-6", "checkpoint-8"]


def test_the_trainer_leaves_whole_checkpoints_only(tiny, tmp_path):
    build(tiny, tmp_path, save_total_limit=1, max_steps=6).train()
    assert folders(tmp_path) == ["checkpoint-6"]
    assert damaged_files(tmp_path / "checkpoint-6") == []
    listed = json.loads((tmp_path / "checkpoint-6" / "checkpoint_complete.json").read_text())
    present = {p.name for p in (tmp_path / "checkpoint-6").iterdir()} - {"checkpoint_complete.json"}
    assert set(listed["files"]) == present
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= present
    assert listed["step"] == 6


# -- whose folder ---------------------------------------------------------------------------------------------------


def test_a_folder_with_another_run_is_refused(tiny, tmp_path):
    build(tiny, tmp_path).train()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for options, difference in (
        ({"seed": 7}, "seed: 42 there, 7 here"),
        ({"per_device_train_batch_size": 2}, "batch size: 4 there, 2 here"),
        ({"joint_weight": 0.5}, "objective.joint_weight: 0.0 there, 0.5 here"),
        ({"data": tiny.Images(20)}, "data.examples: 22 there, 20 here"),
    ):
        for resume in (None, True):
            with pytest.raises(RunFolderError, match=difference) as caught:
                build(tiny, tmp_path, **options).train(resume_from_checkpoint=resume)
            assert "another output_dir" in str(caught.value)
    other = AnteHocTrainer(
        model=tiny.build_model("test_efficientnet"), args=tiny.build_args(tmp_path), train_dataset=tiny.Images(22)
    )
    with pytest.raises(RunFolderError, match=r'backbone: "test_resnet.*" there, "test_efficientnet.*" here'):
        other.train()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """Draws a folder of cats and dogs (`shade` changes the pictures) and reads it as training data."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def read(folder, augmentation="flip", shade=0, cats=4):
        for number in range(0 if folder.exists() else 8):
            path = folder / ("cat" if number < cats else "dog") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((64, 64, 3), 10 * number + shade, dtype=np.uint8)).save(path)
        data = load_image_data(folder, validation_fraction=0.0)
        return data.with_transforms(AnteHocImageProcessor(image_size=64), augmentation).train

    return read


def test_other_data_of_the_same_size_are_another_run(tiny, tmp_path, pets):
    run = tmp_path / "run"
    build(tiny, run, data=pets(tmp_path / "pets"), max_steps=2).train()
    for data, difference in (
        (pets(tmp_path / "other images", shade=3), r"data\.content: \"\w{16}\" there, \"\w{16}\" here"),
        (pets(tmp_path / "other labels", cats=5), r"data\.content"),
        (pets(tmp_path / "pets", augmentation="crop-flip"), 'augmentation: "flip" there, "crop-flip" here'),
    ):
        with pytest.raises(RunFolderError, match=difference):
            build(tiny, run, data=data).train(resume_from_checkpoint=True)
    moved = tmp_path / "elsewhere" / "pets"
    shutil.move(tmp_path / "pets", moved)
    for path in moved.rglob("*.png"):
        os.utime(path, (0, 0))
    build(tiny, run, data=pets(moved)).train(resume_from_checkpoint=True)
    assert folders(run) == ["checkpoint-2", "checkpoint-4"]


def test_the_content_of_a_stock_data_set():
    def table(images, **columns):
        image = [{"bytes": bytes([value]), "path": None} for value in images]
        features = datasets.Features(
            {"image": datasets.Image(), **{name: datasets.Value("int64") for name in columns}}
        )
        return datasets.Dataset.from_dict({"image": image, **columns}, features=features)

    data = table([1, 2, 3], label=[0, 1, 0])
    digest = content_digest(data)
    assert len(digest) == 16
    assert content_digest(data.with_transform(lambda rows: {"label": [9]})) == digest
    assert content_digest(table([1, 2, 3, 4], label=[0, 1, 0, 0]).select([0, 1, 2])) == digest
    others = [table([1, 2, 4], label=[0, 1, 0]), table([1, 2, 3], label=[0, 1, 1]), table([1, 2, 3], target=[0, 1, 0])]
    others += [data.select([0, 1]), data.select([1, 0, 2]), data.select([])]
    assert len({digest, *map(content_digest, others)}) == 7
    assert content_digest([{"pixel_values": torch.zeros(3, 8, 8)}]) is None


def test_the_same_run_is_not_started_over_by_accident(tiny, tmp_path):
    build(tiny, tmp_path).train()
    with pytest.raises(RunFolderError, match="already holds this run up to checkpoint-4: continue it with resume"):
        build(tiny, tmp_path).train()
    build(tiny, tmp_path, overwrite_run=True, max_steps=2).train()
    assert folders(tmp_path) == ["checkpoint-2"]


def test_a_run_that_left_no_checkpoint_may_start_again(tiny, tmp_path):
    build(tiny, tmp_path, save_strategy="no").train()
    build(tiny, tmp_path, save_strategy="no").train()


def test_unknown_checkpoints_are_not_overwritten(tiny, tmp_path):
    make_checkpoint(tmp_path, 2)
    with pytest.raises(RunFolderError, match="holds checkpoints of an unknown run: choose another output_dir"):
        build(tiny, tmp_path).train()


def test_overwriting_and_resuming_contradict_each_other(tiny, tmp_path):
    with pytest.raises(RunFolderError, match="contradict each other"):
        build(tiny, tmp_path, overwrite_run=True).train(resume_from_checkpoint=True)


def test_resuming_needs_a_whole_checkpoint(tiny, tmp_path):
    with pytest.raises(RunFolderError, match="no whole checkpoint"):
        build(tiny, tmp_path / "a").train(resume_from_checkpoint=True)
    build(tiny, tmp_path / "b").train()
    torn = tmp_path / "b" / "checkpoint-4"
    (torn / "optimizer.pt").unlink()
    with pytest.raises(RunFolderError, match=r"absent, changed, added: optimizer\.pt"):
        build(tiny, tmp_path / "b").train(resume_from_checkpoint=str(torn))
    build(tiny, tmp_path / "c", save_only_model=True).train()
    with pytest.raises(RunFolderError, match="holds the model only"):
        build(tiny, tmp_path / "c").train(resume_from_checkpoint=True)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 200_000, "\xff"])
def test_a_damaged_record_of_the_run_is_named(tiny, tmp_path, content):
    build(tiny, tmp_path).train()
    record = tmp_path / "antehoc_run.json"
    record.write_text(content, encoding="latin-1")
    with pytest.raises(RunFolderError, match=r"antehoc_run\.json, which says .* is damaged: put it back, or"):
        build(tiny, tmp_path, max_steps=6).train(resume_from_checkpoint=True)
    record.unlink()
    build(tiny, tmp_path, max_steps=6).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("there", ["another host's", "garbage", "pipe", "folder", "dangling link"])
def test_what_lies_in_the_place_of_the_lock_shuts_out_nobody(tiny, tmp_path, there):
    lock = tmp_path / ".antehoc_run.lock"
    if there == "pipe":
        os.mkfifo(lock)
    elif there == "folder":
        lock.mkdir()
    elif there == "dangling link":
        lock.symlink_to(tmp_path / "nowhere" / "lock")
    else:
        lock.write_bytes(b'{"host": "other", "process": 1, "since": "2020"}' if there != "garbage" else b"\xff\x00")
    build(tiny, tmp_path).train()
    assert last_whole_checkpoint(tmp_path) is not None


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.geteuid() != 0, reason="only root can be another user")
def test_a_lock_of_another_user_shuts_out():
    with tempfile.TemporaryDirectory() as name:  # tmp_path lies where nobody may look
        folder = Path(name)
        folder.chmod(0o777)
        (folder / ".antehoc_run.lock").touch(0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(RunFolderError, match=r"another user.*lock cannot be opened"), run_lock(folder):
                pass
        finally:
            os.seteuid(0)


def test_a_run_of_an_older_version_goes_on(tiny, tmp_path):
    """One that did not know some of today's options, and so left them where their defaults are."""
    build(tiny, tmp_path).train()
    record = tmp_path / "antehoc_run.json"
    known = json.loads(record.read_text())
    for name in ("config.map_head", "config.tap_channels", "interpretation_interval"):
        known.pop(name, None)
    record.write_text(json.dumps(known))
    build(tiny, tmp_path, max_steps=5).train(resume_from_checkpoint=True)
    assert "interpretation_interval" in json.loads(record.read_text())
    record.write_text(json.dumps(known))
    with pytest.raises(RunFolderError, match=r"another run \(interpretation_interval: null there, 2 here"):
        build(tiny, tmp_path, max_steps=6, interpretation_interval=2).train(resume_from_checkpoint=True)


def test_a_folder_that_cannot_be_written_to_is_named(tiny, tmp_path):
    trainer = build(tiny, tmp_path / "run")
    (tmp_path / "run" / "antehoc_run.tmp").mkdir()  # in the way of the file; root may write anywhere else
    with pytest.raises(RunFolderError, match=r"cannot be written to .*choose another output_dir"):
        trainer.train()


# -- killed ---------------------------------------------------------------------------------------------------------


KILLS = int(os.environ.get("ANTEHOC_KILLS", "50"))


def run_quietly(program, spec):
    sys.argv = [program, spec]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    runpy.run_path(program, run_name="__main__")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_killed_run_resumes_to_the_same_end(tiny, tmp_path):
    """SIGKILL at random moments, again and again; weights and log are those of an uninterrupted run."""
    moments = random.Random(0)
    forks = multiprocessing.get_context("forkserver")  # of a process that has imported torch: each kill takes seconds
    forks.set_forkserver_preload(["antehoc_hf.training.trainer", "antehoc_hf.modeling.landmark_detection"])
    options = {**SAVING, "save_steps": 1, "max_steps": 40, "gradient_accumulation_steps": 2, "logging_steps": 3}

    def start(name, limit):
        args = {"output_dir": str(tmp_path / name), **options, "save_total_limit": limit}
        spec = {"args": args, "data": {"length": 22, "augment": True}, "dump": str(tmp_path / f"{name}.pt")}
        spec["resume"] = last_whole_checkpoint(tmp_path / name) is not None
        (tmp_path / f"{name}.json").write_text(json.dumps(spec))
        process = forks.Process(target=run_quietly, args=(tiny.__file__, str(tmp_path / f"{name}.json")))
        process.start()
        return process

    def ended(name):
        found = torch.load(tmp_path / f"{name}.pt")
        timed = ("runtime", "per_second")
        log = [{key: value for key, value in row.items() if not key.endswith(timed)} for row in found["log"]]
        return found["state"], log

    start("imports", 1).join()  # the server imports for the first one, which is not to count
    begin = time.time()
    straight = start("straight", 1)
    straight.join()
    assert straight.exitcode == 0
    duration = time.time() - begin
    state, log = ended("straight")
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        name = f"killed-{runs}"
        run = tmp_path / name
        while not (tmp_path / f"{name}.pt").exists():
            process = start(name, 1 + runs % 2)
            if kills < KILLS:
                while process.is_alive() and not (run / "antehoc_run.json").exists():
                    time.sleep(0.01)
                process.join(moments.uniform(0, duration))
                kills += process.is_alive()
                process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            assert [path for path in run.glob("checkpoint-*") if damaged_files(path)] == []
        killed, killed_log = ended(name)
        assert all(torch.equal(value, killed[key]) for key, value in state.items())
        assert killed_log == log
    print(f"{kills} kills in {runs} runs, all with the same end")


# -- damaged -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", ["flipped bytes", "swapped files", "edited step", "empty list", "nested list", "edited list", "renamed"]
)
def test_damage_that_keeps_the_size_is_noticed_and_named(tmp_path, caplog, damage):
    good, bad = make_checkpoint(tmp_path, 2), make_checkpoint(tmp_path, 10)
    (good / "weights").write_bytes(b"g" * 100)
    seal(good, 2)
    state, marker = bad / "deep" / "state", bad / "checkpoint_complete.json"
    named = "weights"
    if damage == "flipped bytes":
        (bad / "weights").write_bytes(b"w" * 50 + b"W" + b"w" * 49)
    elif damage == "swapped files":
        shutil.copy(good / "weights", bad / "weights")
    elif damage == "edited step":
        state.write_bytes(b"t" * 10)
        named = "deep/state"
    else:
        named = "checkpoint_complete.json"
        content = json.loads(marker.read_text())
        if damage == "empty list":
            marker.write_text("{}")
        elif damage == "nested list":
            marker.write_text("[" * 200_000)
        elif damage == "edited list":
            marker.write_text(json.dumps({**content, "step": 12}))
        else:
            bad = bad.rename(tmp_path / "checkpoint-12")
    with caplog.at_level(logging.WARNING, logger="antehoc_hf"):
        assert last_whole_checkpoint(tmp_path) == str(good)
    assert any(f"{bad} (absent, changed, added: {named})" in record.getMessage() for record in caplog.records)
