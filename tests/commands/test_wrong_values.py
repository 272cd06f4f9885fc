"""A wrong value of an option is said in one sentence, before any work."""

import json
from pathlib import Path

import pytest
from PIL import Image

from antehoc_hf.cli import main

TRAIN = ["train", "--dataset_name", "pets", "--backbone", "test_resnet", "--image_size", "64", "--max_steps", "1"]
EVALUATE = ["evaluate", "m", "--dataset_name", "shapes"]
REGIONS = ["regions", "a.png", "--model", "m"]
TABLE = ["explain", "--model", "someone/model", "--output_format", "parquet"]
ATTACH = ["attach", "resnet18", "--images", "pets", "-o", "out"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture, data of two classes, and a folder with a configuration alone: nothing here can be worked with."""
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "pets" / kind / f"{number}.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "m" / "none").mkdir(parents=True)
    (tmp_path / "m" / "config.json").write_text('{"model_type": "resnet", "id2label": {"0": "a"}}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([*TRAIN, "--learning_rate", "-1"], "learning_rate must be a number of at least 0, not -1.0."),
        ([*TRAIN, "--per_device_train_batch_size", "0"], "per_device_train_batch_size must be a whole number of at"),
        ([*TRAIN, "--max_steps", "-5"], "max_steps must be -1, for as many as the epochs have, or a whole number"),
        ([*TRAIN, "--train_sampling_strategy", "sorted"], "--train_sampling_strategy: invalid choice: 'sorted'"),
        ([*TRAIN, "--ddp_backend", "mpi2"], "--ddp_backend: invalid choice: 'mpi2' (choose from"),
        ([*TRAIN, "--lr_scheduler_type", "cosin"], "--lr_scheduler_type: invalid choice: 'cosin'"),
        ([*TRAIN, "--accelerator_config", "nope.json"], "accelerator_config='nope.json' cannot be read"),
        ([*TRAIN, "--output_dir", ""], "output_dir is empty"),
        ([*TRAIN, "--lr_scheduler_kwargs", "text"], 'lr_scheduler_kwargs must be a JSON object such as'),
        ([*TRAIN, "--lr_scheduler_kwargs", '{"nope": 1}'], "lr_scheduler_type cosine does not go with"),
        ([*TRAIN, "--lr_scheduler_type", "cosine_with_min_lr"], "lr_scheduler_type cosine_with_min_lr does not go"),
        ([*TRAIN, "--metric_for_best_model", "accurcy"], "metric_for_best_model='accurcy' is not a metric of this"),
        ([*TRAIN, "--load_best_model_at_end", "--save_strategy", "no"], "--load_best_model_at_end requires the"),
        ([*TRAIN, "--save_strategy", "best"], "save_strategy='best' needs to know by what: name it with metric_for"),
        ([*TRAIN, "--optim", "galore_adamw"], "optim='galore_adamw' cannot be had here: You need to install `galore"),
        ([*TRAIN, "--neftune_noise_alpha", "3"], "neftune_noise_alpha is for language models, and these models see"),
        ([*TRAIN, "--train_sampling_strategy", "group_by_length"], "train_sampling_strategy='group_by_length' is"),
        ([*TRAIN, "--use_liger_kernel", "true"], "use_liger_kernel is for language models, and these models see im"),
        ([*TRAIN, "--include_for_metrics", "nope"], "include_for_metrics='nope' is not one of inputs, loss."),
        ([*TRAIN, "--report_to", "wandbb"], "report_to='wandbb' is unknown, or its package is not installed:"),
        ([*TRAIN, "--torch_compile_backend", "nonsense"], "torch_compile_backend='nonsense' is not one of"),
        ([*TRAIN, "--torch_compile_mode", "nonsense"], "torch_compile_mode='nonsense' is not one of default,"),
        ([*TRAIN, "--save_total_limit", "-1"], "save_total_limit must be a whole number of at least 1, not -1."),
        ([*TRAIN, "--save_total_limit", "0"], "save_total_limit must be a whole number of at least 1, not 0."),
        ([*TRAIN, "--image_size", "100000"], "image_size=100000 makes 100000×100000 pixels, more than the"),
        ([*TRAIN, "--validation_fraction", "nan"], "validation_fraction must be 0 or lie between 0 and 1, not nan."),
        ([*TRAIN, "--max_train_samples", "-3"], "max_train_samples must be at least 1, not -3."),
        ([*TRAIN, "--dataset_options", '{"clases": 1}'], "dataset_options: 'clases' is not an option of load_dataset"),
        ([*TRAIN, "--dataset_config", "large"], "pets names no configurations: leave --dataset_config large out."),
        ([*TRAIN, "--pretrained", "--dataset_name", "nowhere/"], "There is no folder 'nowhere': check the path"),
        ([*TRAIN, "--pretrained", "--dataset_name", "m/none"], "There is no image and no table in 'm/none' that"),
        (["evaluate", "someone/model", "--dataset_name", "../nowhere"], "There is no folder '../nowhere': check the"),
        (["attach", "timm/resnet18", "--images", "a/b/c", "-o", "out"], "There is no folder 'a/b/c': check the path"),
        (["attach", "timm/resnet18", "--images", "m/none", "-o", "out"], "There is no image and no table in 'm/none'"),
        (["attach", "timm/resnet18", "--images", "pets", "-o", "out"], "There are 6 images in pets: a map needs at"),
        ([*TABLE, "--dataset_name", "~/nowhere/at/all"], "There is no folder "),
        ([*TRAIN, "--recipe", "nonexistent"], "There is no recipe 'nonexistent'"),
        ([*TRAIN, "--label_column", "lable"], "label_column='lable' is not a column of pets (columns: image,"),
        ([*TRAIN, "--output_dir", "pets"], "pets holds the images, and results would be among them: name another"),
        ([*ATTACH[:-1], "pets"], "pets holds the images, and results would be among them: name another"),
        (["evaluate", "m", "--dataset_name", "pets", "-o", "pets"], "pets holds the images, and results would be"),
        (["explain", "pets", "--model", "m", "-o", "pets"], "pets holds the images, and results would be among them"),
        ([*EVALUATE, "--workers", "-1"], "workers must be at least 0, not -1."),
        ([*EVALUATE, "--map_eval_samples", "0"], "map_eval_samples must be at least 1, not 0."),
        ([*EVALUATE, "--explainers", "grad-camm"], "There is no explainer 'grad-camm': did you mean 'grad-cam' or"),
        ([*EVALUATE, "--max_eval_samples", "0"], "max_eval_samples must be at least 1, not 0."),
        (["evaluate", "a.png", "--dataset_name", "shapes"], "a.png is a file: name the folder of a model."),
        ([*REGIONS, "--least_area", "-1"], "least_area must be at least 0, not -1.0."),
        ([*REGIONS, "--least_area", "2"], "threshold must lie in (0, 1] and least_area, a share of the image, in"),
        ([*REGIONS, "--threshold", "nan"], "threshold must lie in (0, 1] and least_area, a share of the image, in"),
        ([*REGIONS, "--explainer", "nope"], "There is no explainer 'nope': there are antehoc, grad-cam,"),
        ([*ATTACH, "--grid", "0"], "grid must be at least 1, not 0."),
        ([*ATTACH, "--image_size", "-3"], "image_size must be at least 1, not -3."),
        ([*ATTACH, "--image_mean", "1"], "image_mean takes three numbers, one for each of red, green and blue."),
        ([*ATTACH, "--crop_pct", "-1"], "crop_pct must lie in (0, 1], not -1.0."),
        ([*ATTACH, "--interpolation", "nearestt"], "--interpolation: invalid choice: 'nearestt' (choose from"),
        ([*ATTACH, "--seed", "-1"], "seed must be at least 0, not -1."),
        (["export", "m", "--batch_size", "0"], "batch_size must be at least 1, not 0."),
        (["export", "m", "-o", "a.pt2", "--int8"], "--int8 is for ONNX: name a file that ends in .onnx, not 'a.pt2'."),
        (["benchmark", "paper", "--seeds", "-1"], "seeds must be at least 0, not -1."),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)  # fmt: skip
def test_one_sentence(place: Path, capsys: pytest.CaptureFixture[str], argv: list[str], sentence: str) -> None:
    assert main([argv[0], "--output_dir", "out", *argv[1:]] if argv[0] == "train" else argv) == 2
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if line.startswith("antehoc ")]
    assert [line.startswith(f"antehoc {argv[0]}: {sentence}") for line in said] == [True], said
    assert "--traceback" not in said[0]
    assert not list(place.glob("out/*"))


def test_a_model_that_is_nowhere(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antehoc_hf.model_weights.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for argv in (["explain", "a.png", "--model", "nowhere"], ["evaluate", "nowhere", "--dataset_name", "shapes"]):
        assert main(argv) == 2
        assert "There is no model 'nowhere': it is not a folder here and not among the down" in capsys.readouterr().err
    (place / "m" / "config.json").write_text(json.dumps({"a": 1})[:-1])
    assert main(["explain", "a.png", "--model", "m"]) == 2
    assert "m cannot be loaded: " in capsys.readouterr().err
