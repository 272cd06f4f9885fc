"""Data sets are found by name or folder, with their splits; what goes wrong is said in one sentence."""

import time
from collections import Counter
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from PIL import Image

from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.sources import Source, load_source
from antehoc_hf.training.data.splits import Split, find_splits, hold_out, take


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def numbered(count: int, name: str = "train") -> Split:
    return Split(name, Dataset.from_dict({"row": list(range(count))}), np.arange(count))


def source(*names: str, rows: int = 3) -> Source:
    return Source("pets", {name: Dataset.from_dict({"row": list(range(rows))}) for name in names})


def image_folder(root: Path, *folders: str, images: int = 2) -> Path:
    for index, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for number in range(images):
            Image.new("RGB", (8, 8), (index * 20, number * 20, 0)).save(root / folder / f"{number}.png")
    return root


def one_sentence(caught: pytest.ExceptionInfo[DataError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def test_image_folder(tmp_path: Path) -> None:
    found = load_source(image_folder(tmp_path / "pets", "cat", "dog"))
    assert list(found.splits) == ["train"]
    assert found.splits["train"].features["label"].names == ["cat", "dog"]
    assert len(found.splits["train"]) == 4


def test_image_folder_with_splits(tmp_path: Path) -> None:
    found = load_source(str(image_folder(tmp_path / "pets", "train/cat", "train/dog", "val/cat", "val/dog")))
    assert {name: len(split) for name, split in find_splits(found).items()} == {"train": 4, "validation": 4}


def test_an_empty_name_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image_folder(tmp_path / "pets", "cat", "dog"))
    with pytest.raises(DataError, match="name is empty"):
        load_source("")
    assert len(load_source(".").splits["train"]) == 4


@pytest.mark.parametrize("nested", ["", "train/"])
def test_class_folder_without_image(tmp_path: Path, nested: str) -> None:
    root = image_folder(tmp_path / "pets", f"{nested}cat", f"{nested}dog")
    (root / nested / "bird").mkdir()
    (root / nested / "bird" / "notes.md").write_text("none yet")
    with pytest.raises(DataError, match=r"bird' in .* holds no image"):
        load_source(root)


def test_other_folders_are_no_class_folders(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "pets", "cat", "dog")
    (root / ".git").mkdir()
    assert len(load_source(root).splits["train"]) == 4
    root = image_folder(tmp_path / "table", "figures")
    (root / "data").mkdir()
    Dataset.from_dict({"row": [1, 2, 3]}).to_parquet(root / "data" / "train.parquet")
    assert list(load_source(root).splits) == ["train"]


@pytest.mark.parametrize("several", [True, False])
def test_saved_to_disk(tmp_path: Path, several: bool) -> None:
    data = Dataset.from_dict({"row": [1, 2]})
    (DatasetDict({"train": data, "test": data}) if several else data).save_to_disk(tmp_path / "saved")
    found = load_source(tmp_path / "saved")
    assert list(found.splits) == (["train", "test"] if several else ["train"])


def test_data_set_in_memory() -> None:
    data = Dataset.from_dict({"row": [1, 2]})
    assert load_source(data).splits["train"] is data
    assert load_source(DatasetDict({"test": data})).splits["test"] is data


def test_shapes_by_name() -> None:
    found = find_splits(load_source("shapes", options={"train": 6, "validation": 2, "test": 0, "image_size": 32}))
    assert {name: len(split) for name, split in found.items()} == {"train": 6, "validation": 2}
    with pytest.raises(DataError, match=r"options of the data set 'shapes' don't fit: .*colour"):
        load_source("shapes", options={"colour": "red"})
    with pytest.raises(DataError, match=r"options of the data set 'shapes' don't fit: .*image_size"):
        load_source("shapes", options={"image_size": 1})


def test_commit_is_read_from_the_download(tmp_path: Path) -> None:
    data = Dataset.from_dict({"row": [1]})
    assert load_source(data).revision is None
    commit = "0123456789abcdef0123456789abcdef01234567"
    data.info.download_checksums = {f"hf://datasets/org/pets@{commit}/data/train.parquet": {}}
    assert load_source(data).revision == commit


def test_folder_that_is_not_there() -> None:
    for name in ("./no/such/folder", "/no/such/folder", "~/no_such_folder", "a/b/c"):
        with pytest.raises(DataError, match=r"There is no folder '.*': check the path"):
            load_source(name)


def test_folder_with_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=r"There is no image and no table in .*nothing.*it is empty") as caught:
        load_source(tmp_path / "nothing")
    one_sentence(caught)


def test_file_revision_config_and_options_that_do_not_fit(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "pets", "cat", "dog")
    with pytest.raises(DataError, match="is a file: give the folder"):
        load_source(root / "cat" / "0.png")
    with pytest.raises(DataError, match="revision='main' is for data sets on the Hub"):
        load_source(root, revision="main")
    with pytest.raises(DataError, match=r"names no configurations: leave --dataset_config large out"):
        load_source(root, config="large")
    with pytest.raises(DataError, match="train_split"):
        load_source(root, options={"split": "train"})
    with pytest.raises(DataError, match="leave streaming out"):
        load_source(root, options={"streaming": True})


