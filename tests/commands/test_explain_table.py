"""`antehoc explain --output_format parquet`: each image once, however many processes, however often interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    model = AnteHocForImageClassification.from_backbone("test_resnet", id2label={0: "cat", 1: "dog"}, image_size=48)
    model.save_pretrained(folder)
    AnteHocImageProcessor.from_backbone("test_resnet", image_size=48).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    for index in range(11):
        Image.fromarray(noise.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / f"{index:02d}.png")
    return folder


def _arguments(trained: Path, pictures: Path, out: Path, *more: str) -> list[str]:
    table = ["--output_format", "parquet", "--part_size", "4", "--batch_size", "3"]
    return ["explain", str(pictures), "--model", str(trained), *table, "-o", str(out), *more]


def _rows(out: Path) -> datasets.Dataset:
    return datasets.load_dataset("parquet", data_files=str(out / "*.parquet"), split="train", cache_dir=str(out / "c"))


def test_the_table_holds_what_the_files_hold(trained: Path, pictures: Path, tmp_path: Path) -> None:
    assert main(_arguments(trained, pictures, tmp_path / "table", "--workers", "2")) == 0
    plain = ["explain", str(pictures), "--model", str(trained), "--figures", "false", "-o", str(tmp_path / "files")]
    assert main(plain) == 0
    entries = json.loads((tmp_path / "files" / "explanations.json").read_text())["images"]
    rows = _rows(tmp_path / "table")
    assert rows["row"][:] == list(range(11))
    assert rows["file"][:] == [entry["file"] for entry in entries]
    assert rows["prediction"][:] == [entry["prediction"] for entry in entries]
    for row, entry in zip(rows.with_format("numpy"), entries, strict=True):
        with np.load(tmp_path / "files" / "maps" / f"{entry['name']}.npz") as maps:
            for name in ("antehoc", "grad-cam"):
                assert row[name].shape == (48, 48)
                assert np.abs(row[name] - maps[name]).max() < 1e-3
    assert not list((tmp_path / "table").glob(".part*"))


def test_an_interrupted_run_makes_what_is_missing(
    trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments(trained, pictures, tmp_path)
    assert main(arguments) == 0
    parts = sorted(tmp_path.glob("part-*.parquet"))
    assert [part.name for part in parts] == [f"part-{index:05d}-of-00003.parquet" for index in range(3)]
    kept = parts[0].stat().st_mtime_ns
    parts[1].unlink()
    assert main(arguments) == 0
    assert "2 of 3 parts are there already" in capsys.readouterr().out
    assert parts[0].stat().st_mtime_ns == kept
    assert _rows(tmp_path)["row"][:] == list(range(11))
    assert main([*arguments, "--target", "1"]) == 2
    assert "parts of another run (target differ)" in capsys.readouterr().err
    assert main([*arguments, "--target", "1", "--overwrite"]) == 0


@pytest.mark.slow
def test_two_processes_share_the_parts_and_a_killed_one_is_resumed(
    trained: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "antehoc_hf", *_arguments(trained, pictures, out, "--explainers", "antehoc")]
    killed = subprocess.Popen(command, env={**os.environ, "RANK": "0", "WORLD_SIZE": "2"})
    while not (out / "run.json").exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--no-python", *command]
    subprocess.run(launch, check=True, capture_output=True, timeout=300)
    rows = _rows(out)
    assert rows["row"][:] == list(range(11))
    assert rows.features["antehoc"].shape == (48, 48)


def test_a_data_set_and_images_that_cannot_be_read(
    trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [{"bytes": path.read_bytes(), "path": None} for path in sorted(pictures.iterdir())[:3]]
    files[1] = {"bytes": b"\xff\xd8\xff nothing more", "path": None}
    images = datasets.Dataset.from_dict({"image": files}, features=datasets.Features({"image": datasets.Image()}))
    datasets.DatasetDict({"test": images}).save_to_disk(str(tmp_path / "data"))
    arguments = ["explain", "--model", str(trained), "--dataset_name", str(tmp_path / "data"), "-o", str(tmp_path)]
    assert main(arguments) == 2
    assert "add --output_format parquet" in capsys.readouterr().err
    arguments += ["--output_format", "parquet", "--part_size", "1"]  # one part holds the bad image alone
    assert main([*arguments, "--split", "val"]) == 2
    assert "has no split 'val': choose one of test" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "--on_bad_image skip" in capsys.readouterr().err
    assert main([*arguments, "--on_bad_image", "skip"]) == 0
    rows = _rows(tmp_path)
    assert [error is None for error in rows["error"][:]] == [True, False, True]
    assert [prediction is None for prediction in rows["prediction"][:]] == [False, True, False]
    assert [map_ is None for map_ in rows["antehoc"][:]] == [False, True, False]


def test_whose_share_it_is(
    trained: Path, pictures: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(_arguments(trained, pictures, tmp_path)) == 2
    assert "RANK=2 and WORLD_SIZE=2 of the environment" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert main(_arguments(trained, pictures, tmp_path, "--overwrite")) == 2
    assert "Several processes cannot replace" in capsys.readouterr().err
