"""Data sets of images come from the Hub, and are read by the rule of `docs/data.md` there as well."""

import io
import tarfile
from typing import Any

import pytest
from conftest import Client
from local_hub import Fault, LocalHub
from PIL import Image

LOAD = """
import datasets
from antehoc_hf.training.data import load_image_data
datasets.disable_progress_bars()
data = load_image_data(name, validation_fraction=0, **options)
splits = {role: [split.name, len(split)] for role, split in data.splits.items()}
column = data.targets.column
truth = sorted({
    (row[data.image_column].getpixel((0, 0))[0] // 50, data.targets.names[data.targets.encode(row[column])])
    for split in data.splits.values() for row in split.dataset
})
tell([splits, data.targets.names, truth, data.name, data.revision])
"""


def photo(shade: int, number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (50 * shade + 25, number, 0)).save(stream, "PNG")
    return stream.getvalue()


def photos(*folders: str, shades: tuple[str, ...] = ("cat", "dog"), name: str = "{}.png") -> dict[str, bytes]:
    """Two images a class folder, cats darker than dogs, none of them twice."""
    return {
        f"{folder}/{kind}/{name.format(number)}": photo(shade, 100 * place + number)
        for place, folder in enumerate(folders)
        for shade, kind in enumerate(shades)
        for number in range(2)
    }


def readme(text: str) -> dict[str, bytes]:
    return {"README.md": f"---\n{text}---\n# Pets\n".encode()}


CONFIGS = "configs:\n- config_name: a\n  data_dir: first\n- config_name: b\n  data_dir: second\n"
PATTERN = "configs:\n- config_name: default\n  data_files: '**'\n"
SPLITS = (
    "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: 'one/**'}\n"
    "  - {split: test, path: 'two/**'}\n"
)
NAMED = "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: 'one/**'}\n"
INFO = (
    "dataset_info:\n  features:\n  - {name: image, dtype: image}\n  - name: label\n    dtype:\n      class_label:\n"
    "        names:\n          '0': cat\n          '1': dog\n"
)


@pytest.mark.parametrize(
    ("name", "files", "options", "splits"),
    [
        ("capitals", photos("Training", "Testing"), {}, {"train": ["Training", 4], "test": ["Testing", 4]}),
        ("info", photos("Train", "Test") | readme(INFO), {}, {"train": ["Train", 4], "test": ["Test", 4]}),
        ("pattern", photos("trainset", "TEST") | readme(PATTERN), {}, {"train": ["trainset", 4], "test": ["TEST", 4]}),
        ("files", photos("all", name="{}_test.png"), {}, {"train": ["train", 4]}),
        ("configs", photos("first/Train", "first/Val", "second/x") | readme(CONFIGS), {"config": "a"},
         {"train": ["Train", 4], "validation": ["Val", 4]}),
        ("splits", photos("one", "two") | readme(SPLITS), {}, {"train": ["train", 4], "test": ["test", 4]}),
    ],
)  # fmt: skip
def test_splits_and_classes(
    hub: LocalHub, client: Client, name: str, files: dict[str, bytes], options: dict[str, Any], splits: dict[str, Any]
) -> None:
    hub.add(f"jane/{name}", files)
    done = client.run(LOAD, name=f"jane/{name}", options=options)
    assert done.error is None, done.error[2]
    commit = hub.store.repos[f"jane/{name}"].branches["main"]
    assert done.answer[:4] == [splits, ["cat", "dog"], [[0, "cat"], [1, "dog"]], f"jane/{name}"]
    assert done.answer[4] in ([None, commit] if name == "splits" else [commit])  # of splits datasets 4 knows it, 5 not
    offline = LOAD.replace("import datasets", "import datasets\ndatasets.config.HF_HUB_OFFLINE = True", 1)
    asked = len(hub.log)
    again = client.run(offline + "datasets.config.HF_HUB_OFFLINE = False", name=f"jane/{name}", options=options)
    assert again.error is None, again.error[2]
    assert again.answer[:4] == done.answer[:4]
    assert len(hub.log) == asked or name == "splits"


