"""Archives are read as the folders in them are, and tables with the images that they name."""

import contextlib
import gzip
import io
import json
import re
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from image_folders import both, counts, images, load, truth_of

from antehoc_hf.training.data import load_image_data
from antehoc_hf.training.data.errors import DataError, LabelError

pytestmark = pytest.mark.usefixtures("own_cache")


def archive(path: Path, folder: Path, names: Sequence[str] = ("cat", "dog")) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted(image for name in names for image in (folder / name).rglob("*")):
            file.write(image, image.relative_to(folder))


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


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_within_an_archive_is_the_image_it_names(tmp_path: Path, kind: bytes) -> None:
    root = images(tmp_path / "pets", "cat", "dog")
    with tarfile.open(tmp_path / "train.tar", "w") as file:
        for name in ("cat", "dog"):
            file.add(root / name, name)
        member = tarfile.TarInfo("dog/again.png")
        member.type, member.linkname = kind, "0.png" if kind == tarfile.SYMTYPE else "dog/0.png"
        file.addfile(member)
    assert counts(load(tmp_path / "train.tar")) == {"train": 7}


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_what_is_no_file_is_not_unpacked(tmp_path: Path, kind: bytes) -> None:
    root = images(tmp_path / "pets", "cat", "dog")
    with tarfile.open(tmp_path / "train.tar", "w") as file:
        for name in ("cat", "dog"):
            file.add(root / name, name)
        member = tarfile.TarInfo("../outside" if kind == tarfile.DIRTYPE else "dog/odd.png")
        member.type = kind
        file.addfile(member)
    with pytest.raises(DataError, match=r"outside|odd"):
        load(tmp_path / "train.tar")
    assert not list((tmp_path / "cache").rglob("o*"))


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


def _with_classes(path: Path, names: Sequence[str]) -> None:
    types = datasets.Features({"image": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))})
    table = {"image": ["x.png"] * 4, "label": ["cat", "dog"] * 2}
    datasets.Dataset.from_dict(table, features=types).to_parquet(path)


SPLITS = "configs:\n- config_name: default\n  data_files:\n"
SPLITS += "  - {split: train, path: train*}\n  - {split: test, path: test*}\n"
INFO = "dataset_info:\n  features:\n  - {name: image, dtype: string}\n  - name: label\n    dtype:\n"
INFO += "      class_label:\n        names: {'0': cat, '1': dog}\n"


@pytest.mark.parametrize(
    ("head", "other"), [(SPLITS, "test"), (INFO, "test"), (INFO, "train-00001-of-00002"), ("", "train-00001-of-00002")]
)
def test_files_that_number_their_classes_differently(tmp_path: Path, head: str, other: str) -> None:
    """`datasets` takes the numbers of one file for those of another."""
    root = tmp_path / "pets"
    root.mkdir()
    _with_classes(root / "train-00000-of-00002.parquet", ["cat", "dog"])
    _with_classes(root / f"{other}.parquet", ["dog", "cat"])
    (root / "README.md").write_text(f"---\n{head}---\n")
    with pytest.raises(DataError, match=rf"{other}.parquet numbers the classes of 'label' as 'dog', 'cat', the .* as"):
        load(root)
    _with_classes(root / f"{other}.parquet", ["cat", "dog"])
    assert sum(counts(load(root)).values()) == 8


def secret_rows(tmp_path: Path, how: str) -> list[dict[str, str]]:
    names = ("cat", "dog")
    secret = images(tmp_path / "secret", *names)
    prefix = {"upwards": "../secret", "absolute": str(secret)}[how]
    return [{"image": f"{prefix}/{name}/{number}.png", "label": name} for name in names for number in range(3)]


@pytest.mark.parametrize("how", ["upwards", "absolute"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "saved"])
def test_a_table_in_a_folder_leads_not_out_of_it(tmp_path: Path, kind: str, how: str) -> None:
    rows, root = secret_rows(tmp_path, how), tmp_path / "pets"
    root.mkdir()
    table = datasets.Dataset.from_list(rows)
    if kind == "saved":
        table.save_to_disk(root)
    else:
        getattr(table, {"csv": "to_csv", "jsonl": "to_json", "parquet": "to_parquet"}[kind])(root / f"train.{kind}")
    with (
        contextlib.chdir(root),
        pytest.raises(DataError, match=r"/0\.png' outside of its folder: put the images there"),
    ):
        load_image_data(root)
    if kind != "saved":  # who names the table trusts it
        named = [{}, {"options": {"data_files": {"train": f"train.{kind}"}}}]
        for path, options in zip((root / f"train.{kind}", root), named, strict=True):
            with contextlib.chdir(root):
                assert counts(load_image_data(path, validation_fraction=0.0, **options)) == {"train": 6}


def test_images_by_path_in_a_folder_of_parquet(tmp_path: Path) -> None:
    rows, root = secret_rows(tmp_path, "absolute"), tmp_path / "pets"
    root.mkdir()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    stored = datasets.Dataset.from_list([{**row, "image": {"bytes": None, "path": row["image"]}} for row in rows])
    pq.write_table(stored.data.table.replace_schema_metadata(features.arrow_schema.metadata), root / "train.parquet")
    with pytest.raises(DataError, match=r"/0\.png' outside of its folder"):
        load_image_data(root)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("data_files: ../secret/*/*.png", "names files outside of it, '../secret"),
        ("data_files: [{split: train, path: [ok.csv, /etc/passwd]}]", "names files outside of it, '/etc/passwd'"),
        ("data_dir: ../secret\n  drop_labels: false", "names a data_dir outside of it, '../secret'"),
    ],
)
def test_a_readme_leads_not_out_of_its_folder(tmp_path: Path, files: str, words: str) -> None:
    images(tmp_path / "secret", "cat", "dog")
    root = images(tmp_path / "pets", "cat", "dog")
    (root / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  {files}\n---\n")
    with pytest.raises(DataError, match=re.escape(words)):
        load_image_data(root)


@pytest.mark.parametrize("file", ["state.json", "dataset_dict.json"])
def test_a_saved_data_set_leads_not_out_of_its_folder(tmp_path: Path, file: str) -> None:
    stored = datasets.load_dataset("imagefolder", data_dir=str(images(tmp_path / "secret", "cat", "dog")))
    stored.save_to_disk(tmp_path / "other")
    root = tmp_path / "pets"
    if file == "state.json":
        stored["train"].save_to_disk(root)
        state = json.loads((root / file).read_text())
        state["_data_files"] = [{"filename": f"../other/train/{part['filename']}"} for part in state["_data_files"]]
        (root / file).write_text(json.dumps(state))
    else:
        root.mkdir()
        (root / file).write_text('{"splits": ["../other/train"]}')
    with pytest.raises(DataError, match=rf"{file} names a file outside of it, '\.\./other/train"):
        load_image_data(root)
