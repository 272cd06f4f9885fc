"""What the trainer's tests share."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import datasets
import pytest

sys.path.append(str(Path(__file__).parent))  # programs of this folder share helpers


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """The folder of a real data set beside the project, or in `ANTEHOC_DATA`; the test is skipped without it."""
    root = Path(os.environ.get("ANTEHOC_DATA") or Path(__file__).parents[2].parent / "shared" / "data")

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"the real data set {name!r} is not beside the project (set ANTEHOC_DATA)")
        return root / name

    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives are unpacked in the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module `tiny_run.py`, which is a program as well."""
    return _program("tiny_run")


@pytest.fixture(scope="session")
def tiny_captions() -> ModuleType:
    """The module `tiny_captions.py`, likewise."""
    return _program("tiny_captions")


def _program(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"antehoc_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that its data set can be pickled for data-loading workers
    spec.loader.exec_module(module)
    return module
