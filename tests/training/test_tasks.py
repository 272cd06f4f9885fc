"""A task from outside the package: how bright an image is, learned from images without labels."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from antehoc_hf.modeling import AnteHocForImageClassification
from antehoc_hf.training.data.augmentation import ImageProcessor, evaluation_transform
from antehoc_hf.training.data.targets import Encode, ReadTargets
from antehoc_hf.training.runs.train import train
from antehoc_hf.training.tasks import TASKS, Task, register_task


class Brightness:
    """The mean of an image's pixels, in [0, 1]: nothing is read but the image."""

    columns: Sequence[str] = ()

    def check(self, dataset: datasets.Dataset, split: str) -> None:
        pass

    def unlabelled(self, dataset: datasets.Dataset) -> list[int]:
        return []

    def strata(self, dataset: datasets.Dataset) -> None:
        return None

    def encoder(self, processor: ImageProcessor, augmentation: str | None) -> Encode:
        transform = evaluation_transform(processor)

        def encode(images: list[Image.Image], rows: Mapping[str, Sequence[Any]]) -> list[dict[str, torch.Tensor]]:
            truth = [torch.tensor(np.asarray(image).mean() / 255, dtype=torch.float32) for image in images]
            return [{"pixel_values": x, "labels": y} for x, y in zip(transform(images), truth, strict=True)]

        return encode


@dataclasses.dataclass
class BrightnessArguments:
    """None."""


class BrightnessTask(Task[Brightness, AnteHocForImageClassification]):
    name = "brightness"
    arguments = BrightnessArguments
    model_class = AnteHocForImageClassification
    default_augmentation = "none"

    def read_targets(self, model: Any = None) -> ReadTargets[Brightness]:
        return lambda dataset, image_column, source: Brightness()

    def config_options(self, data: Any) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def summary(self, data: Any) -> str:
        return "brightness"


@pytest.fixture
def registered() -> Iterator[None]:
    register_task(BrightnessTask)
    yield
    del TASKS[BrightnessTask.name]


def test_a_task_of_ones_own_is_trained_by_the_same_command(
    registered: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(12):
        Image.new("RGB", (64, 64), (20 * number,) * 3).save(tmp_path / "photos" / f"{number}.png")
    results = train(
        [
            "--task", "brightness", "--dataset_name", str(tmp_path / "photos"), "--output_dir", str(tmp_path / "run"),
            "--backbone", "test_resnet", "--image_size", "64", "--max_steps", "2", "--use_cpu", "true",
            "--per_device_train_batch_size", "4", "--report_to", "none", "--panel_images", "2",
            "--validation_fraction", "0.25", "--eval_strategy", "steps", "--eval_steps", "1",
        ]
    )  # fmt: skip
    assert (results["task"], results["evaluated_images"]) == ("brightness", 3)
    assert results["metrics"]["loss"] > 0
    assert list((tmp_path / "run" / "panels").glob("*.png"))
    assert "9 train, 3 validation; brightness" in capsys.readouterr().out
    again = AnteHocForImageClassification.from_pretrained(tmp_path / "run")
    assert again.config.problem_type == "regression"


def test_names_are_taken_once(registered: None) -> None:
    with pytest.raises(ValueError, match="There is already the task 'brightness': choose another name"):
        register_task(BrightnessTask)

    class Other(BrightnessTask):
        name = "other"
        arguments = dataclasses.make_dataclass("OtherArguments", [("label_column", str, "label")])

    with pytest.raises(ValueError, match="the option 'label_column' of task 'image-classification'"):
        register_task(Other)
