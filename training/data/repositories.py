"""Repositories of data sets, on the Hub or a copy of one: what their README says about files, and fetching them."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict

import datasets
import yaml
from datasets.data_files import resolve_pattern
from datasets.info import DatasetInfosDict
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HTTPError

from antehoc_hf.model_cards.errors import explain
from antehoc_hf.modeling.backbone import hub_in_one_try
from antehoc_hf.training.data.contained import check_names_inside
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.folders import quoted

_README = "README.md"


class _Config(TypedDict, total=False):
    """A configuration as the README has it; what else it holds are options of `datasets`."""

    config_name: str
    default: bool
    data_dir: str
    data_files: str | list[str] | list[dict[str, str]] | dict[str, str]


@dataclass(frozen=True)
class Declared:
    """What a README says about one configuration.

    Attributes:
        folder: where its files lie, below the README's folder.
        patterns: of these files; none: all of them.
        by_datasets: whether it names splits, or options of `datasets`, which then reads the files.
    """

    folder: str = ""
    patterns: tuple[str, ...] = ()
    by_datasets: bool = False

    def files(self, root: Path) -> set[str] | None:
        """The files that the patterns name; None for all."""
        if not self.patterns:
            return None
        base = str(root / self.folder)
        try:
            return {os.path.normpath(file) for pattern in self.patterns for file in resolve_pattern(pattern, base)}
        except FileNotFoundError as error:
            raise DataError(f"The README in {str(root)!r} names files that are not there: {error}.") from None


def declared(readme: Path, config: str | None, name: str) -> Declared:
    """What the README says about a configuration: the one named, or else the default, or the only one.

    Raises:
        DataError: there is no such configuration, or several and none is named; or the README can't be read.
    """
    configs = _configs(readme, name)
    if not configs:
        if config is not None:
            raise DataError(f"{name} names no configurations: leave --dataset_config {config} out.")
        return Declared()
    if config is None:
        defaults = [key for key, entry in configs.items() if entry.get("default") or key == "default"]
        config = next(iter(defaults if defaults or len(configs) > 1 else configs), None)
    if config not in configs:
        what = "has several configurations" if config is None else f"has no configuration {config!r}"
        raise DataError(
            f"{name} {what} ({quoted(configs)}): name one, such as --dataset_config {next(iter(configs))}."
        )
    entry = configs[config]
    check_names_inside(str(entry.get("data_dir") or ""), f"The README of {name} names a data_dir")
    check_names_inside(entry.get("data_files"), f"The README of {name} names files")
    files = entry.get("data_files") or []
    patterns = [files] if isinstance(files, str) else files
    names_splits = isinstance(files, dict) or any(not isinstance(pattern, str) for pattern in patterns)
    if names_splits or set(entry) - set(_Config.__annotations__):
        return Declared(by_datasets=True)
    folder = PurePosixPath(str(entry.get("data_dir") or ""))
    return Declared("" if folder == PurePosixPath() else str(folder), tuple(str(pattern) for pattern in patterns))


def declared_features(folder: Path, config: str | None) -> datasets.Features | None:
    """The columns' types as a README's `dataset_info` gives them, such as the names of classes."""
    try:
        infos = DatasetInfosDict.from_directory(str(folder))
    except (ValueError, TypeError, KeyError, AttributeError, OSError, yaml.YAMLError):
        return None
    info = infos.get(config or "default") or (next(iter(infos.values())) if len(infos) == 1 else None)
    return None if info is None else info.features


def cached_files(name: str, config: str | None, revision: str | None) -> Path | None:
    """A repository's files in the cache of the Hub, downloaded where they are not there.

    Returns:
        The folder; None if `datasets` has to read it: its README says how, it is a script, or the Hub doesn't give it.

    Raises:
        DataError: as [`declared`], or a download broke off.
    """
    offline = bool(datasets.config.HF_HUB_OFFLINE)
    try:
        with hub_in_one_try(not offline):
            if not offline and f"{PurePosixPath(name).name}.py" in HfApi().list_repo_files(
                name, repo_type="dataset", revision=revision
            ):
                return None
            said = declared(_readme(name, revision, offline), config, name)
    except DataError:
        raise
    except (HTTPError, OSError, ValueError):  # `datasets` may have it in its cache, or words for what is wrong
        return None
    if said.by_datasets:
        return None
    patterns = [_README, f"{said.folder}/**"] if said.folder else None
    try:
        return Path(
            snapshot_download(
                name, repo_type="dataset", revision=revision, allow_patterns=patterns, local_files_only=offline
            )
        )
    except (HTTPError, OSError) as error:
        if offline:
            return None
        raise DataError(f"Data set {name!r} can't be downloaded: {explain(error, name)}.") from None


def _readme(name: str, revision: str | None, offline: bool) -> Path:
    """Where it lies; a path that is not there if there is none."""
    try:
        return Path(hf_hub_download(name, _README, repo_type="dataset", revision=revision, local_files_only=offline))
    except EntryNotFoundError:
        return Path(f"no {_README}")


def _configs(readme: Path, name: str) -> dict[str, _Config]:
    """Configuration → what the README says of it."""
    try:
        text = readme.read_text(encoding="utf-8")
        head = yaml.safe_load(text.split("\n---", 1)[0]) if text.startswith("---") else None
        entries = (head or {}).get("configs") or []
        return {str(entry["config_name"]): entry for entry in entries}
    except (OSError, UnicodeDecodeError):
        return {}
    except (yaml.YAMLError, AttributeError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"The README of {name} can't be read ({reason}): its head is not as the Hub has it.") from None
