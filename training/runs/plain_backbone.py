"""The plain network's accuracy next to ours: taken from a run of its own, and only if that run was alike."""

import json
from collections.abc import Mapping
from pathlib import Path

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.training.runs.results import RESULTS_FILE, Results

# Options that change what is learned or measured and stand nowhere else in the results; with their defaults.
_OPTIONS = {
    "backbone_kwargs": None,
    "crop_pct": None,
    "data_seed": None,
    "full_determinism": False,
    "image_mean": None,
    "image_std": None,
    "pretrained": False,
    "pretrained_file": None,
}


def read_plain(folder: str, ours: Results) -> Results:
    """What a run of the plain network reached.

    Backbone and head of an ante-hoc model train as the plain network does, to the bit; but what was not measured is
    not reported: our own number never stands for that of the plain network.

    Args:
        folder (`str`): output folder of an `antehoc train --model_type plain …`.
        ours: the results of this run as far as they are known before it trains.

    Returns:
        `dict`: `metrics`, `evaluated_images` and `weights_sha256`, for `results.json`.

    Raises:
        UsageError: if there is no such run, or if it differs in data, seed, recipe or in what it was evaluated on.
    """
    path = Path(folder) / RESULTS_FILE
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        kind, metrics = plain["model"]["class"], dict(plain["metrics"])
    except FileNotFoundError:
        raise UsageError(
            f"plain_backbone: {folder} holds no {RESULTS_FILE}: name the output folder of a finished `antehoc train "
            "--model_type plain` run."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"plain_backbone: {path} is damaged: run `antehoc train --model_type plain` again.") from None
    if kind != "PlainForImageClassification":
        raise UsageError(
            f"plain_backbone: {folder} holds a run of {kind}, which is not the plain network: name one of `antehoc "
            "train --model_type plain`."
        )
    differing = _differences(_compared(plain), _compared(ours))
    if differing:
        raise UsageError(
            f"plain_backbone: the run in {folder} is not like this one ({differing}): train the plain network with "
            "the same data, seed and recipe."
        )
    return {
        "metrics": metrics,
        "evaluated_images": plain["evaluated_images"],
        "weights_sha256": _part(plain, "training").get("weights_sha256"),
    }


def _compared(results: Results) -> Results:
    """What must be the same in both: option → value, as JSON has it."""
    model, data, training = (_part(results, name) for name in ("model", "data", "training"))
    first_pass = dict(_part(_part(training, "passes"), "task"))
    first_pass.pop("partial_image_share", None)  # ours alone: what it does to the accuracy is to be seen
    compared = {
        "task": results.get("task"),
        "backbone": model.get("backbone"),
        "image_size": model.get("image_size"),
        "data": Path(str(data.get("name"))).name,  # wherever a folder lies
        "revision": data.get("revision"),
        "images": data.get("images"),
        "content": data.get("content"),
        "evaluated_on": results.get("evaluated_on"),
        "evaluated_images": results.get("evaluated_images"),
        "seed": training.get("seed"),
        "precision": training.get("precision"),
        "processes": training.get("processes"),
        "train_task": _part(_part(training, "passes"), "interpretation").get("train_task", True),
        **first_pass,
        **{name: _part(results, "settings").get(name, default) for name, default in _OPTIONS.items()},
    }
    return json.loads(json.dumps(compared, default=str))


def _part(results: Results, name: str) -> Results:
    value = results.get(name)
    return value if isinstance(value, Mapping) else {}


def _differences(there: Results, here: Results) -> str:
    """`"seed: 1 there, 2 here"`, at most three of them."""
    names = [name for name in {**here, **there} if there.get(name) != here.get(name)]
    listed = [f"{name}: {json.dumps(there.get(name))} there, {json.dumps(here.get(name))} here" for name in names[:3]]
    return "; ".join(listed) + ("; …" if len(names) > 3 else "")
