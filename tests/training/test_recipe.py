"""From flags and recipes to the settings of a run."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.modeling import AnteHocConfig
from antehoc_hf.training.runs.options import ConfigArguments, ModelArguments
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
    AnteHocConfig(backbone=settings.model.backbone, **settings.config)


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
        "backbone_kwargs: {drop_path_rate: 0.1}\nimage_size: [64, 96]\nweight_network: scalar\n",
    )
    settings = parsed("--recipe", recipe, "--dataset-name", "from/flag", "--image_size", "48", output_dir=tmp_path)
    assert settings.data.dataset_name == "from/flag"
    assert settings.training.learning_rate == 0.001  # which YAML takes for a text
    assert settings.training.logging_first_step is False
    assert settings.training.weight_decay == 0.05  # from the package's defaults, not the Trainer's 0
    assert settings.config["taps"] == ["layer3", "layer4"]
    assert settings.config["image_size"] == 48
    assert settings.config["backbone_kwargs"] == {"drop_path_rate": 0.1}
    assert settings.config["weight_network"] == "scalar"
    assert settings.given["learning_rate"] == "1e-3"
    assert settings.given["dataset_name"] == "from/flag"
    assert "weight_decay" not in settings.given


def test_every_option_of_the_configuration_is_a_flag() -> None:
    flags = {f.name for cls in (ModelArguments, ConfigArguments) for f in dataclasses.fields(cls)}
    found_by_itself = {
        *(
            "tap_points",
            "fixed_image_size",
            "tap_channels",
            "num_landmarks",
            "landmark_names",
            "landmark_flip",
            "landmark_parts",
        ),
        *("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"),
        "max_caption_length",  # a flag of the task
    }
    assert set(AnteHocConfig.__annotations__) - found_by_itself <= flags
    for field in dataclasses.fields(ConfigArguments):
        assert field.default == getattr(AnteHocConfig, field.name)
        assert field.metadata["help"] or field.name.startswith("image_")


@pytest.mark.parametrize(
    ("flags", "objective"),
    [
        ([], None),
        (["--interpretation_objective", "energy"], "energy"),
        (["--weight_network", "contributions"], "contributions"),
        (["--weight_network", "autoencoder"], "energy"),
        (["--area_weight", "0.1"], "energy"),  # an option that energy maps alone have
        (["--recipe", "paper-cifar10"], "energy"),
        (["--recipe", "paper-cifar10", "--interpretation_objective", "contributions"], "contributions"),
        (["--task", "landmark-detection"], None),
    ],
)
def test_what_the_map_learns(tmp_path: Path, flags: list[str], objective: str | None) -> None:
    settings = parsed("--dataset_name", "shapes", *flags, output_dir=tmp_path)
    assert settings.model.interpretation_objective == objective


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--interpretation_objective", "energy", "--weight_network", "contributions"],
            "is learned by weight_network autoencoder or scalar, not by contributions",
        ),
        (
            ["--interpretation_objective", "contributions", "--weight_network", "scalar"],
            "has a weight network of its own, not 'scalar'",
        ),
        (
            ["--interpretation_objective", "contributions", "--task", "image-captioning"],
            "explains the probabilities of classes, which --task image-captioning does not have",
        ),
        (["--model_type", "plain", "--interpretation_objective", "energy"], "interpretation_objective is about maps"),
    ],
)
def test_objectives_that_contradict_are_refused(tmp_path: Path, flags: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parsed("--dataset_name", "shapes", *flags, output_dir=tmp_path)


def test_a_recipe_may_be_based_on_another(tmp_path: Path) -> None:
    written(tmp_path, "based_on: paper\nnum_train_epochs: 2\nseed: 5\n", "middle.yaml")
    own = written(tmp_path, "based_on: middle.yaml\nseed: 6\n")
    values = read_recipe(own)
    assert (values["seed"], values["num_train_epochs"], values["image_size"]) == (6, 2, 128)
    written(tmp_path, "based_on: own.yaml\n", "middle.yaml")
    with pytest.raises(UsageError, match="based on itself"):
        read_recipe(own)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--dataset_name", "x", "--learnig_rate", "1"], "no option '--learnig_rate': did you mean --learning_rate"),
        (["--dataset_name", "x", "--learning_rate", "fast"], "--learning_rate: invalid float value: 'fast'"),
        (["--dataset_name", "x", "--tap_point", "relu"], "--tap_point: invalid choice: 'relu'"),
        (["--dataset_name", "x", "stray"], "'stray' belongs to no option"),
        (["--learning_rate", "0.1"], "There is no data set: pass --dataset_name"),
        (["--recipe", "papr-cifar10"], "no recipe 'papr-cifar10': did you mean 'paper-cifar10'"),
        (["--recipe"], "--recipe needs a name"),
        (["--dataset_name", "x", "--backbone_kwargs", "{a: 1}"], "backbone_kwargs is no JSON"),
        (["--dataset_name", "x", "--backbone_kwargs", "[1]"], "backbone_kwargs must be a JSON object"),
        (["--dataset_name", "x", "--image_size", "1", "2", "3"], "image_size takes one number or two"),
        (["--dataset_name", "x", "--panel_steps", "0"], "panel_steps must be at least 1"),
        (["--dataset_name", "x", "--interpretation_batch_share", "2"], "interpretation_batch_share"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence(flags: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        parsed(*flags, output_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dataset_nam: x\n", "key 'dataset_nam', which is no option: did you mean dataset_name"),
        ("learning_rate: [1, 2\n", "is no YAML in line 2"),
        ("just text\n", "must hold lines such as"),
        ("num_train_epochs: many\n", "--num_train_epochs: invalid float value: 'many'"),
        ("recipe: demo\n", "key 'recipe', which is no option"),
    ],
)
def test_a_wrong_recipe_is_said_in_one_sentence(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parsed("--recipe", written(tmp_path, text), "--dataset_name", "x", output_dir=tmp_path)
    assert told in str(caught.value)