def test_offline_is_one_sentence_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        load_source("some-org/no-such-data")
    assert time.monotonic() - start < 5
    message = one_sentence(caught)
    assert "'some-org/no-such-data'" in message
    assert "HF_HUB_OFFLINE" in message
    assert "path of a local folder" in message


@pytest.mark.slow
def test_no_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="the Hub can't be reached") as caught:
        load_source("some-org/no-such-data")
    one_sentence(caught)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train", "valid"], {"train": "train", "validation": "valid"}),
        (["training", "val", "testing"], {"train": "training", "validation": "val", "test": "testing"}),
        (["train", "dev", "test"], {"train": "train", "validation": "dev", "test": "test"}),
        (["Train", "Validation"], {"train": "Train", "validation": "Validation"}),
        (["train", "test", "unsupervised"], {"train": "train", "test": "test"}),
        (["full"], {"train": "full"}),
        (["test"], {"test": "test"}),
    ],
)
def test_splits_go_by_many_names(names: list[str], expected: dict[str, str]) -> None:
    assert {role: split.name for role, split in find_splits(source(*names)).items()} == expected


def test_splits_can_be_named() -> None:
    found = find_splits(source("small", "large", "test"), {"train": "large", "validation": "test"})
    assert {role: split.name for role, split in found.items()} == {
        "train": "large",
        "validation": "test",
        "test": "test",
    }


def test_wrong_splits() -> None:
    with pytest.raises(DataError, match=r"pets has no split 'holdout': it has 'train', 'test'\."):
        find_splits(source("train", "test"), {"validation": "holdout"})
    with pytest.raises(DataError, match=r"No split of pets has a usual name: name them .'a', 'b'."):
        find_splits(source("a", "b"))
    with pytest.raises(DataError, match="is also the training split"):
        find_splits(source("train"), {"validation": "train"})
    with pytest.raises(DataError, match="Split 'train' of pets is empty"):
        find_splits(source("train", rows=0))


def test_hold_out_is_disjoint_complete_and_repeats_itself() -> None:
    kept, held = hold_out(numbered(50), 0.1, seed=3)
    assert len(held) == 5
    assert sorted([*kept.rows, *held.rows]) == list(range(50))
    assert kept.dataset["row"][:] == kept.rows.tolist()
    again = hold_out(numbered(50), 0.1, seed=3)[1]
    assert again.rows.tolist() == held.rows.tolist()
    assert hold_out(numbered(50), 0.1, seed=4)[1].rows.tolist() != held.rows.tolist()


def test_hold_out_is_stratified() -> None:
    strata = [0] * 60 + [1] * 30 + [2] * 10
    _, held = hold_out(numbered(100), 0.1, 0, strata)
    assert Counter(strata[row] for row in held.rows) == {0: 6, 1: 3, 2: 1}
    # 15 of 3 · 33 rows: 5 a class; 10 of them: 3, 3, 3 and one more.
    thirds = [0] * 33 + [1] * 33 + [2] * 33
    _, held = hold_out(numbered(99), 0.1, 0, thirds)
    assert sorted(Counter(thirds[row] for row in held.rows).values()) == [3, 3, 4]


def test_hold_out_never_takes_the_last_of_a_class() -> None:
    strata = [0, 1, 2, 3, 4, 4, 4, 4]
    kept, held = hold_out(numbered(8), 0.5, 0, strata)
    assert {strata[row] for row in kept.rows} == {0, 1, 2, 3, 4}
    assert len(held) >= 1


def test_hold_out_of_few_rows() -> None:
    kept, held = hold_out(numbered(2), 0.1, 0, [0, 1])
    assert (len(kept), len(held)) == (1, 1)
    with pytest.raises(DataError, match="has 1 row, too few to hold out"):
        hold_out(numbered(1), 0.1, 0)
    with pytest.raises(DataError, match=r"validation_fraction=1.5 must lie between 0 and 1"):
        hold_out(numbered(10), 1.5, 0)


def test_subsets_repeat_themselves_and_nest() -> None:
    small, large = take(numbered(100), 10, seed=1), take(numbered(100), 30, seed=1)
    assert len(small) == 10
    assert set(small.rows) < set(large.rows)
    assert small.rows.tolist() == take(numbered(100), 10, seed=1).rows.tolist()
    assert small.rows.tolist() != take(numbered(100), 10, seed=2).rows.tolist()
    assert small.rows.tolist() != list(range(10))
    assert len(take(numbered(5), 10, 0)) == len(take(numbered(5), None, 0)) == 5
    with pytest.raises(DataError, match="max_train_samples=0 must be at least 1"):
        take(numbered(5), 0, 0, "max_train_samples")


def test_rows_are_remembered_through_selections() -> None:
    split = numbered(10).select(np.array([8, 2, 5])).without([1])
    assert split.dataset["row"][:] == [8, 5]
    assert split.where(1) == "Row 5 of split 'train'"
