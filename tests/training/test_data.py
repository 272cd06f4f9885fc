"""From a data set of any form to the batches the Trainer is given."""

import io
import logging
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from PIL import Image
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, default_data_collator, set_seed

from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.training.data import ImageData, load_image_data
from antehoc_hf.training.data.errors import BadImageError, DataError, LabelError

PETS = ClassLabel(names=["cat", "dog", "bird"])
PROCESSOR = AnteHocImageProcessor(image_size=32, crop_pct=1.0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def encoded(shade: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(shade).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels[:8] = shade
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def pets(count: int, *, label: Any = PETS, labels: list[Any] | None = None, bad: tuple[int, ...] = ()) -> Dataset:
    cells = [{"bytes": encoded(row)[: 300 if row in bad else None], "path": f"{row}.png"} for row in range(count)]
    table = {"image": cells, "label": labels or [row % 3 for row in range(count)], "note": ["x"] * count}
    return Dataset.from_dict(
        table, features=Features({"image": datasets.Image(), "label": label, "note": Value("string")})
    )


def shade(item: dict[str, torch.Tensor]) -> int:
    """The number of the image, back from its first pixel."""
    value = item["pixel_values"][0, 0, 0] * PROCESSOR.image_std[0] + PROCESSOR.image_mean[0]
    return round(float(value) * 255)


def loader(data: ImageData, augmentation: str, **options: Any) -> DataLoader:
    return DataLoader(
        data.with_transforms(PROCESSOR, augmentation).train, batch_size=4, collate_fn=default_data_collator, **options
    )


def test_everything_is_found() -> None:
    data = load_image_data(DatasetDict({"train": pets(30), "valid": pets(6), "test": pets(3)}))
    assert (data.image_column, data.targets.column) == ("image", "label")
    assert data.targets.names == ["cat", "dog", "bird"]
    assert data.targets.problem_type == "single_label_classification"
    assert [len(split) for split in (data.train, data.validation, data.test)] == [30, 6, 3]
    assert not data.held_out
    assert data.skipped == []
    assert data.train.column_names == ["image", "label", "note"]


def test_validation_is_held_out_of_train_and_never_of_test() -> None:
    data = load_image_data(DatasetDict({"train": pets(30), "test": pets(9)}), validation_fraction=0.2)
    assert data.held_out
    train, validation = data.splits["train"], data.splits["validation"]
    assert sorted([*train.rows, *validation.rows]) == list(range(30))
    assert validation.name == "train"
    assert Counter(data.validation["label"]) == {0: 2, 1: 2, 2: 2}
    assert len(data.test) == 9


def test_no_validation_if_none_is_wanted() -> None:
    data = load_image_data(pets(9), validation_fraction=0)
    assert data.validation is None
    assert data.with_transforms(PROCESSOR).validation is None
    assert len(data.train) == 9


def test_a_test_split_alone_is_enough_to_evaluate() -> None:
    data = load_image_data(DatasetDict({"test": pets(9)}))
    assert data.train is None
    assert data.validation is None
    assert len(data.with_transforms(PROCESSOR).test) == 9


def test_subsets() -> None:
    every = DatasetDict({"train": pets(60), "validation": pets(30), "test": pets(30)})
    data = load_image_data(every, max_train_samples=20, max_eval_samples=5)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [20, 5, 5]
    again = load_image_data(every, max_train_samples=20, max_eval_samples=5)
    assert data.fingerprints == again.fingerprints
    other = load_image_data(every, max_train_samples=20, max_eval_samples=5, seed=1)
    assert data.splits["train"].rows.tolist() != other.splits["train"].rows.tolist()


def test_classes_are_those_of_all_training_images() -> None:
    labels = ["a", "b", "c", "d"] * 10
    data = load_image_data(pets(40, label=Value("string"), labels=labels), max_train_samples=1)
    assert data.targets.names == ["a", "b", "c", "d"]


def test_items_are_tensors_of_the_right_image_and_label() -> None:
    data = load_image_data(pets(12), validation_fraction=0.25)
    train, validation, test = data.with_transforms(PROCESSOR, "none")
    assert test is None
    for part, split in ((train, data.splits["train"]), (validation, data.splits["validation"])):
        assert [shade(part[i]) for i in range(len(part))] == split.rows.tolist()
        assert [int(part[i]["labels"]) for i in range(len(part))] == [row % 3 for row in split.rows]
    item = train[0]
    assert set(item) == {"pixel_values", "labels"}
    assert item["pixel_values"].shape == (3, 32, 32)
    assert item["labels"].dtype == torch.int64
    assert shade(train[-1]) == data.splits["train"].rows[-1]
    with pytest.raises(IndexError):
        train[len(train)]


def test_items_can_be_traced_to_their_data() -> None:
    data = load_image_data(DatasetDict({"train": pets(12), "valid": pets(6)}), max_train_samples=6)
    train, validation, _ = data.with_transforms(PROCESSOR)
    assert (str(train.split), str(validation.split)) == ("train", "valid")
    assert train.column_names == ["image", "label"]
    assert train.fingerprint == data.fingerprints["train"] != validation.fingerprint
    assert train.info.features["label"].names == ["cat", "dog", "bird"]


def test_evaluation_images_are_the_processors_whatever_the_augmentation() -> None:
    data = load_image_data(DatasetDict({"train": pets(6), "validation": pets(6), "test": pets(6)}))
    expected = PROCESSOR(data.validation[:]["image"], return_tensors="pt")["pixel_values"]
    for part in data.with_transforms(PROCESSOR, "strong")[1:]:
        assert torch.equal(torch.stack([item["pixel_values"] for item in part]), expected)


@pytest.mark.parametrize(
    ("feature", "labels", "problem_type", "names", "batch"),
    [
        (Value("float32"), [0.5, 1.5, 2.0], "regression", ["label"], [0.5, 1.5, 2.0]),
        (List(PETS), [[0, 1], [], [2]], "multi_label_classification", PETS.names, [[1, 1, 0], [0, 0, 0], [0, 0, 1]]),
        (Value("string"), ["b", "a", "b"], "single_label_classification", ["a", "b"], [1, 0, 1]),
    ],
)
def test_kinds_of_labels(feature: Any, labels: list, problem_type: str, names: list[str], batch: list) -> None:
    data = load_image_data(pets(3, label=feature, labels=labels), validation_fraction=0)
    assert (data.targets.problem_type, data.targets.names) == (problem_type, names)
    got = next(iter(DataLoader(data.with_transforms(PROCESSOR).train, 3)))
    assert got["labels"].tolist() == batch
    assert got["pixel_values"].shape == (3, 3, 32, 32)


def test_class_folders(tmp_path: Path) -> None:
    for name, mode in (("dog", "L"), ("cat", "RGBA"), ("ant", "CMYK")):
        (tmp_path / "zoo" / name).mkdir(parents=True)
        for number in range(4):
            kind = "jpg" if mode == "CMYK" else "png"
            Image.new(mode, (40 + number, 30)).save(tmp_path / "zoo" / name / f"{number}.{kind}")
    data = load_image_data(tmp_path / "zoo", validation_fraction=0.25)
    assert data.targets.names == ["ant", "cat", "dog"]
    assert (len(data.train), len(data.validation)) == (9, 3)
    batches = list(loader(data, "crop-flip"))
    assert sum(len(batch["labels"]) for batch in batches) == 9


def test_the_first_wrong_label_stops_the_loading() -> None:
    good, bad = pets(6), pets(6, label=Value("int64"), labels=[0, 1, 2, 0, 9, 1])
    with pytest.raises(LabelError, match=r"Row 4 of split 'validation', column 'label': label 9 is not one of the 3"):
        load_image_data(DatasetDict({"train": good.cast_column("label", Value("int64")), "validation": bad}))
    with pytest.raises(LabelError, match=r"Row 1 of split 'train'.*label -1"):
        load_image_data(pets(3, labels=[0, -1, 2]))


def test_a_test_split_that_hides_its_labels_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    splits = DatasetDict({"train": pets(6), "test": pets(3, labels=[-1, -1, -1])})
    with caplog.at_level(logging.WARNING):
        data = load_image_data(splits)
    assert data.test is None
    assert "'test' of the data set given has no labels" in caplog.text
    with pytest.raises(LabelError, match=r"Row 0 of split 'train'"):
        load_image_data(splits["test"], label_names=["cat", "dog", "bird"])


@pytest.mark.parametrize(
    ("train", "test", "labels"),
    [
        (PETS, ClassLabel(names=["dog", "bird", "cat"]), [2, 0, 1]),
        (PETS, ClassLabel(names=["bird", "cat", "dog", "fish"]), [1, 2, 0]),
        (PETS, Value("string"), ["cat", "dog", "bird"]),
        (Value("string"), PETS, [0, 1, 2]),
    ],
)
def test_splits_are_united_by_the_names_of_their_classes(train: Any, test: Any, labels: list[Any]) -> None:
    first = pets(6, label=train, labels=["cat", "dog", "bird"] * 2 if train != PETS else None)
    data = load_image_data(DatasetDict({"train": first, "test": pets(3, label=test, labels=labels)}))
    assert [data.targets.names[int(item["labels"])] for item in data.with_transforms(PROCESSOR).test] == PETS.names


def test_several_classes_an_image_are_united_by_name_as_well() -> None:
    other = List(ClassLabel(names=["dog", "cat"]))
    splits = DatasetDict(
        train=pets(3, label=List(PETS), labels=[[0], [1, 2], []]), test=pets(1, label=other, labels=[[0, 1]])
    )
    assert load_image_data(splits).with_transforms(PROCESSOR).test[0]["labels"].tolist() == [1.0, 1.0, 0.0]


def test_a_class_of_another_split_that_training_lacks_is_named() -> None:
    splits = DatasetDict(train=pets(6), test=pets(1, label=ClassLabel(names=["fish", "cat"]), labels=[0]))
    with pytest.raises(LabelError, match=r"Row 0 of split 'test'.*label 'fish' is not one of the 3 classes"):
        load_image_data(splits)


def test_validation_without_labels_is_left_out_and_a_part_of_training_held_out() -> None:
    data = load_image_data(DatasetDict({"train": pets(30), "validation": pets(3, labels=[-1, -1, -1])}))
    assert data.held_out
    assert [len(data.train), len(data.validation)] == [27, 3]


def test_a_test_split_without_the_column_of_labels_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    data = load_image_data(DatasetDict({"train": pets(6), "test": pets(3).remove_columns("label")}))
    assert data.test is None
    assert "Split 'test' of the data set given has no column 'label' and is left out" in caplog.text


def test_what_was_found_is_reported() -> None:
    said: list[str] = []
    splits = DatasetDict({"train": pets(6), "valid": pets(3), "unsupervised": pets(2)})
    load_image_data(splits, report=said.append)
    assert "\n".join(said).splitlines() == [
        "Found in the data set given: 6 train images, 3 validation images ('valid').",
        "  not used: 'unsupervised' (2 images)",
        "  3 classes, from column 'label': 'cat', 'dog', 'bird'",
    ]


def test_splits_that_do_not_fit_together() -> None:
    with pytest.raises(DataError, match="Split 'test' of the data set given has another type in column 'label'"):
        load_image_data(DatasetDict({"train": pets(6), "test": pets(3, label=Value("int64"))}))
    with pytest.raises(DataError, match=r"Split 'test' .* has no column 'image' \(columns: label, note\)"):
        load_image_data(DatasetDict({"train": pets(6), "test": pets(3).remove_columns("image")}))


def test_arguments_that_make_no_sense() -> None:
    with pytest.raises(DataError, match="on_bad_image='ignore' is unknown"):
        load_image_data(pets(3), on_bad_image="ignore")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="max_train_samples=0"):
        load_image_data(pets(30), max_train_samples=0)
    with pytest.raises(DataError, match="max_eval_samples=-1"):
        load_image_data(pets(30), max_eval_samples=-1)
    with pytest.raises(DataError, match="label_column='breed' is not a column of the data set given"):
        load_image_data(pets(3), label_column="breed")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_stops_with_its_row_and_file(workers: int) -> None:
    data = load_image_data(pets(8, bad=(5,)), validation_fraction=0)
    with pytest.raises(BadImageError) as caught:
        list(loader(data, "none", num_workers=workers))
    message = str(caught.value)
    assert message.startswith("Row 5 of split 'train' [5.png] can't be read")
    assert "\n" not in message


def test_the_row_named_is_that_of_the_original_split() -> None:
    data = load_image_data(pets(40, bad=(31,)), validation_fraction=0.25, max_train_samples=25, seed=2)
    position = data.splits["train"].rows.tolist().index(31)
    assert position != 31
    with pytest.raises(BadImageError, match="Row 31 of split 'train'"):
        data.with_transforms(PROCESSOR).train[position]


def test_bad_images_can_be_skipped_and_are_named(caplog: pytest.LogCaptureFixture) -> None:
    splits = DatasetDict({"train": pets(20, bad=(3, 11)), "validation": pets(6, bad=(0,)), "test": pets(3)})
    with caplog.at_level(logging.WARNING):
        data = load_image_data(splits, on_bad_image="skip")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [18, 5, 3]
    assert [text.split(":")[0] for text in data.skipped] == [
        "Row 3 of split 'train'", "Row 11 of split 'train'", "Row 0 of split 'validation'",
    ]  # fmt: skip
    assert "[11.png]" in data.skipped[1]
    assert "2 of 20 train images can't be read and are left out: Row 3" in caplog.text
    train = data.with_transforms(PROCESSOR, "none").train
    assert [shade(item) for item in train] == [row for row in range(20) if row not in (3, 11)]
    assert [int(item["labels"]) for item in train] == [row % 3 for row in range(20) if row not in (3, 11)]


def test_nothing_but_bad_images() -> None:
    with pytest.raises(DataError, match="None of the 4 train images can be read; the first: Row 0"):
        load_image_data(pets(4, bad=(0, 1, 2, 3)), validation_fraction=0, on_bad_image="skip")


@pytest.mark.parametrize("augmentation", ["crop-flip", "strong"])
@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_follows_the_seed(augmentation: str, workers: int) -> None:
    data = load_image_data(pets(16), validation_fraction=0)

    def epochs(seed: int) -> list[torch.Tensor]:
        set_seed(seed)
        return [
            torch.cat([batch["pixel_values"] for batch in loader(data, augmentation, num_workers=workers)])
            for _ in range(2)
        ]

    first, again, other = epochs(1), epochs(1), epochs(2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_workers_augment_differently() -> None:
    same = pets(1).select([0] * 8)
    data = load_image_data(same, validation_fraction=0)
    set_seed(0)
    by_worker_0, by_worker_1 = (batch["pixel_values"] for batch in loader(data, "crop-flip", num_workers=2))
    assert not torch.equal(by_worker_0, by_worker_1)


def test_data_can_be_pickled() -> None:
    data = load_image_data(pets(6), validation_fraction=0)
    part = data.with_transforms(PROCESSOR, "none").train
    assert shade(pickle.loads(pickle.dumps(part))[4]) == 4


class Classifier(torch.nn.Linear):
    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(pixel_values)


@pytest.mark.parametrize("remove_unused_columns", [True, False])
def test_the_trainer_takes_it_as_it_is(tmp_path: Path, remove_unused_columns: bool) -> None:
    data = load_image_data(pets(8), validation_fraction=0.5)
    train, validation, _ = data.with_transforms(PROCESSOR)
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, remove_unused_columns=remove_unused_columns, use_cpu=True,
        report_to="none",
    )  # fmt: skip
    trainer = Trainer(Classifier(32, 3), arguments, train_dataset=train, eval_dataset=validation)
    for batches in (trainer.get_train_dataloader(), trainer.get_eval_dataloader()):
        batch = next(iter(batches))
        assert batch["pixel_values"].shape == (4, 3, 32, 32)
        assert batch["labels"].shape == (4,)


@pytest.mark.real_data
def test_cifar10(real: Callable[[str], Path]) -> None:
    data = load_image_data(real("cifar10"))
    assert (data.image_column, data.targets.column) == ("img", "label")
    assert data.targets.names[:3] == ["airplane", "automobile", "bird"]
    assert [len(split) for split in (data.train, data.validation, data.test)] == [45000, 5000, 10000]
    assert set(Counter(data.validation["label"]).values()) == {500}
    batch = next(iter(loader(data, "crop-flip")))
    assert batch["pixel_values"].shape == (4, 3, 32, 32)


@pytest.mark.real_data
def test_tiny_imagenet(real: Callable[[str], Path]) -> None:
    data = load_image_data(real("tiny-imagenet"), max_train_samples=2000, on_bad_image="skip")
    assert (data.image_column, data.targets.column, len(data.targets.names)) == ("image", "label", 200)
    assert [len(data.train), len(data.validation), data.test] == [2000, 5000, None]
    assert not data.held_out
    assert data.skipped == []


@pytest.mark.real_data
def test_animals10(real: Callable[[str], Path]) -> None:
    data = load_image_data(real("animals10-sample"))
    assert data.targets.names[:2] == ["butterfly", "cat"]
    assert (len(data.train), len(data.validation), data.test) == (288, 32, None)
    assert data.held_out
    for batch in loader(data, "strong"):
        assert batch["pixel_values"].shape == (4, 3, 32, 32)
