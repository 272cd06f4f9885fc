"""Folders of images are read by one rule; whatever is ambiguous stops with a sentence that says how to settle it."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from antehoc_hf.training.data import ImageData, load_image_data
from antehoc_hf.training.data.errors import DataError, LabelError
from antehoc_hf.training.data.layout import role_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def save_image(path: Path | str) -> None:
    """An image like no other: its colour depends on its path."""
    digest = hashlib.sha256(os.fsencode(path)).digest()
    Image.new("RGB", (8, 9), (digest[0], digest[1], digest[2])).save(path, "PNG")


def images(root: Path, *folders: str, count: int = 3, name: str = "{}.png") -> Path:
    for folder in folders or ("",):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            save_image(root / folder / name.format(number))
    return root


def both(*splits: str) -> list[str]:
    return [f"{split}/{name}" for split in splits for name in ("cat", "dog")]


def load(root: Path | str, said: list[str] | None = None, **options: Any) -> ImageData:
    report = said.append if said is not None else lambda text: None
    return load_image_data(root, validation_fraction=0, report=report, **options)


def counts(data: ImageData) -> dict[str, int]:
    return {role: len(split) for role, split in data.splits.items()}


def truth_of(data: ImageData, role: str = "train") -> set[tuple[str, str]]:
    """(folder that an image lies in, name of the class that it has)."""
    dataset = data.splits[role].dataset
    cells = dataset.cast_column("image", datasets.Image(decode=False))[:]
    names = [data.targets.names[int(index)] for index in data.targets.tensor(cells["label"])]
    return {(Path(cell["path"]).parent.name, name) for cell, name in zip(cells["image"], names, strict=True)}


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


def archive(path: Path, folder: Path, names: Sequence[str] = ("cat", "dog")) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted(image for name in names for image in (folder / name).rglob("*")):
            file.write(image, image.relative_to(folder))


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


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "TGZ", "tar.bz2", "tar.xz"])
def test_tar_archives_of_class_folders(tmp_path: Path, ending: str) -> None:
    unpacked = images(tmp_path / "unpacked", *both("train", "test"))
    root = tmp_path / "pets"
    root.mkdir()
    packing = ending.lower().rsplit(".", 1)[-1].removeprefix("t").removeprefix("ar")
    with tarfile.open(root / f"all.{ending}", "w:" + packing) as file:
        file.add(unpacked, ".")
    for path in (root, root / f"all.{ending}"):
        data = load(path)
        assert counts(data) == {"train": 6, "test": 6}
        assert truth_of(data, "test") == {("cat", "cat"), ("dog", "dog")}


def test_archives_in_archives(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for split in ("train", "test"):
        archive(inner / f"{split}.zip", images(tmp_path / split, "cat", "dog"))
    (tmp_path / "pets").mkdir()
    shutil.make_archive(str(tmp_path / "pets" / "all"), "zip", inner)
    assert counts(load(tmp_path / "pets")) == {"train": 6, "test": 6}


@pytest.mark.parametrize("kind", ["upwards", "absolute", "link"])
def test_an_archive_writes_and_reads_nothing_elsewhere(tmp_path: Path, kind: str) -> None:
    root = images(tmp_path / "pets", "cat", "dog")
    name = {"upwards": "../../evil.png", "absolute": f"{tmp_path}/evil.png", "link": "cat/link.png"}[kind]
    with tarfile.open(root / "train.tar.gz", "w:gz") as file:
        file.add(root / "cat" / "0.png", "cat/0.png")
        member = tarfile.TarInfo(name)
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(member, io.BytesIO())
    with contextlib.suppress(DataError):  # an absolute name loses its beginning
        load(root / "train.tar.gz")
    assert not list(tmp_path.rglob("evil.png")) or kind == "absolute"
    assert not (tmp_path / "evil.png").exists()
    assert not any(path.is_symlink() for path in (tmp_path / "cache").rglob("*"))


def test_archives_of_class_folders(tmp_path: Path) -> None:
    unpacked = images(tmp_path / "unpacked", "cat", "dog")
    root = tmp_path / "pets"
    root.mkdir()
    for split in ("train", "test"):
        archive(root / f"{split}.zip", unpacked)
    data = load(root)
    assert counts(data) == {"train": 6, "test": 6}
    assert truth_of(data) == {("cat", "cat"), ("dog", "dog")}
    assert counts(load(root / "train.zip")) == {"train": 6}
    # Made anew when it changes, and not read next to a folder of its name.
    images(unpacked, "dog", count=5)
    archive(root / "train.zip", unpacked)
    assert counts(load(root)) == {"train": 8, "test": 6}
    images(root, *both("train"))
    assert counts(load(root)) == {"train": 6, "test": 6}


def test_damaged_archives(tmp_path: Path) -> None:
    (tmp_path / "train.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"'.*train\.zip' can't be read as a ZIP archive"):
        load(tmp_path / "train.zip")
    (tmp_path / "train.tgz").write_bytes(gzip.compress(b"no archive" * 100))
    with pytest.raises(DataError, match=r"'.*train\.tgz' can't be read as a tar archive"):
        load(tmp_path / "train.tgz")
    archive(tmp_path / "pets.zip", images(tmp_path / "unpacked", "cat", "dog"))
    content = bytearray((tmp_path / "pets.zip").read_bytes())
    content[60:80] = bytes(20)
    (tmp_path / "pets.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"'.*pets\.zip' can't be unpacked \(.*\): unpack it by hand"):
        load(tmp_path / "pets.zip")


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json"])
def test_paths_in_tables_are_relative_to_the_table(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = images(tmp_path / "pets", "photos", count=4)
    rows = [{"path": f"photos/{number}.png", "label": "cat" if number % 2 else "dog"} for number in range(4)]
    rows[3]["path"] = str(root / "photos" / "3.png")
    separator = "\t" if ending == "tsv" else ","
    lines = [separator.join(rows[0]), *(separator.join(row.values()) for row in rows)]
    texts = {"jsonl": "\n".join(map(json.dumps, rows)), "json": json.dumps(rows)}
    (root / f"labels.{ending}").write_text(texts.get(ending, "\n".join(lines)))
    monkeypatch.chdir(tmp_path.parent)
    for source in (root, root / f"labels.{ending}"):
        data = load(source)
        assert data.train["path"][:] == [str(root / "photos" / f"{number}.png") for number in range(4)]
        assert data.targets.names == ["cat", "dog"]


def test_tables_that_the_options_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = images(tmp_path / "pets", "tables/photos", count=2)
    for split in ("one", "two"):
        (root / "tables" / f"{split}.csv").write_text("path,label\nphotos/0.png,cat\nphotos/1.png,dog\n")
    expected = [str(root / "tables" / "photos" / f"{number}.png") for number in range(2)]
    files = {"train": "tables/one.csv", "test": ["tables/two.csv"]}
    data = load(root, options={"data_files": files})
    assert data.train["path"][:] == data.test["path"][:] == expected
    monkeypatch.chdir(tmp_path)
    assert load("csv", options={"data_files": "pets/tables/one.csv"}).train["path"][:] == expected


def test_tables_belong_to_the_split_of_their_name(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    (root / "data").mkdir(parents=True)
    for name, count in (("Train-00000-of-00002", 2), ("Train-00001-of-00002", 3), ("test_results", 4)):
        table = {"image": ["x.png"] * count, "label": [f"{index % 2}" for index in range(count)]}
        datasets.Dataset.from_dict(table).to_parquet(root / "data" / f"{name}.parquet")
    with pytest.raises(DataError, match=r"tables of the splits 'Train' and others \('test_results.parquet'\): say"):
        load(root)
    assert counts(load(root, train_split="Train")) == {"train": 5}
    assert counts(load(root, train_split="Train", test_split="test_results")) == {"train": 5, "test": 4}
    (root / "data" / "test_results.parquet").rename(root / "data" / "test.parquet")
    assert counts(load(root)) == {"train": 5, "test": 4}


def test_images_with_metadata(tmp_path: Path) -> None:
    root = images(tmp_path / "pets", "Training", "Testing", count=10, name="test_{}.png")
    for folder in ("Training", "Testing"):
        rows = [{"file_name": f"test_{number}.png", "age": number / 2} for number in range(9)]
        (root / folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said: list[str] = []
    data = load(root, said, label_column="age")
    assert counts(data) == {"train": 9, "test": 9}
    assert data.targets.problem_type == "regression"
    assert "images that the metadata do not list (2)" in "\n".join(said)


def test_rows_without_a_label_are_left_out_if_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = images(tmp_path / "pets", "train", "test", count=6)
    for split, labels in (
        ("train", ["cat", "", "dog", "cat", "", "dog"]),
        ("test", ["", "cat", "dog", "", "", "cat"]),
    ):
        rows = [f"{number}.png,{label}" for number, label in enumerate(labels)]
        (root / split / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    with pytest.raises(LabelError) as caught:
        load(root)
    sentence = str(caught.value)
    assert sentence.startswith("Row 1 of split 'train', column 'label': there is no label")
    assert sentence.endswith("; --on_missing_label skip leaves out the rows that have none (2).")
    data = load(root, on_missing_label="skip")
    assert counts(data) == {"train": 4, "test": 3}
    assert data.test["label"] == ["cat", "dog", "cat"]
    assert data.splits["test"].where(2) == "Row 5 of split 'test'"
    assert "3 of 6 test images have nothing in 'label' and are left out." in caplog.text


@pytest.mark.parametrize("labels", [[0, -1, 1, 1], [0, None, 1, 1]])
def test_numbers_that_stand_for_no_label_are_left_out_likewise(labels: list[int | None]) -> None:
    given = datasets.Dataset.from_dict({"image": ["x.png"] * 4, "label": labels})
    with pytest.raises(LabelError, match=r"Row 1 of split 'train'.*rows that have none \(1\)"):
        load_image_data(given, validation_fraction=0)
    data = load_image_data(given, validation_fraction=0, on_missing_label="skip")
    assert data.train is not None
    assert data.train["label"] == [0, 1, 1]


def test_metadata_above_the_splits(tmp_path: Path) -> None:
    root = images(tmp_path / "pets", "train", "test", count=4)
    rows = [f"{split}/{number}.png,{'ab'[number % 2]}" for split in ("train", "test") for number in range(4)]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    data = load(root)
    assert counts(data) == {"train": 4, "test": 4}
    assert Counter(data.test["label"]) == {"a": 2, "b": 2}


def test_a_copy_of_a_repository_says_itself_what_its_splits_are(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    root.mkdir()
    for name in ("a", "b"):
        datasets.Dataset.from_dict({"image": ["x.png"] * 4, "label": ["0", "1"] * 2}).to_parquet(
            root / f"{name}.parquet"
        )
    text = "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: b.parquet}\n"
    (root / "README.md").write_text(f"---\n{text}---\n# Pets\n")
    assert counts(load(root)) == {"train": 4}
