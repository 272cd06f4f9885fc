"""From flags and recipes to the settings of a run."""

import re
from pathlib import Path
from typing import Any

import pytest

from antehoc_hf.cli import main
from antehoc_hf.commands.errors import UsageError
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.runs.maps import map_arguments
from antehoc_hf.training.runs.parser import check_early, train_parser
from antehoc_hf.training.runs.recipes import read_recipe, recipe_names
from antehoc_hf.training.runs.settings import parse_settings


def parsed(*flags: str, output_dir: Path) -> Any:
    return parse_settings(["--output_dir", str(output_dir), *flags])


def written(folder: Path, text: str, name: str = "own.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_read(name: str, tmp_path: Path) -> None:
    settings = parsed("--recipe", name, "--dataset_name", "some/data", output_dir=tmp_path)
    recipe = read_recipe(name)
    assert settings.data.dataset_name == "some/data"
    assert settings.training.num_train_epochs == recipe["num_train_epochs"]
    assert settings.model.backbone == recipe["backbone"]
    settings.task.check_model(settings.model, settings.config, settings.map)


def test_the_recipes_there_are() -> None:
    paper = {"paper", "paper-animals10", "paper-cifar10", "paper-food11", "paper-tinyimagenet"}
    tasks = {"captions", "demo-captions", "landmarks", "demo-landmarks"}
    assert set(recipe_names()) == {*paper, *tasks, "cpu", "demo", "finetune"}


def test_paper_recipe(tmp_path: Path) -> None:
    settings = parsed("--recipe", "paper-cifar10", output_dir=tmp_path)
    assert settings.data.dataset_name == "uoft-cs/cifar10"
    assert settings.model.backbone == "resnet50"
    assert settings.model.pretrained_source() is False
    assert settings.config["image_size"] == 128
    assert settings.config["num_attention_maps"] == 8
    assert settings.config["taps"] == "convolutions"


def test_flags_go_before_the_recipe_and_the_recipe_before_the_defaults(tmp_path: Path) -> None:
    recipe = written(
        tmp_path,
        "dataset_name: from/recipe\nlearning_rate: 1e-3\ntaps: [layer3, layer4]\nlogging_first_step: false\n"
        "backbone_kwargs: {drop_path_rate: 0.1}\nimage_size: [64, 96]\n",
    )
    settings = parsed("--recipe", recipe, "--dataset-name", "from/flag", "--image_size", "48", output_dir=tmp_path)
    assert settings.data.dataset_name == "from/flag"
    assert settings.training.learning_rate == 0.001  # which YAML takes for a text
    assert settings.training.logging_first_step is False
    assert settings.training.weight_decay == 0.05  # from the package's defaults, not the Trainer's 0
    assert settings.config["taps"] == ["layer3", "layer4"]
    assert settings.config["image_size"] == 48
    assert settings.config["backbone_kwargs"] == {"drop_path_rate": 0.1}
    assert settings.given["learning_rate"] == 0.001
    assert settings.given["dataset_name"] == "from/flag"
    assert "weight_decay" not in settings.given


@pytest.mark.parametrize(
    ("flags", "kind", "objective"),
    [
        ([], "contributions", "coalitions"),
        (["--map_head", "energy"], "energy", "energy"),
        (["--objective", "energy"], "energy", "energy"),
        (["--map_head", "energy", "--area_weight", "0.1"], "energy", "energy"),
        (["--recipe", "paper-cifar10"], "energy", "energy"),
        (["--recipe", "paper-cifar10", "--map_head", "contributions"], "contributions", "coalitions"),
        # What the recipe says about coalitions is passed over.
        (["--recipe", "cpu", "--map_head", "energy"], "energy", "energy"),
        (["--task", "landmark-detection", "--map_head", "energy", "--area_weight", "0.1"], "energy", "energy"),
        (["--recipe", "cpu", "--task", "landmark-detection"], "contributions", "coalitions"),
        (["--recipe", "cpu", "--task", "image-captioning"], "energy", "energy"),
    ],
)
def test_which_map_a_run_has(tmp_path: Path, flags: list[str], kind: str, objective: str) -> None:
    settings = parsed("--dataset_name", "shapes", *flags, output_dir=tmp_path)
    assert (settings.map.kind, settings.map.objective) == (kind, objective)


def test_options_of_the_map_are_nested_or_flat(tmp_path: Path) -> None:
    recipe = written(
        tmp_path,
        "map_head: {kind: energy, attention_softmax: joint, map_scaling: max}\ntv_weight: 0.5\n"
        "objective: {kind: energy, target_eval: true}\nmodel_options: {tap_point: conv}\n",
    )
    settings = parsed("--recipe", recipe, "--dataset_name", "x", output_dir=tmp_path)
    assert settings.map.options == {"attention_softmax": "joint", "map_scaling": "max"}
    assert settings.map.objective_options == {"tv_weight": 0.5, "target_eval": True}
    assert settings.config["tap_point"] == "conv"
    flags = ["--map_head", '{"kind": "contributions", "grid": 5}', "--coalition_sampling", "ranked"]
    settings = parsed("--recipe", "cpu", *flags, "--dataset_name", "x", output_dir=tmp_path)
    assert settings.map.options == {"grid": 5}
    assert settings.map.objective_options == {"sampling": "ranked", "coalitions_per_image": 6}
    settings = parsed("--contribution_grid", "4", "--dataset_name", "x", output_dir=tmp_path)
    assert settings.map.options == {"grid": 4}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--tv_weight", "0.1"], "--tv_weight belongs to the energy objective: add --map_head energy."),
        (
            ["--coalitions_per_image", "4", "--map_head", "energy"],
            "--coalitions_per_image belongs to the coalitions objective: leave it out, or choose --map_head contrib",
        ),
        (["--contribution_grid", "4", "--map_head", "energy"], "--contribution_grid belongs to the contributions map"),
        (["--map_head", "energi"], "There is no map_head 'energi': choose contributions or energy."),
        (["--map_head", '{"map_scaling": "max"}'], "map_head needs a kind: choose contributions or energy."),
        (["--map_head", '{"kind": "energy", "map_scalin": "max"}'], "no option 'map_scalin': did you mean 'map_scal"),
        (["--map_head", '{"kind": "energy"'], "--map_head: this is not JSON"),
        (
            ["--map_head", "contributions", "--objective", "energy"],
            "is taught by the objective coalitions, not by ene",
        ),
        (["--model_type", "plain", "--map_head", "energy"], "map_head is about maps"),
        (["--model_options", '{"map_scaling": "max"}'], "an option of the map: give it with --map_head"),
        (["--model_options", '{"tap_pont": "conv"}'], "model_options has no 'tap_pont': did you mean 'tap_point'?"),
        (["--model_options", '{"image_size": 3}'], "must not hold 'image_size', which is an option of its own"),
        (["--report_to", "wandb"], "report_to='wandb' is unknown, or its package is not installed"),
    ],
)
def test_maps_and_options_that_do_not_fit_are_refused(tmp_path: Path, flags: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        parsed("--dataset_name", "shapes", *flags, output_dir=tmp_path)


def test_a_recipe_does_not_change_the_method_silently(tmp_path: Path) -> None:
    recipe = written(tmp_path, "dataset_name: x\ntv_weight: 0.1\n")
    with pytest.raises(UsageError, match="--tv_weight belongs to the energy objective: add --map_head energy"):
        parsed("--recipe", recipe, output_dir=tmp_path)


def test_a_config_file_goes_before_the_recipe_and_after_the_flags(tmp_path: Path) -> None:
    config = written(tmp_path, "dataset_name: from/config\nnum_train_epochs: 2\nseed: 5\n", "config.yaml")
    settings = parsed("--recipe", "cpu", "--config", config, "--seed", "6", output_dir=tmp_path)
    assert settings.data.dataset_name == "from/config"
    assert settings.training.num_train_epochs == 2
    assert settings.training.seed == 6
    assert settings.model.backbone == "resnet10t"


def test_a_recipe_may_be_based_on_another(tmp_path: Path) -> None:
    written(tmp_path, "based_on: paper\nnum_train_epochs: 2\nseed: 5\n", "middle.yaml")
    own = written(tmp_path, "based_on: middle.yaml\nseed: 6\n")
    values = read_recipe(own)
    assert (values["seed"], values["num_train_epochs"], values["image_size"]) == (6, 2, 128)
    written(tmp_path, "based_on: own.yaml\n", "middle.yaml")
    with pytest.raises(UsageError, match="based on itself"):
        read_recipe(own)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dataset_name", "x", "--learnig_rate", "1"], "no option '--learnig_rate': did you mean --learning_rate"),
        (["--dataset_name", "x", "--learning_rate", "fast"], "--learning_rate: invalid float value: 'fast'"),
        (["--dataset_name", "x", "--on_bad_image", "drop"], "--on_bad_image: invalid choice: 'drop'"),
        (["--dataset_name", "x", "stray"], "'stray' belongs to no option"),
        (["--learning_rate", "0.1"], "There is no data set: pass --dataset_name"),
        (["--recipe", "papr-cifar10"], "no recipe 'papr-cifar10': did you mean 'paper-cifar10'"),
        (["--recipe"], "--recipe: expected one argument"),
        (["--dataset_name", "x", "--backbone_kwargs", "{a: 1}"], "--backbone_kwargs: this is not JSON"),
        (["--dataset_name", "x", "--backbone_kwargs", "[1]"], "--backbone_kwargs: it must be a JSON object"),
        (["--dataset_name", "x", "--image_size", "1", "2", "3"], "image_size takes one number or two"),
        (["--dataset_name", "x", "--panel_steps", "0"], "panel_steps must be at least 1"),
        (["--dataset_name", "x", "--interpretation_batch_share", "2"], "interpretation_batch_share"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence(flags: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        parsed(*flags, output_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset_nam: x\n", "key 'dataset_nam', which is not an option: did you mean dataset_name"),
        ("learning_rate: [1, 2\n", "is not YAML in line 2"),
        ("just text\n", "must hold lines such as"),
        ("num_train_epochs: many\n", "--num_train_epochs: invalid float value: 'many'"),
        ("recipe: demo\n", "key 'recipe', which is not an option"),
    ],
)
def test_a_wrong_recipe_is_said_in_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parsed("--recipe", written(tmp_path, text), "--dataset_name", "x", output_dir=tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        *(("lr", "--learning_rate?"), ("batch_size", "--per_device_train_batch_size?"), ("wd", "--weight_decay?")),
        *(("workers", "--dataloader_num_workers?"), ("output", "--output_dir?"), ("dataset", "--dataset_name?")),
        *(
            ("model", "--backbone?"),
            ("epochs", "--num_train_epochs?"),
            ("device", "--use_cpu?"),
            ("eps", "--adam_eps"),
        ),
        *(("gpu", ""), ("num_classes", ""), ("momentum", ""), ("amp", "--bf16 or --fp16?")),
        *(
            ("learningrate", "--learning_rate?"),
            ("img-size", "--image_size?"),
            ("resume", "--resume_from_checkpoint?"),
        ),
    ],
)
def test_an_option_by_another_name(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dataset_name", "x", f"--{typed}", "1"]) == 2
    error = capsys.readouterr().err
    assert (f"did you mean {meant}" in error) if meant else ("`antehoc train --help-all` lists the options" in error)


@pytest.mark.parametrize("name", ["contribution_grid", "coalition_sampling", "interpretation_target", "tv_weight"])
def test_options_of_maps_and_objectives_are_known_before_torch_is_imported(name: str) -> None:
    assert name in train_parser(*map_arguments(), AnteHocTrainingArguments).options
    check_early(["--dataset_name", "x", f"--{name}=1"])
