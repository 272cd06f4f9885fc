"""`antehoc benchmark paper` as a user meets it: tables with the paper's numbers, and nothing computed twice."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from antehoc_hf.cli import main
from antehoc_hf.commands.errors import UsageError
from antehoc_hf.paper import protocols
from antehoc_hf.paper.cells import CellStore, spread
from antehoc_hf.paper.published import ACCURACY, BINARISED, ENERGY_MAPS
from antehoc_hf.paper.tables import Table, Value

COUNTS = {"image_size": 64, "train": 16, "validation": 7, "test": 14, "seed": 0}


@pytest.fixture
def tiny_protocol(monkeypatch):
    """The CPU recipe on a few images with a tiny network: what is trained is an input of the command, not its code."""
    flags = (
        *("--recipe", "cpu", "--backbone", "test_resnet", "--image_size", "64", "--num_train_epochs", "1"),
        *("--dataset_options", json.dumps(COUNTS), "--lr_scheduler_type", "constant"),
    )
    roles = dict.fromkeys(("classifier", "comparison"), flags)
    roles["landmarks"] = ("--task", "landmark-detection", *flags[2:])
    roles["captioner"] = ("--task", "image-captioning", *flags[2:], "--min_word_count", "1")
    monkeypatch.setitem(protocols.PROTOCOLS, "cpu", replace(protocols.PROTOCOLS["cpu"], shapes=roles, noise=(0.2,)))


def run(folder, *flags):
    common = ("--dataset", "shapes", "--seeds", "0", "--images", "6", "--slow_images", "1", "--progress", "false")
    return main(["benchmark", "paper", *common, "--explainers", "grad-cam", "--output_dir", str(folder), *flags])


@pytest.mark.slow
def test_tables_are_made_once(tmp_path, tiny_protocol, capsys, monkeypatch):
    assert run(tmp_path, "--table", "2", "5", "--figure", "1") == 0
    printed = capsys.readouterr().out
    assert "### Table 2: energy maps binarised at 0.8, shapes" in printed
    assert "### Table 5: stability under noise, shapes" in printed
    for row in ("antehoc", "grad-cam", "constant 0.9", "random", "center", "sobel"):
        assert len(re.findall(rf"^\| {re.escape(row)} \|", printed, re.MULTILINE)) == 2
    tables = json.loads((tmp_path / "tables.json").read_text())["tables"]
    assert tables[0]["rows"]["black"]["map_mean"]["mean"] == 0
    for picture in ("table-2-shapes.png", "table-5-shapes.png", "figures/figure-1-shapes-0.png"):
        assert (tmp_path / picture).stat().st_size > 5000
    made = {path: path.stat().st_mtime_ns for path in Path(tmp_path).rglob("*.json") if path.name != "tables.json"}
    # The same again, and Table 1 from the cell of Table 2: nothing is trained or measured.
    assert run(tmp_path, "--table", "1", "2", "5") == 0
    printed = capsys.readouterr().out
    assert "== Training" not in printed
    assert "== Measuring" not in printed
    assert all(path.stat().st_mtime_ns == before for path, before in made.items())
    # Other settings are no reason to throw away or mix.
    assert run(tmp_path, "--table", "1") == 2
    assert "tables.json is there already, from an earlier run: name another --output_dir" in capsys.readouterr().err
    assert run(tmp_path, "--table", "1", "--images", "7", "--overwrite") == 2
    assert "was computed with images=6, not 7" in capsys.readouterr().err
    # Nor is a recipe that has changed since: neither the cell nor the network is taken for the one that is asked for.
    cpu = protocols.PROTOCOLS["cpu"]
    longer = (*cpu.shapes["classifier"], "--num_train_epochs", "2")
    monkeypatch.setitem(protocols.PROTOCOLS, "cpu", replace(cpu, shapes={**cpu.shapes, "classifier": longer}))
    assert run(tmp_path, "--table", "1", "--overwrite") == 2
    assert "was computed with training.num_train_epochs=1.0, not 2.0" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "cells")
    assert run(tmp_path, "--table", "1", "--overwrite") == 2
    assert "seed-0 was trained with num_train_epochs=1.0, not 2.0: choose another" in capsys.readouterr().err


@pytest.mark.slow
def test_figure_4_is_a_picture_and_a_table(tmp_path, tiny_protocol, capsys):
    assert run(tmp_path, "--table", "1", "--figure", "4") == 0
    printed = capsys.readouterr().out
    assert "### Figure 4: maps of the models of parts, shapes" in printed
    assert re.search(r"^\| antehoc, all \| \d+\.\d \|", printed, re.MULTILINE)
    numbers = json.loads((tmp_path / "tables.json").read_text())["tables"][-1]
    assert numbers["figure"] == 4
    assert numbers["rows"]["center, all"]["map_mean"]["mean"] == pytest.approx(0.36, abs=0.02)
    for picture in ("figure-4-shapes.png", "figures/figure-4-shapes.png"):
        assert (tmp_path / picture).stat().st_size > 5000


def test_figure_5_names_its_data_set(tmp_path, tiny_protocol):
    """Captions of several data sets are drawn into one folder."""
    assert run(tmp_path, "--table", "4", "--figure", "5") == 0
    found = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert "figure-5-shapes-predictions.png" in found
    assert all(name.startswith("figure-5-shapes-") for name in found)


@pytest.mark.slow
def test_networks_that_explain_themselves_next_to_the_plain_one(tmp_path, tiny_protocol, capsys):
    assert run(tmp_path, "--table", "3") == 0
    rows = json.loads((tmp_path / "tables.json").read_text())["tables"][0]["rows"]
    assert list(rows) == ["plain network", "SENN", "CBAH", "antehoc"]
    # The explanation costs no accuracy: the same network, the same batches.
    assert rows["antehoc"]["accuracy"] == rows["plain network"]["accuracy"]
    assert main(["benchmark", "paper", "--table", "3", "--dataset", "flickr8k", "--output_dir", str(tmp_path)]) == 2


def test_a_cell_is_whole_or_not_there(tmp_path):
    store = CellStore(tmp_path, "cpu")

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("a/b", {"images": 3}, interrupted)
    assert not list(tmp_path.rglob("*.json"))
    assert store.get("a/b", {"images": 3}, lambda: {"x": [1, None]}) == {"x": [1, None]}
    assert store.get("a/b", {"images": 3}, interrupted) == {"x": [1, None]}
    with pytest.raises(UsageError, match=r"computed with images=3, not 4: choose another --output_dir"):
        store.get("a/b", {"images": 4}, interrupted)
    with pytest.raises(UsageError, match="protocol='cpu', not 'paper'"):
        CellStore(tmp_path, "paper").get("a/b", {"images": 3}, interrupted)
    for damage in ("", "{", "[]", '{"settings": 3}', "[" * 100_000):
        (tmp_path / "a" / "b.json").write_text(damage)
        with pytest.raises(UsageError, match=r"b\.json is damaged: delete it, and it is made anew"):
            store.get("a/b", {"images": 3}, interrupted)


def test_spread_and_cells_of_a_table():
    assert spread([1.0, None, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert spread([1.0]) == (1.0, None)
    assert spread([None]) == (None, None)
    columns = {"drop_cond": "Drop ↓", "insertion_minus_deletion": "ID ↑"}
    rows = {"antehoc": {"drop_cond": Value(12.34, 1.0, 23.25), "insertion_minus_deletion": Value(None)}}
    text = Table(1, "x", columns, rows).to_markdown()
    assert "| antehoc | 12.3 ± 1.0 (23.25) | none |" in text


def test_published_numbers_are_complete():
    sets = {"cifar10", "animals10", "food11", "tiny-imagenet"}
    assert ENERGY_MAPS.keys() == BINARISED.keys() == ACCURACY.keys() == sets
    for table in (ENERGY_MAPS, BINARISED):
        for rows in table.values():
            assert rows.keys() == {"grad-cam", "grad-cam++", "score-cam", "antehoc"}
            assert all(
                len(numbers) == 3 and all(0 <= number <= 100 for number in numbers) for numbers in rows.values()
            )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "There is one benchmark: `antehoc benchmark paper`"),
        (["paper", "--table", "6"], "table 6 must be one of 1, 2, 3, 4, 5"),
        (["paper", "--figure", "2"], "figure 2 must be one of 1, 3, 4, 5"),
        (["paper", "--dataset", "mnist"], "dataset 'mnist' must be one of"),
        (
            ["paper", "--dataset", "animals10"],
            "Animals-10 has no known place: say where it is, --data animals10=FOLDER",
        ),
        (["paper", "--data", "cifar10"], "--data 'cifar10' must be KEY=NAME"),
        (["paper", "--recipe", "gpu"], "recipe='gpu' must be one of cpu, paper"),
        (["paper", "--explainers", "gradcam"], "There is no explainer 'gradcam'"),
        (["paper", "--images", "0"], "images must be at least 1"),
        (["paper", "--tabel", "1"], "There is no option '--tabel'"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())
