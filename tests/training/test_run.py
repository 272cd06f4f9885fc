"""Whole runs through the command line: what the folder holds, and how mistakes end."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers import write_colours
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

from antehoc_hf.cli import main
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.runs.train import follow_size, train
from antehoc_hf.training.tasks import image_classification


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with class folders of plain colours."""
    return write_colours(tmp_path_factory.mktemp("images"))


def flags(images: Path, folder: Path, *more: str) -> list[str]:
    return [
        "--dataset_name", str(images), "--backbone", "test_resnet", "--image_size", "64", "--output_dir", str(folder),
        "--num_attention_maps", "3", "--num_train_epochs", "2", "--per_device_train_batch_size", "8",
        "--validation_fraction", "0.25", "--learning_rate", "0.01", "--use_cpu", "--report_to", "none",
        "--disable_tqdm", "true", "--insertion_deletion_images", "0", "--panel_images", "2", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "colours"
    return folder, train(flags(images, folder))


def test_the_folder_loads_by_the_auto_classes_and_is_what_was_measured(
    finished: tuple[Path, dict[str, Any]], images: Path
) -> None:
    folder, results = finished
    model, processor = (
        AutoModelForImageClassification.from_pretrained(folder),
        AutoImageProcessor.from_pretrained(folder),
    )
    assert model.config.id2label == {0: "blue", 1: "green", 2: "red"}
    files = sorted((images / "test").glob("*/*.png"))
    with torch.no_grad():
        outputs = model.eval()(**processor([Image.open(path) for path in files], return_tensors="pt"))
        bare = AutoModel.from_pretrained(folder).eval()(**processor([Image.open(files[0])], return_tensors="pt"))
    said = [model.config.id2label[index] for index in outputs.logits.argmax(1).tolist()]
    right = [name == path.parent.name for name, path in zip(said, files, strict=True)]
    assert results["metrics"]["accuracy"] == pytest.approx(sum(right) / len(right))
    assert results["metrics"]["map_mean"] == pytest.approx(float(outputs.interpretation_map.mean()), abs=1e-5)
    torch.testing.assert_close(bare.interpretation_map, outputs.interpretation_map[:1])


def test_the_folder_holds_results_figure_and_panels(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, results = finished
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results, default=str))
    assert results["evaluated_on"] == "test"
    assert results["evaluated_images"] == 12
    assert results["data"]["images"] == {"train": 18, "validation": 6, "test": 12}
    assert results["training"]["steps"] == 6  # 18 images in batches of 8, twice
    assert {"loss", "interpretation_loss", "map_mean", "images_per_second"} <= set(results["training"]["last_logged"])
    rows = {row["name"]: row["scores"] for row in results["maps"]["rows"]}
    assert {"antehoc", "random", "center"} <= set(rows)
    assert {"drop_cond", "inc_cond", "win", "map_mean"} <= set(rows["antehoc"])
    with Image.open(folder / "predictions.png") as figure:
        assert figure.width > 300
    # 18 images in batches of 8 are 3 steps an epoch; the last evaluation draws nothing twice.
    assert [path.name for path in sorted((folder / "panels").iterdir())] == ["step-000003.png", "step-000006.png"]
    assert (folder / "checkpoint-6" / "model.safetensors").is_file()
    assert not (folder / "_partial").exists()


