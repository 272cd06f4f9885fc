"""Folders of images are read by one rule; whatever is ambiguous stops with a sentence that says how to settle it."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from image_folders import both, counts, images, load, save_image, truth_of

from antehoc_hf.training.data.errors import DataError, LabelError
from antehoc_hf.training.data.layout import role_of

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", "train"), ("Training", "train"), ("TRAIN", "train"), ("trainset", "train"),
        ("train_images", "train"), ("train2017", "train"), ("Train Set", "train"), ("val", "validation"),
        ("Valid", "validation"), ("dev", "validation"), ("validation-set", "validation"), ("TEST", "test"),
        ("testing", "test"), ("test_2", "test"), ("01_test", "test"), ("test_tube", None),
        ("trainval", None), ("latest", None),
        ("train station", None), ("cat", None), ("images", None), ("", None), ("тест", None),
    ],
)  # fmt: skip
def test_which_names_are_those_of_splits(name: str, role: str | None) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize("name", ["train_{}.png", "x-test-{}.png", "val {}.png", "dev.{}.png", "{}_test.PNG"])
def test_names_of_files_say_nothing(tmp_path: Path, name: str) -> None:
    data = load(images(tmp_path / "pets", "cat", "dog", count=20, name=name))
    assert counts(data) == {"train": 40}
    assert truth_of(data) == {("cat", "cat"), ("dog", "dog")}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (both("Training", "Testing"), {"train": 6, "test": 6}),
        (both("Train", "Test"), {"train": 6, "test": 6}),
        (both("trainset", "testset"), {"train": 6, "test": 6}),
        (both("train.v2", "test.v2"), {"train": 6, "test": 6}),
        (both("train", "Val", "TEST"), {"train": 6, "validation": 6, "test": 6}),
        (both("pets-v2/train", "pets-v2/dev"), {"train": 6, "validation": 6}),
        (["cat/train", "cat/test", "dog/train", "dog/test"], {"train": 6, "test": 6}),
        (both("test"), {"test": 6}),
        (["images/cat", "images/dog"], {"train": 6}),
        (["train/cat/images", "train/dog/images", "test/cat/images"], {"train": 6, "test": 3}),
    ],
)
def test_splits(tmp_path: Path, folders: list[str], expected: dict[str, int]) -> None:
    data = load(images(tmp_path / "pets", *folders))
    assert counts(data) == expected
    assert data.targets.names == ["cat", "dog"]


def test_classes_within_splits_may_be_called_like_splits(tmp_path: Path) -> None:
    names = ["test_tube", "train", "val"]
    data = load(images(tmp_path / "things", *(f"{split}/{name}" for split in ("train", "test") for name in names)))
    assert counts(data) == {"train": 9, "test": 9}
    assert truth_of(data) == truth_of(data, "test") == {(name, name) for name in names}


def test_classes_that_share_a_word_with_splits(tmp_path: Path) -> None:
    assert load(images(tmp_path / "glass", "test_tube", "train_tube")).targets.names == ["test_tube", "train_tube"]
    with pytest.raises(DataError, match="--test_split 'my test' --train_split 'my train'"):
        load(images(tmp_path / "pets", *both("my test", "my train")))


def test_a_class_called_train_among_others_is_a_class(tmp_path: Path) -> None:
    said: list[str] = []
    data = load(images(tmp_path / "vehicles", "bus", "car", "train"), said)
    assert data.targets.names == ["bus", "car", "train"]
    assert "folder 'train' is read as a class" in "\n".join(said)


@pytest.mark.parametrize(
    ("folders", "ways"),
    [
        (["cat", "dog", "test"], {"--train_split . --test_split test": {"train": 6}, "--train_split .": {"train": 9}}),
        (
            both("train", "val", "extra"),
            {
                "--train_split train --validation_split val": {"train": 6, "validation": 6},
                "--train_split .": {"train": 18},
            },
        ),
        (both("train", "training"), {"--train_split train": {"train": 6}}),
        (both("train", "val", "dev"), {"--validation_split dev": {"train": 6, "validation": 6}}),
        (["cat", "dog", "dog/test", "cat/val"], {"--train_split .": {"train": 12}}),
        (
            both("pets_train", "pets_test"),
            {
                "--test_split pets_test --train_split pets_train": {"train": 6, "test": 6},
                "--train_split .": {"train": 12},
            },
        ),
        (
            both("a/trainval", "a/testdev"),
            {"--test_split a/testdev --train_split a/trainval": {"train": 6, "test": 6}},
        ),
        (["cat_train", "dogs-Train", "cat_test", "dogs-Test"], {"--train_split .": {"train": 12}}),
    ],
)
def test_what_may_be_a_split_or_a_class_is_asked(
    tmp_path: Path, folders: list[str], ways: dict[str, dict[str, int]]
) -> None:
    root = images(tmp_path / "pets", *folders)
    with pytest.raises(DataError) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    for way, expected in ways.items():
        assert way in str(caught.value)
        words = way.split()
        options = {flag.removeprefix("--"): value for flag, value in zip(words[::2], words[1::2], strict=True)}
        assert counts(load(root, **options)) == expected


def test_a_named_folder_is_a_split(tmp_path: Path) -> None:
    root = images(tmp_path / "pets", *both("train", "holdout"))
    assert counts(load(root, validation_split="holdout")) == {"train": 6, "validation": 6}
    nested = images(tmp_path / "more", *both("a/one", "a/two", "b"))
    assert counts(load(nested, train_split="a/one", test_split="b/")) == {"train": 6, "test": 6}
    with pytest.raises(DataError, match=r"test_split='c' is not a folder of images in .*: there are 'a', 'b'\."):
        load(nested, test_split="c")


def test_names_of_classes(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "café")
    names = ["__background__", ".net", "new\nline", "x.png", "a [1] *?", decomposed]
    said: list[str] = []
    data = load(images(tmp_path / "pets", *names), said)
    assert data.targets.names == sorted([*names[:-1], "café"])
    assert r"'new\nline'" in "\n".join(said)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_not_text(tmp_path: Path) -> None:
    root = images(tmp_path / "pets", "cat")
    (Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))).mkdir()
    for name in (b"/caf\xe9/0.png", b"/caf\xe9/1.png", b"/cat/\xff.png"):
        save_image(os.fsdecode(os.fsencode(root) + name))
    data = load(root)
    assert data.targets.names == [r"caf\xe9", "cat"]
    assert len(data.train) == 6
    assert all(image.size[1] == 9 for image in data.train["image"])


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    root = images(tmp_path / "pets", "cat", "dog", "__MACOSX/cat", "cat/.ipynb_checkpoints")
    for name in ("cat/a.heic", "cat/b.HEIC", "cat/noending", "cat/._0.png", "Thumbs.db", "dog/.DS_Store", "notes.md"):
        (root / name).write_bytes(b"x")
    save_image(root / "preview.png")
    (root / "cat" / "gone.png").symlink_to("/nowhere/at/all.png")
    (root / "cat" / "circle").symlink_to(root)
    os.mkfifo(root / "dog" / "pipe.png")
    said: list[str] = []
    data = load(root, said)
    assert counts(data) == {"train": 6}
    assert data.targets.names == ["cat", "dog"]
    text = "\n".join(said)
    assert f"Found in {root}: 6 train images." in text
    assert "2 classes, from column 'label': 'cat', 'dog'" in text
    for part in (
        "hidden or system files (3)", ".heic (2)", "broken links or special files (2)", "without extension (1)",
        "images outside of the class folders (1)", "'cat/circle', the same folder as '.' (1)", "__MACOSX/ (1)",
    ):  # fmt: skip
        assert part in text


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no image and no table in '.*phone' that can be read \(\.heic \(1\)\)"):
        load(tmp_path / "phone")


def test_links_are_followed(tmp_path: Path) -> None:
    store = images(tmp_path / "store", "c", "d")
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "cat").symlink_to(store / "c")
    (tmp_path / "pets" / "dog").mkdir()
    (tmp_path / "pets" / "dog" / "linked.png").symlink_to(store / "d" / "0.png")
    data = load(tmp_path / "pets")
    assert counts(data) == {"train": 4}
    assert data.targets.names == ["cat", "dog"]


@pytest.mark.parametrize("test", [["test"], ["test/test"], ["test/images"]])
@pytest.mark.parametrize("validation", [True, False])
def test_an_unlabelled_split_next_to_labelled_ones(
    tmp_path: Path, test: list[str], validation: bool, caplog: pytest.LogCaptureFixture
) -> None:
    data = load(images(tmp_path / "pets", *both("train", *(["val"] if validation else [])), *test))
    assert counts(data) == {"train": 6, **({"validation": 6} if validation else {})}
    assert "Split 'test' of" in caplog.text
    assert "has no labels and is left out" in caplog.text


def test_images_without_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has images but no labels: put them into a folder for each class"):
        load(images(tmp_path / "flat"))
    with pytest.raises(DataError, match="There is one class only in column 'label', 'cat': add images"):
        load(images(tmp_path / "one", "cat"))


def test_nested_class_folders(tmp_path: Path) -> None:
    said: list[str] = []
    root = images(tmp_path / "zoo", "a/cat", "a/dog", "b/cat")
    assert truth_of(load(root, said)) == {("cat", "cat"), ("dog", "dog")}
    assert "class 'cat' unites 'a/cat', 'b/cat'" in "\n".join(said)
    assert load(root, options={"classes": "outermost"}).targets.names == ["a", "b"]
    below = load(images(tmp_path / "below", "cat", "cat/kittens", "dog"))
    assert truth_of(below) == {("cat", "cat"), ("kittens", "cat"), ("dog", "dog")}
    with pytest.raises(DataError, match="classes='deepest' is unknown: use 'innermost' or 'outermost'"):
        load(root, options={"classes": "deepest"})


def test_class_folders_at_different_depths_are_asked(tmp_path: Path) -> None:
    root = images(tmp_path / "zoo", "cat/siamese", "cat/tabby", "dog")
    with pytest.raises(DataError, match=r"different depths \('dog', 'cat/siamese'\).*\"outermost\".*\"innermost\""):
        load(root)
    assert load(root, options={"classes": "outermost"}).targets.names == ["cat", "dog"]
    assert load(root, options={"classes": "innermost"}).targets.names == ["dog", "siamese", "tabby"]


def test_empty_class_folders(tmp_path: Path) -> None:
    root = images(tmp_path / "pets", *both("train", "val"))
    (root / "val" / "bird").mkdir()
    (root / "docs").mkdir()
    said: list[str] = []
    assert counts(load(root, said)) == {"train": 6, "validation": 6}
    assert "folder 'val/bird' holds no image" in "\n".join(said)
    (root / "train" / "bird").mkdir()
    (root / "train" / "bird" / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"Folder 'train/bird' in .* holds no image that can be read"):
        load(root)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (["cat", "zebra"], r"split 'test', column 'label': label 'zebra' is not one of the 2 classes \(cat, dog\): "),
        (["Cat", "dog"], r"label 'Cat' is not one of the 2 classes \(cat, dog\), though 'cat' is"),
        (["Cat"], "though 'cat' is"),
    ],
)
def test_a_class_that_the_training_images_lack(tmp_path: Path, test: list[str], message: str) -> None:
    root = images(tmp_path / "pets", *both("train"), *(f"test/{name}" for name in test))
    with pytest.raises(LabelError, match=message):
        load(root)


def test_fewer_classes_in_test_keep_their_numbers(tmp_path: Path) -> None:
    data = load(images(tmp_path / "pets", "train/ant", "train/cat", "train/dog", "test/cat", "test/dog"))
    assert truth_of(data, "test") == {("cat", "cat"), ("dog", "dog")}


def test_the_same_image_in_two_splits_is_said(tmp_path: Path) -> None:
    root = images(tmp_path / "pets", *both("train", "test"))
    shutil.copy(root / "train" / "cat" / "0.png", root / "test" / "cat" / "copy.png")
    said: list[str] = []
    load(root, said)
    assert "1 image is in both 'test' and 'train'" in "\n".join(said)


@pytest.mark.parametrize("link", ["again", "zz/deep", "kitten"])
def test_a_folder_is_read_once_and_in_its_own_place(tmp_path: Path, link: str) -> None:
    root = images(tmp_path / "pets", "real/cat", "real/dog")
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(root / "real" / ("cat" if link == "kitten" else ""))
    said: list[str] = []
    data = load(root, said)
    assert counts(data) == {"train": 6}
    assert data.targets.names == ["cat", "dog"]
    assert f"'{link}', the same folder as 'real" in "\n".join(said)


def test_links_that_multiply_end(tmp_path: Path) -> None:
    root = images(tmp_path / "pets", "cat", "dog", *(f"dog/{level}" for level in range(20)))
    for level in range(19):
        for link in range(3):
            (root / "dog" / str(level) / f"link{link}").symlink_to(root / "dog" / str(level + 1))
    assert counts(load(root)) == {"train": 66}
