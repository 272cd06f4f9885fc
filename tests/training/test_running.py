"""A run of a process of its own: its folder is in use, and it can be asked to stop."""

import multiprocessing
import os
import re
import signal
import sys
import time

import pytest
import torch

from antehoc_hf.cli import main
from antehoc_hf.training.checkpoints import RunFolderError, last_whole_checkpoint
from antehoc_hf.training.run_flow import HANG_UP
from antehoc_hf.training.run_lock import run_lock

SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def build(tiny, tmp_path, **options):
    data = tiny.Images(22, augment=True)
    return tiny.build_trainer(tiny.build_model(), tmp_path, data, **{**SAVING, **options})


def wait_for(condition, process, seconds=120):
    end = time.time() + seconds
    while not condition():
        assert process.is_alive()
        assert time.time() < end
        time.sleep(0.02)


@pytest.fixture
def background(tiny, tmp_path):
    """Starts a long run of its own process, which this one's imports spare; it is killed at the end of the test."""
    processes = []

    def train(spec):
        # What a shell starts in the background ignores Ctrl-C, and so would these.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in HANG_UP:  # and what nohup starts, this
            signal.signal(number, signal.SIG_DFL)
        with (tmp_path / "said").open("w") as sys.stderr:
            try:
                tiny.run(spec)
            except KeyboardInterrupt as stop:
                print(f"KeyboardInterrupt: {stop}", file=sys.stderr)
                sys.exit(1)

    def start(folder, **options):
        args = {"output_dir": str(folder), **SAVING, "max_steps": 100_000, "save_total_limit": 2, **options}
        spec = {"args": args, "data": {"length": 22, "augment": True}}
        processes.append(multiprocessing.get_context("fork").Process(target=train, args=(spec,)))
        processes[-1].start()
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.join()


def test_a_folder_in_use_is_refused_and_one_of_a_dead_run_is_not(tiny, tmp_path, background):
    run = tmp_path / "run"
    process = background(run)
    wait_for(lambda: last_whole_checkpoint(run) is not None, process)
    with pytest.raises(RunFolderError, match=rf"in use by process {process.pid} on .* since 20\d\d-.*: wait until"):
        build(tiny, run, max_steps=100_000).train(resume_from_checkpoint=True)
    process.kill()
    process.join()
    step = int(last_whole_checkpoint(run).rsplit("-", 1)[1])
    build(tiny, run, max_steps=step + 1).train(resume_from_checkpoint=True)
    assert not (run / ".antehoc_run.lock").exists()


def hold(folder, holds):
    with run_lock(folder):
        holds.set()
        time.sleep(600)


def test_two_commands_do_not_mix_their_results_in_one_folder(tmp_path, capsys):
    processes = multiprocessing.get_context("fork")
    holds = processes.Event()
    holder = processes.Process(target=hold, args=(tmp_path, holds))
    holder.start()
    try:
        assert holds.wait(60)
        command = ["explain", "--explainers", "antehoc", "--figures", "false", "-o", str(tmp_path)]
        assert main(command) == 2
        assert f"in use by process {holder.pid} on " in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == [".antehoc_run.lock"]
    finally:
        holder.kill()
        holder.join()
    assert main(command) == 0
    assert not (tmp_path / ".antehoc_run.lock").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, *HANG_UP], ids=lambda number: number.name)
def test_a_run_asked_to_stop_writes_a_checkpoint_and_says_so(tiny, tmp_path, background, number):
    run = tmp_path / "run"
    common = {"gradient_accumulation_steps": 2, "lr_scheduler_type": "constant"}
    said = tmp_path / "said"
    process = background(run, save_steps=50_000, disable_tqdm=False, **common)
    wait_for(lambda: said.exists() and re.search(r" [1-9]\d*/100000 ", said.read_text()), process)
    os.kill(process.pid, number)
    process.join(timeout=120)
    assert process.exitcode == 1
    last = last_whole_checkpoint(run)
    assert last is not None
    name = os.path.basename(last)
    step = int(name.rsplit("-", 1)[1])
    assert f"KeyboardInterrupt: interrupted after step {step}. It goes on from {name} with" in said.read_text()
    options = {**common, "max_steps": step + 3}
    resumed = build(tiny, run, **options)
    resumed.train(resume_from_checkpoint=True)
    straight = build(tiny, tmp_path / "straight", **options)
    straight.train()
    for key, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
