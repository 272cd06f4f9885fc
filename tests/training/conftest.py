"""What the trainer's tests share."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module `tiny_run.py`, which is a program as well."""
    path = Path(__file__).with_name("tiny_run.py")
    spec = importlib.util.spec_from_file_location("antehoc_tiny_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that its data set can be pickled for data-loading workers
    spec.loader.exec_module(module)
    return module
