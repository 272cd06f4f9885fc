"""Finished parts of the benchmark scripts are computed once, and never taken for those of other options."""

import importlib
from pathlib import Path

import pytest


@pytest.fixture
def finished(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return importlib.import_module("benchmarks.finished").finished


def refuse():
    raise AssertionError("computed again")


def test_a_part_is_computed_once(tmp_path, finished):
    path = tmp_path / "seed-0" / "ours.json"
    first = finished(path, {"epochs": 1, "where": Path("x")}, lambda: {"accuracy": 50.0})
    assert first["accuracy"] == 50.0
    assert finished(path, {"epochs": 1, "where": Path("x")}, refuse) == first


def test_other_options_are_told(tmp_path, finished):
    path = tmp_path / "ours.json"
    finished(path, {"epochs": 1}, lambda: {"accuracy": 50.0})
    with pytest.raises(SystemExit, match="epochs=1, not 2: choose another --output"):
        finished(path, {"epochs": 2}, refuse)


def test_an_interrupted_part_leaves_nothing(tmp_path, finished):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path / "ours.json", {}, interrupted)
    assert not list(tmp_path.iterdir())
