"""What `load_shapes` returns: splits, columns, repeatability, backgrounds and options."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, concatenate_datasets, load_from_disk

from antehoc_hf.shapes import load_shapes
from antehoc_hf.shapes.dataset import ATTRIBUTES
from antehoc_hf.shapes.parts import CLASSES, DECIDING
from antehoc_hf.shapes.scene import SPLITS, Recipe, render
from antehoc_hf.shapes.textures import BACKGROUNDS


def pixels(rows: Dataset, column: str = "image") -> np.ndarray:
    return np.stack([np.asarray(image) for image in rows[column]])


def test_splits_have_the_asked_numbers_of_rows() -> None:
    data = load_shapes(image_size=32, train=7, validation=3, test=2)
    assert {split: len(rows) for split, rows in data.items()} == {
        "train": 7,
        "validation": 3,
        "test": 2,
        "test_swapped": 2,
    }
    assert tuple(data) == SPLITS
    assert str(data["train"].split) == "train"


def test_splits_without_rows_are_left_out(tmp_path: Path) -> None:
    data = load_shapes(image_size=32, train=0, validation=0, test=2)
    assert list(data) == ["test", "test_swapped"]
    data.save_to_disk(tmp_path)
    assert load_from_disk(tmp_path)["test"].to_dict() == data["test"].to_dict()


@pytest.mark.parametrize("size", [32, 50, 224])
def test_images_have_the_asked_size(size: int) -> None:
    row = load_shapes(image_size=size, train=1, validation=0, test=0)["train"][0]
    assert row["image"].size == row["without_deciding_parts"].size == (size, size)
    assert row["image"].mode == row["without_deciding_parts"].mode == "RGB"
    assert row["mask"].size == row["part_masks"].size == (size, size)
    assert row["mask"].mode == row["part_masks"].mode == "L"


def test_labels_are_named_and_balanced(small: DatasetDict) -> None:
    feature = small["train"].features["label"]
    assert isinstance(feature, ClassLabel)
    assert feature.names == list(CLASSES)
    assert np.bincount(small["train"]["label"]).tolist() == [2] * 6


def test_attributes_are_the_variants_of_the_class(small: DatasetDict) -> None:
    for row in small["train"].select_columns(["label", "attributes", *DECIDING]):
        expected = list(CLASSES.values())[row["label"]]
        assert tuple(row[part] for part in DECIDING) == expected
        names = [small["train"].features[part].int2str(row[part]) for part in DECIDING]
        on = [name for name, value in zip(ATTRIBUTES, row["attributes"], strict=True) if value == 1.0]
        assert on == [f"{name}_{part}" for name, part in zip(names, DECIDING, strict=True)]
        assert sum(row["attributes"]) == 3.0


def test_the_same_seed_gives_the_same_rows() -> None:
    options: dict[str, Any] = {"image_size": 40, "train": 6, "validation": 2, "test": 2, "seed": 5}
    first, second = load_shapes(**options), load_shapes(**options)
    for split in first:
        assert first[split].data.table.equals(second[split].data.table)


def test_pixels_are_the_same_on_every_machine() -> None:
    """A change of this value changes every data set that users have generated."""
    rows = load_shapes(image_size=32, train=6, validation=0, test=0)["train"]
    digest = hashlib.sha256(pixels(rows).tobytes() + pixels(rows, "part_masks").tobytes()).hexdigest()
    assert digest[:16] == "39f8415054b895c3"


def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    few = load_shapes(image_size=32, train=3, validation=0, test=1)
    more = load_shapes(image_size=32, train=9, validation=4, test=3)
    assert few["train"].to_dict() == more["train"].select(range(3)).to_dict()
    assert few["test_swapped"].to_dict() == more["test_swapped"].select(range(1)).to_dict()


@pytest.mark.slow
def test_rows_that_several_processes_drew_are_the_same_and_in_order() -> None:
    many = load_shapes(image_size=32, train=1001, validation=0, test=0)["train"]
    some = [0, 24, 25, 499, 500, 1000]
    assert len(many) == 1001
    for index in some:
        row = many[index]
        assert Recipe.from_json(row["scene"]) == Recipe(0, "train", index, 32)
        assert np.array_equal(np.asarray(row["image"]), render(row["scene"]))


def test_seeds_splits_and_rows_show_different_scenes() -> None:
    data = load_shapes(image_size=32, train=6, validation=6, test=6)
    other = load_shapes(image_size=32, train=6, validation=0, test=0, seed=1)
    images = pixels(concatenate_datasets([*data.values(), other["train"]]))
    assert len({image.tobytes() for image in images}) == len(images) == 30


def test_one_seed_shows_the_same_scenes_at_every_size() -> None:
    options: dict[str, Any] = {"train": 6, "validation": 0, "test": 0}
    fine, coarse = load_shapes(image_size=128, **options)["train"], load_shapes(image_size=64, **options)["train"]
    assert fine["background"] == coarse["background"]
    np.testing.assert_allclose(np.array(fine["landmarks"]) / 2, np.array(coarse["landmarks"]), atol=1.2)
    halved = pixels(fine).reshape(6, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - pixels(coarse)).mean() < 12


def test_nothing_is_cached_on_disk(small: DatasetDict) -> None:
    assert all(rows.cache_files == [] for rows in small.values())


def test_tensors_can_be_asked_for(small: DatasetDict) -> None:
    batch = small["train"].with_format("torch", columns=["image", "label", "landmarks", "attributes"])[:4]
    assert tuple(batch["image"].shape) == (4, 3, 64, 64)
    assert tuple(batch["landmarks"].shape) == (4, 6, 2)
    assert tuple(batch["attributes"].shape) == (4, 9)


def test_independent_backgrounds_say_nothing_about_the_class(many: DatasetDict) -> None:
    labels, families = np.array(many["train"]["label"]), np.array(many["train"]["background"])
    assert np.bincount(families, minlength=6).min() > 45
    best = np.array([np.bincount(labels[families == family]).argmax() for family in range(6)])
    guessed = best[np.array(many["test"]["background"])]
    assert (guessed == np.array(many["test"]["label"])).mean() < 0.25


def test_the_mean_colour_says_nothing_about_the_class(many: DatasetDict) -> None:
    def colours(split: str) -> np.ndarray:
        mean = pixels(many[split]).mean((1, 2)) / 255.0
        return np.concatenate([mean, np.ones((len(mean), 1))], axis=1)

    targets = np.eye(6)[many["train"]["label"]]
    weights = np.linalg.lstsq(colours("train"), targets, rcond=None)[0]
    guessed = (colours("test") @ weights).argmax(1)
    assert (guessed == np.array(many["test"]["label"])).mean() < 0.25


def test_correlated_backgrounds_follow_the_class(correlated: DatasetDict) -> None:
    for split in ("train", "test"):
        rows = correlated[split]
        share = np.mean(np.array(rows["label"]) == np.array(rows["background"]))
        assert 0.9 < share < 1.0
    assert correlated["train"].features["background"].names == list(BACKGROUNDS)


def test_the_swapped_split_changes_the_background_alone(correlated: DatasetDict, many: DatasetDict) -> None:
    assert not np.any(
        np.array(correlated["test_swapped"]["label"]) == np.array(correlated["test_swapped"]["background"])
    )
    for data in (correlated, many):
        test, swapped = data["test"].select(range(60)), data["test_swapped"].select(range(60))
        assert not np.any(np.array(test["background"]) == np.array(swapped["background"]))
        for column in ("label", "horn", "wings", "tail", "landmarks"):
            assert test[column] == swapped[column]
        bits = pixels(test, "part_masks")
        assert np.array_equal(bits, pixels(swapped, "part_masks"))
        differs = (pixels(test) != pixels(swapped)).any(-1)
        assert differs[bits == 0].mean() > 0.95
        inside = bits == 8  # the body alone
        assert differs[inside].mean() < 0.3  # its soft edge lets the background through


def test_both_modes_show_the_same_bugs(correlated: DatasetDict, many: DatasetDict) -> None:
    first, second = correlated["train"].select(range(24)), many["train"].select(range(24))
    assert np.array_equal(pixels(first, "part_masks"), pixels(second, "part_masks"))


def test_removals_become_columns_in_a_fixed_order() -> None:
    rows = load_shapes(image_size=32, train=1, validation=0, test=0, without=["clutter", "horn"])["train"]
    assert [name for name in rows.column_names if name.startswith("without_")] == [
        "without_deciding_parts",
        "without_horn",
        "without_clutter",
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_size": 31}, "image_size must be a whole number of at least 32, not 31."),
        ({"image_size": (64, 64)}, "image_size must be a whole number of at least 32, not"),
        ({"train": -1}, "train must be a whole number of at least 0, not -1."),
        ({"validation": 2.5}, "validation must be a whole number of at least 0, not 2.5."),
        ({"test": True}, "test must be a whole number of at least 0, not True."),
        ({"train": 0, "validation": 0, "test": 0}, "train, validation and test are all 0: ask for at least one row."),
        ({"seed": -3}, "seed must be a whole number of at least 0, not -3."),
        ({"background": "blue"}, "background must be 'independent' or 'correlated', not 'blue'."),
        ({"without": ["antenna"]}, "Cannot remove 'antenna': without may hold horn, wings, tail, body, head, legs"),
        ({"without": "horn"}, "without must be a list of regions"),
    ],
)
def test_a_wrong_option_ends_in_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + sentence.replace("(", r"\(").replace("[", r"\[")):
        load_shapes(**{"train": 1, "validation": 1, "test": 1, **options})
