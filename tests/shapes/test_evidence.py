"""The ground truth: what decides the class, masks, removals, landmarks and captions."""

from itertools import combinations

import numpy as np
import pytest
from datasets import DatasetDict

from antehoc_hf.shapes import load_shapes
from antehoc_hf.shapes.parts import CLASSES, DECIDING, LANDMARK_PARTS, LANDMARKS, PARTS, BugPainter, sample_bug
from antehoc_hf.shapes.scene import REGIONS, Recipe, Scene, draw, part_mask, render
from antehoc_hf.shapes.textures import BACKGROUNDS


def classes_with(parts: tuple[str, ...], label: int) -> list[int]:
    """The classes that look like `label` when only these deciding parts are seen."""
    table = list(CLASSES.values())
    seen = [DECIDING.index(part) for part in parts]
    return [other for other, row in enumerate(table) if all(row[k] == table[label][k] for k in seen)]


def as_class(index: int, label: int) -> Scene:
    """Scene `index` of test with the bug of another class, all else as it was."""
    recipe = Recipe(0, "test", index, 48)
    scene = draw(recipe)
    clutter = [layer for layer in scene.layers if layer.region == "clutter"]
    bug = sample_bug(recipe.stream(0), label)
    return Scene(recipe, bug, scene.family, scene.ground, (*clutter, *BugPainter(bug, 48).layers()))


def test_any_two_parts_name_the_class_and_one_does_not() -> None:
    for label in range(6):
        for part in DECIDING:
            assert len(classes_with((part,), label)) == 2
        for pair in combinations(DECIDING, 2):
            assert classes_with(pair, label) == [label]


def test_without_the_deciding_parts_all_classes_look_alike() -> None:
    images = [as_class(4, label).image(DECIDING) for label in range(6)]
    assert all(np.array_equal(images[0], image) for image in images)
    whole = [as_class(4, label).image() for label in range(6)]
    assert len({image.tobytes() for image in whole}) == 6


@pytest.mark.parametrize("kept", DECIDING)
def test_with_one_deciding_part_two_classes_look_alike(kept: str) -> None:
    removed = [part for part in DECIDING if part != kept]
    images = [as_class(8, label).image(removed).tobytes() for label in range(6)]
    for label in range(6):
        assert [k for k in range(6) if images[k] == images[label]] == classes_with((kept,), label)


def test_with_two_deciding_parts_no_classes_look_alike() -> None:
    for part in DECIDING:
        assert len({as_class(8, label).image([part]).tobytes() for label in range(6)}) == 6


@pytest.mark.parametrize("size", [32, 64, 97])
def test_a_removal_changes_pixels_of_its_mask_and_no_others(size: int) -> None:
    rows = load_shapes(image_size=size, train=0, validation=0, test=6, without=REGIONS)["test"]
    for row in rows:
        image = np.asarray(row["image"])
        for region in REGIONS:
            changed = (image != np.asarray(row[f"without_{region}"])).any(-1)
            mask = part_mask(row["part_masks"], region)
            assert not changed[~mask].any()
            assert changed[mask].mean() > 0.8
        changed = (image != np.asarray(row["without_deciding_parts"])).any(-1)
        assert not changed[np.asarray(row["mask"]) == 0].any()


def test_the_mask_is_the_deciding_parts(small: DatasetDict) -> None:
    for row in small["test"]:
        mask, bits = np.asarray(row["mask"]), row["part_masks"]
        assert set(np.unique(mask)) == {0, 255}
        together = part_mask(bits, "horn") | part_mask(bits, "wings") | part_mask(bits, "tail")
        assert np.array_equal(mask == 255, together)
        assert np.array_equal(together, part_mask(bits, "deciding"))
        assert 0.03 < together.mean() < 0.4


def test_bug_clutter_and_background_cover_the_image(small: DatasetDict) -> None:
    for bits in small["test"]["part_masks"]:
        bug, clutter = part_mask(bits, "bug"), part_mask(bits, "clutter")
        assert np.array_equal(part_mask(bits, "background"), ~(bug | clutter))
        assert all(part_mask(bits, part).any() for part in PARTS)
        assert not (part_mask(bits, "horn") & part_mask(bits, "tail")).any()


