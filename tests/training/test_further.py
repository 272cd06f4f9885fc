"""`antehoc train --model_name_or_path`: the map of a saved model learns on, and nothing else of it changes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from antehoc_hf import AnteHocForImageClassification
from antehoc_hf.cli import main

SCENES = '{"image_size": 32, "train": 16, "validation": 4, "test": 4}'
COMMON = ["train", "--dataset_name", "shapes", "--dataset_options", SCENES, "--max_steps", "2", "--report_to", "none"]
COMMON += [
    "--map_eval_samples",
    "0",
    "--panel_images",
    "0",
    "--per_device_train_batch_size",
    "8",
    "--logging_steps",
    "1",
]
NEW = ["--backbone", "test_resnet", "--image_size", "32", "--learning_rate", "0.01"]
TASKS = {
    "image-classification": [],
    "landmark-detection": [],
    "image-captioning": ["--map_head", "contributions", "--min_word_count", "1"],
}


SLOW = {"image-captioning": pytest.mark.slow}


@pytest.fixture(scope="module", params=[pytest.param(task, marks=SLOW.get(task, ())) for task in TASKS])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A task and a trained model of it, with an image processor of its own."""
    task, folder = request.param, tmp_path_factory.mktemp("further") / "first"
    new = [*NEW, *TASKS[task], "--crop_pct", "0.5"]
    assert main([*COMMON, "--task", task, *new, "-o", str(folder)]) == 0
    return task, folder


def test_only_the_map_learns_on(saved: tuple[str, Path], tmp_path: Path) -> None:
    task, first = saved
    further = ["--model_name_or_path", str(first), "--train_task", "false", "--interpretation_learning_rate", "0.01"]
    assert main([*COMMON, "--task", task, *further, "-o", str(tmp_path / "second")]) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (first, tmp_path / "second"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("map_head.") and name.endswith("weight") for name in changed)
    assert all(name.startswith("map_head.") for name in changed)
    for name in ("config.json", "preprocessor_config.json"):
        one, other = (json.loads((folder / name).read_text()) for folder in (first, tmp_path / "second"))
        assert one == other


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([], "a model whose map learns on: add --train_task false"),
        (
            ["--train_task", "false", "--backbone", "resnet18"],
            "--backbone is about a new model, and {} is made already",
        ),
        (["--train_task", "false", "--pretrained"], "--pretrained is about a new model, and {} is made already"),
        (["--train_task", "false", "--contribution_grid", "4"], "--contribution_grid is about a new model"),
        (["--train_task", "false", "--task", "landmark-detection"], "'antehoc', and --task landmark-detection needs"),
        (["--train_task", "false"], "The map of {} is in closed form: antehoc attach fits it"),
        (["--model_type", "plain"], "--model_name_or_path is for maps that learn on, and plain has none"),
        (["--train_task", "false", "-o", "{}"], "{} would be overwritten"),
        (["--train_task", "false", "--model_name_or_path", "{}/none"], "There is no folder '{}/none'"),
    ],
)
def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], sentence: str) -> None:
    model, head = tmp_path / "model", {"kind": "contributions", "closed_form": True}
    AnteHocForImageClassification.from_backbone("test_resnet", num_labels=3, map_head=head).save_pretrained(model)
    words = [*COMMON, "--model_name_or_path", str(model), "-o", str(tmp_path / "out")]
    assert main([*words, *(word.replace("{}", str(model)) for word in more)]) == 2
    assert sentence.replace("{}", str(model)) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert (model / "model.safetensors").exists()