def test_a_folder_that_holds_a_run_is_refused_and_goes_on_when_resumed(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, quick = tmp_path / "run", ("--map_eval_samples", "0", "--panel_images", "0")
    assert main(["train", *flags(images, folder, *quick, "--num_train_epochs", "1")]) == 0
    assert main(["train", *flags(images, folder, *quick)]) == 2
    announced, complaint = capsys.readouterr()
    assert "That is 3 steps: if too little is learned, lower --per_device_train_batch_size (now 8)." in announced
    assert "already holds this run up to checkpoint-3" in complaint
    assert "Traceback" not in complaint
    assert main(["train", *flags(images, folder, *quick, "--resume_from_checkpoint", "last")]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["training"]["steps"] == 6
    assert results["maps"] is None
    assert not (folder / "panels").exists()


def test_a_finished_run_resumed_leaves_the_same_model(
    finished: tuple[Path, dict[str, Any]], images: Path, tmp_path: Path
) -> None:
    """With what was measured on augmented images, whatever random numbers the training itself would have drawn."""
    folder = shutil.copytree(finished[0], tmp_path / "again")
    files = ("model.safetensors", "config.json", "preprocessor_config.json", "familiarity.safetensors")
    for name in files:
        (folder / name).unlink()  # killed between its last checkpoint and its end
    results = train(flags(images, folder, "--resume_from_checkpoint", "true"))
    assert results["metrics"] == finished[1]["metrics"]
    for name in files:
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes(), name


def test_results_are_those_of_the_validation_split_if_there_is_no_test_split(images: Path, tmp_path: Path) -> None:
    more = ("--map_eval_samples", "0", "--max_steps", "1", "--panel_steps", "1", "--image_size", "64", "96")
    results = train(flags(images / "train", tmp_path / "run", *more))
    assert results["evaluated_on"] == "validation"
    assert results["evaluated_images"] == 6
    assert results["model"]["image_size"] == [64, 96]
    assert (tmp_path / "run" / "panels" / "step-000001.png").is_file()


def test_a_small_data_set_is_seen_more_often_in_smaller_batches(tmp_path: Path) -> None:
    def followed(images: int, least_steps: int) -> tuple[int, float]:
        args = AnteHocTrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=64, num_train_epochs=10, use_cpu=True
        )
        follow_size(args, images, least_steps)
        return args.per_device_train_batch_size, args.num_train_epochs

    assert followed(5000, 400) == (64, 10)  # 79 steps an epoch
    assert followed(1000, 400) == (16, 10)  # 63 steps an epoch; 32 would make 320 steps
    assert followed(160, 400) == (8, 20)  # 20 steps an epoch
    assert followed(5, 400) == (8, 400)
    assert followed(160, 0) == (64, 10)


def test_a_network_that_guesses_is_said_to_explain_nothing(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--map_eval_samples", "0", "--panel_images", "0", "--max_steps", "1", "--learning_rate", "0")
    results = train(flags(images, tmp_path / "run", *quick))
    assert results["metrics"]["accuracy"] == pytest.approx(1 / 3)  # one answer for every image
    sentence = "Close to chance (33% of 12 images right, guessing 33%): these maps explain nothing."
    assert sentence in capsys.readouterr().out
    assert "these maps explain nothing" in (tmp_path / "run" / "README.md").read_text()
    again = ["evaluate", str(tmp_path / "run"), "--dataset_name", str(images), "-o", str(tmp_path / "again")]
    assert main([*again, "--map_eval_samples", "2", "--insertion_deletion_images", "0"]) == 0
    assert json.loads((tmp_path / "again" / "results.json").read_text())["verdict"]["sentence"] == sentence


def plain_flags(images: Path, folder: Path, *more: str) -> list[str]:
    """The same run for the plain network."""
    words = flags(images, folder, *more)
    for name in ("--num_attention_maps", "--insertion_deletion_images", "--panel_images"):
        del words[words.index(name) : words.index(name) + 2]
    return [*words, "--model_type", "plain"]


@pytest.fixture(scope="module")
def plain(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("plain") / "colours"
    return folder, train(plain_flags(images, folder))


def test_the_plain_network_is_compared_if_it_was_trained_alike(
    images: Path, plain: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--plain_backbone", str(plain[0]), "--map_eval_samples", "0", "--panel_images", "0")
    results = train(flags(images, tmp_path / "run", *more))
    assert results["plain_backbone"]["metrics"] == plain[1]["metrics"]
    assert results["plain_backbone"]["evaluated_images"] == 12
    # As the two train: to the bit.
    assert results["metrics"]["accuracy"] == plain[1]["metrics"]["accuracy"]
    share = results["metrics"]["accuracy"]
    assert f"accuracy: {share:.4g} (the plain backbone: {share:.4g})" in capsys.readouterr().out
    row = f"| accuracy ↑ | {100 * share:.2f} % | {100 * share:.2f} % |"
    assert row in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--seed", "7"], "is not like this one (seed: 42 there, 7 here)"),
        (["--learning_rate", "0.02"], "(learning_rate: 0.01 there, 0.02 here)"),
        (["--max_train_samples", "9"], 'images: {"train": 18,'),
        (["--max_eval_samples", "6"], "evaluated_images: 12 there, 6 here"),
        (["--split_seed", "1"], "(content: "),
        (["--crop_pct", "0.5"], "(crop_pct: null there, 0.5 here)"),
    ],
)
def test_a_plain_network_trained_otherwise_is_refused(
    more: list[str],
    sentence: str,
    images: Path,
    plain: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = flags(images, tmp_path / "run", "--plain_backbone", str(plain[0]), *more)
    assert main(["train", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_folder_without_a_plain_run_is_refused(
    images: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "results.json").write_text('{"model": 1}')
    for folder, sentence in (
        (finished[0], "a run of AnteHocForImageClassification, which is not the plain network"),
        (tmp_path / "torn", "results.json is damaged"),
        (tmp_path / "nowhere", "holds no results.json"),
    ):
        assert main(["train", *flags(images, tmp_path / "run", "--plain_backbone", str(folder))]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["train", *plain_flags(images, tmp_path / "run", "--plain_backbone", str(tmp_path))]) == 2
    assert "plain_backbone is about maps or the second pass" in capsys.readouterr().err


def test_the_card_of_a_map_for_each_class_tells_how_it_was_learned(images: Path, tmp_path: Path) -> None:
    more = ("--map_eval_samples", "0", "--max_steps", "1", "--panel_images", "0", "--map_head", "contributions")
    train(flags(images, tmp_path / "run", *more, "--coalitions_per_image", "2"))
    card = (tmp_path / "run" / "README.md").read_text()
    assert "There is a map for each class." in card
    for line in ("coalitions per image | `2`", "coalition sampling | `contiguous`"):
        assert f"| {line} |" in card
    assert "tv weight" not in card  # of the other kind of map


@pytest.mark.parametrize("labelled", [True, False])
def test_a_finished_network_keeps_its_head_and_its_classes(
    images: Path, tmp_path: Path, labelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    network, file = timm.create_model("test_resnet", num_classes=5), tmp_path / "five.safetensors"
    save_file(network.state_dict(), file)
    for number, path in enumerate(sorted((images / "train").glob("*/*.png"))):
        (tmp_path / "flat").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "flat" / f"{number}.png")
    more = ("--max_steps", "2", "--logging_steps", "1", "--train_task", "false", "--pretrained_file", str(file))
    results = train(flags(images if labelled else tmp_path / "flat", tmp_path / "run", *more))
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert model.config.id2label == {index: f"LABEL_{index}" for index in range(5)}
    assert torch.equal(model.backbone.get_classifier().weight, network.get_classifier().weight)
    assert "do not say what their 5 classes are called" in caplog.text
    assert "no accuracy is measured" in caplog.text
    assert set(results["metrics"]) == {"map_mean", "degenerate_share"}
    logged = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in logged if "interpretation_loss" in entry]
    assert len(steps) == 2
    assert not any({"loss", "grad_norm", "learning_rate"} & entry.keys() for entry in steps)


def test_the_map_of_a_finished_regression_is_taught_by_what_teaches_such_maps(images: Path, tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet", num_classes=1).state_dict(), tmp_path / "one.safetensors")
    (tmp_path / "flat").mkdir()
    for path in (images / "train" / "red").iterdir():
        shutil.copy(path, tmp_path / "flat")
    finished = ("--train_task", "false", "--pretrained_file", str(tmp_path / "one.safetensors"), "--max_steps", "1")
    results = train(flags(tmp_path / "flat", tmp_path / "run", *finished, "--problem_type", "regression"))
    assert set(results["metrics"]) == {"map_mean", "degenerate_share"}
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert (model.config.problem_type, model.config.map_head.kind) == ("regression", "contributions")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((), "without weights it is random: add --pretrained or --pretrained_file FILE."),
        (("--task", "landmark-detection"), "the head of landmark-detection begins at random and has to be trained"),
    ],
)
def test_only_a_finished_network_is_explained_as_it_is(images: Path, tmp_path: Path, more, sentence, capsys) -> None:
    assert main(["train", *flags(images, tmp_path / "run", "--train_task", "false", *more)]) == 2
    assert sentence in capsys.readouterr().err


def test_regression_is_trained_and_measured_by_its_errors(images: Path, tmp_path: Path) -> None:
    lines = [f'{{"file_name": "{path.name}", "label": {index / 8}}}' for index, path in enumerate(
        sorted((images / "train" / "red").iterdir())
    )]  # fmt: skip
    folder = tmp_path / "numbers" / "train"
    folder.mkdir(parents=True)
    for path in (images / "train" / "red").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    results = train(flags(folder.parent, tmp_path / "run", "--max_steps", "1"))
    assert results["data"]["problem_type"] == "regression"
    assert results["metrics"]["mse"] > 0
    assert results["maps"] is None
    assert not (tmp_path / "run" / "predictions.png").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--dataset_name", "/nowhere/at/all"], "There is no folder '/nowhere/at/all'"),
        # Before the data, which may take long to come.
        (["--backbone", "resnet5O", "--dataset_name", "/nowhere"], "no architecture named 'resnet5O'. Did you mean"),
        (["--backbone", "qwen3_vit_88m_enc", "--dataset_name", "/nowhere"], "is an encoder without a classifier"),
        (
            ["--backbone", "resnet18", "--image_size", "16", "--dataset_name", "/nowhere"],
            "is too small for the backbone",
        ),
        (["--augmentation", "mixup"], "augmentation='mixup' is unknown"),
        (["--mask_column", "masks"], "mask_column='masks' is not a column"),
        (["--citation", "/nowhere/paper.bib"], "--citation /nowhere/paper.bib cannot be read as text"),
        (["--resume_from_checkpoint", "true"], "no whole checkpoint"),
        (["--load_best_model_at_end", "true", "--validation_fraction", "0"], "needs validation images"),
    ],
)
def test_mistakes_end_in_one_sentence_before_training(
    more: list[str], sentence: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *flags(images, tmp_path / "run", *more)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("antehoc train: ")
    assert sentence in error
    assert not list(tmp_path.glob("run/model.safetensors"))


def test_an_unknown_backbone_of_a_baseline_is_found_before_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags_of_cbah = ["--model_type", "cbah", "--backbone", "resnet5O", "--dataset_name", "/nowhere"]
    assert main(["train", *flags_of_cbah, "--output_dir", str(tmp_path)]) == 2
    assert "no architecture named 'resnet5O'. Did you mean" in capsys.readouterr().err


def test_an_output_folder_that_is_a_file_is_refused(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("not a folder")
    assert main(["train", *flags(images, tmp_path / "run")]) == 2
    assert str(tmp_path / "run") in capsys.readouterr().err


def program(arguments: list[str], **environment: str) -> Any:
    """`python training/run.py` in a process of its own, as from a checkout."""
    import os
    import subprocess
    import sys

    script = Path(__file__).parents[2] / "training" / "run.py"
    known = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_ENDPOINT")}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**known, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_found_before_training(images: Path, tmp_path: Path) -> None:
    ended = program(
        flags(images, tmp_path / "run", "--push_to_hub"), HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_none"
    )
    assert ended.returncode == 2
    assert "The Hub will not take the model" in ended.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "run" / "checkpoint-1").exists()


@pytest.mark.parametrize(
    ("problem_type", "logits", "labels", "texts", "right"),
    [
        (None, [[0.0, 9.0], [0.0, 9.0]], [1, 0], ["dog  100 %", "dog  100 %"], [True, False]),
        ("multi_label_classification", [[1.0, 1.0], [-1.0, -1.0]], [[1.0, 1.0], [1.0, 0.0]],
         ["cat, dog", "none"], [True, False]),
        ("regression", [[0.5], [2.0]], [0.25, 1.0], ["0.5", "2"], [None, None]),
    ],
)  # fmt: skip
def test_captions_of_panels(
    problem_type: str | None, logits: list[Any], labels: list[Any], texts: list[str], right: list[Any]
) -> None:
    class Config:
        id2label = {0: "cat", 1: "dog"}  # noqa: RUF012

    Config.problem_type = problem_type  # type: ignore[attr-defined]
    made = image_classification.class_captions(torch.tensor(logits), torch.tensor(labels), Config)
    assert [caption.text for caption in made] == texts
    assert [caption.right for caption in made] == right