def test_with_everything_removed_the_true_background_is_left(small: DatasetDict) -> None:
    row = small["test"][0]
    bare = render(row["scene"], without=REGIONS)
    background = part_mask(row["part_masks"], "background")
    assert np.array_equal(bare[background], np.asarray(row["image"])[background])
    behind = ~background
    assert (bare[behind] != np.asarray(row["image"])[behind]).any(-1).mean() > 0.9


def test_render_draws_the_columns_again(small: DatasetDict) -> None:
    for row in small["test_swapped"].select(range(4)):
        assert np.array_equal(render(row["scene"]), np.asarray(row["image"]))
        assert np.array_equal(render(row["scene"], ["wings"]), np.asarray(row["without_wings"]))
        assert np.array_equal(render(row["scene"], set(DECIDING)), np.asarray(row["without_deciding_parts"]))


def test_wrong_names_end_in_one_sentence(small: DatasetDict) -> None:
    row = small["test"][0]
    with pytest.raises(ValueError, match="Cannot remove 'paw': a scene has the regions horn"):
        render(row["scene"], ["paw"])
    with pytest.raises(ValueError, match="without must be a collection of region names"):
        render(row["scene"], "horn")
    with pytest.raises(ValueError, match="There is no region 'paw': choose deciding"):
        part_mask(row["part_masks"], "paw")
    with pytest.raises(ValueError, match="text of the data set's `scene` column"):
        render("a bug on grass")


def test_landmarks_lie_on_their_parts(small: DatasetDict) -> None:
    for row in (*small["train"], *small["test"]):
        assert row["landmarks_visible"] == [True] * len(LANDMARKS)
        for (x, y), part in zip(row["landmarks"], LANDMARK_PARTS, strict=True):
            assert part_mask(row["part_masks"], part)[round(y), round(x)]


def centre(mask: np.ndarray) -> np.ndarray:
    """The mean x and y of a mask."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


def test_landmarks_are_the_middles_and_know_left_from_right(small: DatasetDict) -> None:
    for row in small["test"]:
        place = {name: np.array(xy) for name, xy in zip(LANDMARKS, row["landmarks"], strict=True)}
        for part in ("body", "head", "horn", "tail"):
            assert np.linalg.norm(place[part] - centre(part_mask(row["part_masks"], part))) < 6.5
        middle_of_wings = (place["left_wing"] + place["right_wing"]) / 2
        assert np.linalg.norm(middle_of_wings - centre(part_mask(row["part_masks"], "wings"))) < 8
        forward = place["head"] - place["body"]
        # y points down, so the left of (fx, fy) is (fy, -fx).
        left = np.array([forward[1], -forward[0]])
        assert left @ (place["left_wing"] - place["right_wing"]) > 0
        assert forward @ (place["horn"] - place["tail"]) > 0


def test_captions_name_what_is_there(small: DatasetDict) -> None:
    rows = small["train"]
    phrases: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        label = rows.features["label"].int2str(row["label"])
        for text, regions in zip(row["captions"], row["caption_regions"], strict=True):
            words = text.split()
            assert len(words) == len(regions)
            named = {region: [w for w, r in zip(words, regions, strict=True) if r == region] for region in regions}
            assert all(part_mask(row["part_masks"], region).any() for region in named if region)
            assert named.get("deciding", [label]) == [label]
            assert named.get("background", [BACKGROUNDS[row["background"]]]) == [BACKGROUNDS[row["background"]]]
            for part in DECIDING:
                if part in named:
                    shape = " ".join(named[part][1:] if part == "wings" else named[part])  # wings: a colour first
                    phrases.setdefault((part, row[part]), set()).add(shape)
        assert row["captions"][0] == f"a {label} on {BACKGROUNDS[row['background']]}"
    assert len(phrases) == 9
    assert all(len(shapes) == 1 for shapes in phrases.values())
    assert len({next(iter(shapes)) for shapes in phrases.values()}) == 9


@pytest.mark.parametrize(("word", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
def test_colour_words_are_the_colours_of_the_part(word: str, channel: int) -> None:
    rows = load_shapes(image_size=48, train=60, validation=0, test=0, seed=2)["train"]
    seen = 0
    for row in rows:
        if f" {word} " not in row["captions"][2].split("with")[1]:
            continue
        wings = np.asarray(row["image"])[part_mask(row["part_masks"], "wings")].mean(0)
        assert wings.argmax() == channel
        seen += 1
    assert seen > 0
