"""What all tests share: no network, one thread, fixed seeds, and no deprecation that goes unnoticed."""

import os

# Before anything of Hugging Face or torch is imported, and for the processes that tests start as well.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gc
import importlib
import ipaddress
import logging
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from client import Client

torch.set_num_threads(1)

# A warning counts for the module it is raised in or, with `stacklevel`, for the one that called.
_WATCHED_MODULES = ("antehoc_hf", "torch", "timm", "transformers")
_WATCHED_LOGGERS = ("transformers", "timm", "torch", "huggingface_hub", "accelerate", "datasets")


def pytest_configure(config: pytest.Config) -> None:
    for module in _WATCHED_MODULES:
        for category in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"):
            config.addinivalue_line("filterwarnings", f"error::{category}:{module}.*")
        # torch announces many a deprecation as a UserWarning.
        config.addinivalue_line("filterwarnings", f"error:(?is).*deprecat:UserWarning:{module}.*")


def pytest_collection_finish() -> None:
    """Every training ends with a garbage collection, which needs 0.4 s to look through all modules that are loaded:
    they stay anyway and need not be looked at.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


class _DeprecationRecords(logging.Handler):
    """Collects what is logged about deprecations; raising here would be swallowed by some callers."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "deprecat" in record.getMessage().lower():
            self.messages.append(f"{record.name}: {record.getMessage()}")


_records = _DeprecationRecords()
for _name in _WATCHED_LOGGERS:
    logging.getLogger(_name).addHandler(_records)


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    host = str(arguments[1][0])
    if host == "localhost":
        return
    try:
        local = ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        local = False
    if not local:
        raise RuntimeError(f"a test tried to reach {host}: tests use no network")


sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def _no_logged_deprecation() -> Iterator[None]:
    """Fails a test during which transformers (or another library) logged that something is deprecated."""
    _records.messages.clear()
    yield
    messages, _records.messages = _records.messages, []
    assert not messages, f"logged as deprecated: {messages}"


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Another process, which has met none of the models that a test saves."""
    yield from _other_process(tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Another process, where the project is not installed."""
    yield from _other_process(tmp_path_factory.mktemp("stranger"), "stranger")


def _other_process(folder: Path, *arguments: str) -> Iterator[Client]:
    variables = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "HF_MODULES_CACHE": str(folder / "modules")}
    made = Client(folder / "home", variables, *arguments)
    yield made
    made.close()


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports modules of `benchmarks/faithfulness` by name; they are not installed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return lambda name: importlib.import_module(f"benchmarks.faithfulness.{name}")