def test_a_table_has_the_classes_that_its_readme_names(hub: LocalHub, client: Client) -> None:
    rows = "".join(
        f"images/{kind}/{number}.png,{label}\n" for label, kind in enumerate(("cat", "dog")) for number in range(2)
    )
    files = photos("images") | readme(INFO) | {"train.csv": f"image,label\n{rows}".encode()}
    hub.add("jane/table", {name: files[name] for name in files if name != "README.md"} | readme(INFO))
    done = client.run(LOAD, name="jane/table", options={})
    assert done.error is None, done.error[2]
    assert done.answer[1:3] == [["cat", "dog"], [[0, "cat"], [1, "dog"]]]


def test_files_that_number_their_classes_differently(hub: LocalHub, client: Client) -> None:
    write = """
import datasets
for name, names in (("a", ["cat", "dog"]), ("b", ["dog", "cat"])):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [{"bytes": picture, "path": None} for picture in map(bytes.fromhex, photos)], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(f"{name}.parquet")
"""
    done = client.run(write, photos=[photo(shade, 0).hex() for shade in range(2)])
    assert done.error is None, done.error[2]
    tables = {f"one/{name}.parquet": (client.home / f"{name}.parquet").read_bytes() for name in "ab"}
    hub.add("jane/numbers", tables | readme(NAMED))
    done = client.run(LOAD, name="jane/numbers", options={})
    assert done.error[0] == "DataError"
    assert (
        "b.parquet numbers the classes of 'label' as 'dog', 'cat', the other files as 'cat', 'dog': write"
        in done.error[1]
    )


def test_an_archive(hub: LocalHub, client: Client) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in photos("Train", "Test").items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    hub.add("jane/archive", {"data.tar.gz": stream.getvalue()})
    done = client.run(LOAD, name="jane/archive", options={})
    assert done.error is None, done.error[2]
    assert done.answer[0] == {"train": ["Train", 4], "test": ["Test", 4]}


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("configs", {}, "jane/configs has several configurations ('a', 'b'): name one, such as --dataset_config a."),
        ("configs", {"config": "c"}, "jane/configs has no configuration 'c' ('a', 'b'): name one, such as --dataset"),
        ("capitals", {"config": "c"}, "jane/capitals names no configurations: leave --dataset_config c out."),
        ("outside", {}, "The README of jane/outside names a data_dir outside of it, '../../secret'."),
        ("malformed", {}, "The README of jane/malformed can't be read ("),
        ("nothing", {}, "Data set 'jane/nothing' is not a folder here, and not on the Hub or not open to you: check"),
        ("script", {}, "Data set 'jane/script' is a script, which `datasets` no longer runs: use a copy in Parquet."),
        ("texts", {}, "There is no image and no table in 'jane/texts' that can be read (.txt (1)): check the path."),
        ("capitals", {"revision": "v9"}, "Data set 'jane/capitals'"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_is_one_sentence(
    hub: LocalHub, client: Client, name: str, options: dict[str, Any], sentence: str
) -> None:
    repositories = {
        "configs": photos("first", "second") | readme(CONFIGS),
        "capitals": photos("Training", "Testing"),
        "outside": photos("x") | readme("configs:\n- config_name: default\n  data_dir: ../../secret\n"),
        "malformed": photos("x") | readme("configs: [{a: b"),
        "script": {"script.py": b"raise SystemExit"},
        "texts": {"a.txt": b"x"},
    }
    if name in repositories:
        hub.add(f"jane/{name}", repositories[name])
    done = client.run(LOAD, name=f"jane/{name}", options=options)
    assert done.error is not None
    assert done.error[1].startswith(sentence), done.error[1]
    assert "\n" not in done.error[1]


def test_a_download_that_breaks_off(hub: LocalHub, client: Client) -> None:
    hub.add("jane/broken", photos("Train", "Test", name="broken{}.png"))
    with hub.fault(Fault("large", 500, times=100)):
        done = client.run(LOAD, name="jane/broken", options={})
    assert done.error[1].startswith("Data set 'jane/broken' can't be downloaded: "), done.error
    assert client.run(LOAD, name="jane/broken", options={}).answer[0] == {"train": ["Train", 4], "test": ["Test", 4]}
