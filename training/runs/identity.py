"""Which run a folder holds, so that two runs are never mixed in it."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
from torch import nn
from transformers import PreTrainedModel

from antehoc_hf.modeling import AnteHocConfig
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.checkpoints import (
    RunFolderError,
    check_whole,
    last_whole_checkpoint,
    remove_checkpoints,
    remove_leftovers,
)
from antehoc_hf.training.objectives.base import Objective

RUN_FILE = "antehoc_run.json"

# What makes another run of it. Lengths, schedules and logging may change when a run is resumed.
_ARGUMENTS = (
    *("seed", "data_seed", "train_task", "partial_image_share", "update_order"),
    *("interpretation_batch_share", "interpretation_interval", "interpretation_start"),
)
# What transformers writes into a configuration on its own, the kind of problem at the first loss.
_VOLATILE = (
    "transformers_version",
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "use_cache",
    "problem_type",
)
# How many examples spread over the data stand for the images in its digest.
_SAMPLED = 8


def describe_run(
    model: PreTrainedModel | nn.Module,
    dataset: Any,
    args: AnteHocTrainingArguments,
    objective: Objective | None = None,
) -> dict[str, object]:
    """What identifies a run: model and configuration, training data and augmentation, batch size, seeds, the objective
    and its options.

    Returns:
        `dict`: flat and JSON-serialisable.
    """
    identity: dict[str, object] = {"model": type(model).__name__}
    config = model.config.to_dict() if isinstance(model, PreTrainedModel) else {}
    for name, value in sorted(config.items()):
        if name not in _VOLATILE:
            identity[name if name == "backbone" else f"config.{name}"] = value
    identity["data.examples"] = len(dataset) if hasattr(dataset, "__len__") else None
    identity["data.columns"] = list(getattr(dataset, "column_names", None) or [])
    identity["data.name"] = getattr(getattr(dataset, "info", None), "dataset_name", None)
    identity["data.split"] = str(dataset.split) if getattr(dataset, "split", None) is not None else None
    identity["data.content"] = content_digest(dataset)
    identity["augmentation"] = getattr(dataset, "augmentation", None)
    identity["batch size"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    identity.update({name: getattr(args, name) for name in _ARGUMENTS})
    if objective is not None:
        identity["objective"] = objective.name
        identity.update({f"objective.{name}": value for name, value in dataclasses.asdict(objective.options).items()})
    return json.loads(json.dumps(identity, default=str))


def content_digest(dataset: object) -> str | None:
    """Tells one data set from another with as many rows: a digest of its labels and of a few images spread over it.

    The fingerprint of `datasets` will not do: it depends on where files lie and when they were written.

    Args:
        dataset: a `datasets.Dataset`, or a data set that holds one, with its images not decoded, as `raw`.

    Returns:
        `str` or `None`: 16 hexadecimal digits; None for data sets of other kinds.
    """
    stored = getattr(dataset, "raw", dataset)
    if not isinstance(stored, datasets.Dataset):
        return None
    rows, columns = len(stored), sorted(stored.column_names)
    small = [name for name in columns if _is_small(stored.features[name])]
    large = [name for name in columns if name not in small]
    digest = hashlib.sha256(repr((rows, columns)).encode())
    tables = stored.with_format("arrow")
    for name in small:
        digest.update(repr(tables.select_columns(name)[:][name].to_pylist()).encode())
    if large and rows:
        sampled = sorted({round(index * (rows - 1) / (_SAMPLED - 1)) for index in range(_SAMPLED)})
        for row in tables.select_columns(large)[sampled].to_pylist():
            digest.update(repr([_content(row[name]) for name in large]).encode())
    return digest.hexdigest()[:16]


def _is_small(feature: object) -> bool:
    """Whether a column can be read whole: labels, numbers and texts."""
    return isinstance(feature, datasets.ClassLabel) or (
        isinstance(feature, datasets.Value) and "binary" not in feature.dtype
    )


def _content(value: object) -> object:
    """What is in an image, wherever its file lies; other values as they are."""
    if not isinstance(value, dict) or set(value) != {"bytes", "path"}:
        return value
    if value["bytes"] is not None or value["path"] is None:
        return value["bytes"]
    try:
        return Path(value["path"]).read_bytes()
    except OSError:
        return os.path.basename(value["path"])


def claim(output_dir: str, identity: dict[str, object], resume: str | bool | None, overwrite: bool) -> str | None:
    """Makes `output_dir` this run's, or refuses. For one process only.

    Args:
        output_dir (`str`): the folder.
        identity (`dict`): from [`describe_run`].
        resume (`str` or `bool`, *optional*): a checkpoint, or `True` for the last whole one.
        overwrite (`bool`): whether the checkpoints of a run that is there may be deleted.

    Returns:
        `str` or `None`: the checkpoint to resume from; `None` for a fresh start.

    Raises:
        RunFolderError: if the folder holds another run, or this one and it is neither resumed nor overwritten, or if
            there is no whole checkpoint to resume from (nothing has been changed then), or if it cannot be written to.
    """
    if resume and overwrite:
        raise RunFolderError(
            "resume_from_checkpoint and overwrite_run contradict each other: the one continues the run in output_dir, "
            "the other deletes it."
        )
    checkpoint = _checkpoint_to_resume(output_dir, identity, resume) if resume else None
    if not resume and not overwrite:
        _check_vacant(output_dir, identity)
    if overwrite:
        remove_checkpoints(output_dir)
    else:
        remove_leftovers(output_dir, keep=checkpoint)
    _write_run(output_dir, identity)
    return checkpoint


def _checkpoint_to_resume(output_dir: str, identity: dict[str, object], resume: str | bool) -> str:
    _check_same_run(output_dir, identity)
    if resume is True:
        found = last_whole_checkpoint(output_dir, lambda path: _differences(read_run(str(path)), identity))
    else:
        found = str(resume)
    if found is None:
        raise RunFolderError(
            f"There is no whole checkpoint in {output_dir} to resume from: start without resume_from_checkpoint."
        )
    check_whole(found)
    for folder in (os.path.dirname(os.path.abspath(found)), found):
        _check_same_run(folder, identity)
    return found


def _check_same_run(folder: str, identity: dict[str, object]) -> None:
    recorded = read_run(folder)
    if recorded is None and Path(folder, RUN_FILE).exists():
        raise RunFolderError(
            f"{Path(folder, RUN_FILE)}, which says what this run was made with, is damaged: put it back, or delete "
            "it, since each checkpoint says so too."
        )
    if differences := _differences(recorded, identity):
        raise RunFolderError(
            f"{folder} holds another run ({differences}): resume with the settings it was made with, or start a new "
            "run in another output_dir."
        )


def _check_vacant(output_dir: str, identity: dict[str, object]) -> None:
    recorded = read_run(output_dir)
    checkpoint = last_whole_checkpoint(output_dir)
    ways = "choose another output_dir, or pass overwrite_run=True to delete it and start over."
    if differences := _differences(recorded, identity):
        raise RunFolderError(f"{output_dir} holds another run ({differences}): {ways}")
    if checkpoint is not None:
        raise RunFolderError(
            f"{output_dir} already holds this run up to {os.path.basename(checkpoint)}: continue it with "
            f"resume_from_checkpoint=True, {ways}"
            if recorded is not None
            else f"{output_dir} holds checkpoints of an unknown run: {ways}"
        )


def _write_run(output_dir: str, identity: dict[str, object]) -> None:
    path = Path(output_dir, RUN_FILE)
    unfinished = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(identity, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise RunFolderError(
            f"{output_dir} cannot be written to ({error.strerror}): make room there or choose another output_dir."
        ) from error


def copy_record(output_dir: str, checkpoint: Path) -> None:
    """So that a checkpoint that ends up in another folder says whose it is; a trial of a search has no record."""
    if Path(output_dir, RUN_FILE).is_file():
        shutil.copyfile(Path(output_dir, RUN_FILE), checkpoint / RUN_FILE)


def read_run(output_dir: str) -> dict[str, object] | None:
    """The identity written down in a folder, or `None` if there is none or it cannot be read."""
    try:
        recorded = json.loads(Path(output_dir, RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return recorded if isinstance(recorded, dict) else None


def _changed(recorded: dict[str, object], identity: dict[str, object]) -> list[str]:
    """What makes them two runs. An option that the record lacks came with a later version: as long as nobody has set
    it, the run is the same.
    """
    both = {**recorded, **identity}
    return [
        name for name in both
        if recorded.get(name) != identity.get(name) and (name in recorded or not _is_default(name, both[name]))
    ]  # fmt: skip


def _is_default(name: str, value: object) -> bool:
    """Of an option of configuration or arguments; what None stands for is found by looking at the backbone."""
    kinds: dict[str, type[AnteHocConfig | AnteHocTrainingArguments]] = {
        "config": AnteHocConfig,
        "": AnteHocTrainingArguments,
    }
    group, _, known = name.rpartition(".")
    if group not in kinds:
        return False
    declared = {field.name: field.default for field in dataclasses.fields(kinds[group])}
    return known in declared and declared[known] in (None, value)


def _differences(recorded: dict[str, object] | None, identity: dict[str, object]) -> str:
    """`"seed: 1 there, 2 here"`, at most three of them; empty where nothing is recorded or it is the same run."""
    if recorded is None:
        return ""
    names = _changed(recorded, identity)
    names.sort(key=lambda name: name.startswith("config."))  # the telling ones first
    listed = [f"{name}: {_short(recorded.get(name))} there, {_short(identity.get(name))} here" for name in names[:3]]
    return "; ".join(listed) + ("; …" if len(names) > 3 else "")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "…"
