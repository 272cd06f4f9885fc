"""A full disk ends in one sentence, and costs no checkpoint."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from antehoc_hf.training.checkpoints import last_whole_checkpoint
from antehoc_hf.training.trainer import AnteHocTrainer

SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def folders(path):
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


class FullDiskProcessor:
    """Saved beside the model; its file does not fit on the disk from the second time on."""

    model_input_names = ("pixel_values",)

    def __init__(self, error):
        self.error, self.saved = error, 0

    def save_pretrained(self, folder):
        self.saved += 1
        if self.saved > 1:
            raise self.error


def test_a_full_disk_ends_in_one_sentence_and_costs_no_checkpoint(tiny, tmp_path):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    trainer = AnteHocTrainer(
        model=tiny.build_model(),
        args=tiny.build_args(tmp_path, **SAVING, save_total_limit=1),
        train_dataset=tiny.Images(22),
        processing_class=FullDiskProcessor(error),
    )
    with pytest.raises(
        OSError, match=r"no space left for checkpoint-4 in .*then resume from .*checkpoint-2"
    ) as caught:
        trainer.train()
    assert caught.value.errno == errno.ENOSPC
    assert folders(tmp_path) == ["checkpoint-2"]
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_other_failures_while_saving_are_not_called_a_full_disk(tiny, tmp_path):
    trainer = AnteHocTrainer(
        model=tiny.build_model(),
        args=tiny.build_args(tmp_path, **SAVING),
        train_dataset=tiny.Images(22),
        processing_class=FullDiskProcessor(PermissionError(errno.EACCES, "not yours")),
    )
    with pytest.raises(PermissionError, match="not yours"):
        trainer.train()


def limit_file_size(size):
    """In the child: no file may grow beyond `size` bytes, and a write that would fails instead of killing."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
@pytest.mark.parametrize("size", [100_000, 2_000_000])
def test_a_write_that_really_fails(tiny, tmp_path, size):
    """The weights (1.6 MB, by safetensors) and the optimizer's state (3.3 MB, by torch) meet a limit of the system."""
    spec = {"args": {"output_dir": str(tmp_path / "run"), **SAVING}, "data": {"length": 22}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, tiny.__file__, str(tmp_path / "spec.json")],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: limit_file_size(size),
        check=False,
    )
    assert done.returncode == 1
    assert "There is no space left for checkpoint-2 in" in done.stderr.splitlines()[-1]
    assert folders(tmp_path / "run") == []
