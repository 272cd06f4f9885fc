"""From a finished classifier and images to a folder: the map is fitted, saved, measured and shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from antehoc_hf.attaching.images import Pictures, load_pictures
from antehoc_hf.attaching.page import save_page
from antehoc_hf.attaching.verdict import METRIC, RIVAL, Verdict, judge
from antehoc_hf.evaluation import EvaluationSettings, MapReport, evaluate_maps
from antehoc_hf.evaluation.controls import CONTROLS
from antehoc_hf.explainers import measured_explainers
from antehoc_hf.model_cards import weights_digest, write_card
from antehoc_hf.modeling import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.sources import FinishedClassifier, read_classifier
from antehoc_hf.training.attach import FitOptions, FitReport, fit_map
from antehoc_hf.training.card import hardware
from antehoc_hf.training.runs.results import FIGURE_FILE, RESULTS_FILE, describe_model, versions, write_results

_ON_THE_PAGE = 6
_SHOWN_CONTROLS = ("random", "center")


@dataclass(frozen=True)
class AttachOptions:
    """
    How a map is put on a finished classifier.

    Args:
        max_images (`int`): images that the map is fitted to.
        held_out (`int`): further images on which it is judged; at most a fifth of all.
        until (`str`): `"fitted"`: once. `"good"`: with more coalitions, each time twice as many, until the map may be
            trusted more than Grad-CAM or that no longer helps.
        rounds (`int`): at most so many fits with `"good"`.
        batch_size (`int`): images at a time when the map is measured.
        seed (`int`): of the choice of images and of the coalitions.
        fit (`FitOptions`): of the fit.
        device (`str`, *optional*): by default the GPU, if there is one.
        overwrite (`bool`): whether a model that the output folder holds may be replaced.
        progress (`bool`): show bars and lines.

    Raises:
        ValueError: for a value out of range.
    """

    max_images: int = 2000
    held_out: int = 200
    until: Literal["fitted", "good"] = "fitted"
    rounds: int = 3
    batch_size: int = 32
    seed: int = 0
    fit: FitOptions = field(default_factory=FitOptions)
    device: str | None = None
    overwrite: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        if self.until not in ("fitted", "good"):
            raise ValueError(f"until={self.until!r} must be 'fitted' or 'good'.")
        for name, least in (("max_images", 1), ("held_out", 1), ("rounds", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}.")


@dataclass(frozen=True)
class Attached:
    """
    A finished classifier with its map.

    Args:
        model (`AnteHocForImageClassification`): in evaluation mode.
        processor (`AnteHocImageProcessor`): of its images.
        verdict (`Verdict`): whether the map may be trusted.
        results (`dict`): all that was measured, as in results.json.
    """

    model: AnteHocForImageClassification
    processor: AnteHocImageProcessor
    verdict: Verdict
    results: dict[str, Any]


def attach(
    source: Any,
    images: Any,
    output_dir: str | Path | None = None,
    *,
    options: AttachOptions | None = None,
    backbone: str | None = None,
    backbone_kwargs: dict[str, Any] | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    split: str | None = None,
    token: str | None = None,
    **config: Any,
) -> Attached:
    """
    Puts a map on a finished classifier, whose predictions stay the same to the bit.

    Args:
        source: a network in memory, a timm name, a folder, a Hub name or a file of weights; see `read_classifier`.
        images: without labels: a folder however nested, a data set, or an iterable; see `load_pictures`.
        output_dir (`str` or `Path`, *optional*): the folder for model, processor, card, `results.json` and
            `predictions.png`; None: nothing is written.
        options (`AttachOptions`, *optional*): how.
        backbone, backbone_kwargs (*optional*): the architecture, where the source does not say.
        crop_pct, interpolation (*optional*): of the image processor, in place of what the source says.
        split (`str`, *optional*): of a data set.
        token (`str`, *optional*): for a private repository.
        config: options of [`AnteHocConfig`] such as `image_mean`, `id2label`, `taps`.

    Returns:
        `Attached`: model, processor, verdict and results.

    Raises:
        ValueError: one sentence on what is wrong with source, images or options.
        OSError: if something cannot be read, fetched or written.
    """
    options = options or AttachOptions()
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None:
        _check_folder(folder, options.overwrite)
    found = read_classifier(source, backbone=backbone, backbone_kwargs=backbone_kwargs, token=token)
    model = found.model(**{"map_head": {"kind": "contributions", "closed_form": True}, **config})
    processor = _processor(found, model, crop_pct, interpolation)
    pictures = load_pictures(
        images, processor, max_images=options.max_images, held_out=options.held_out, split=split, seed=options.seed
    )
    say = print if options.progress else _silent
    say(_announcement(found, model, processor, pictures, crop_is_known=crop_pct is not None))
    device: Any = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    before = _logits(model, pictures, options)

    def save() -> None:
        if folder is not None:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)

    fitted, report, rounds = _fitted(model, pictures, before.argmax(dim=1).cpu(), options, save, say)
    if not torch.equal(before, _logits(model, pictures, options)):
        raise RuntimeError("The network's predictions changed while its map was fitted.")
    verdict = judge(report)
    if len(rounds) > 1:  # the same images have chosen and judge
        chosen = f" The best of {len(rounds)} fits was chosen on these images, which flatters it somewhat."
        verdict = replace(verdict, sentence=verdict.sentence + chosen)
    results = _results(found, model, pictures, options, fitted, report, verdict, rounds)
    if folder is not None:
        _write(folder, model, pictures, options, results)
    say(_summary(results, verdict, folder))
    return Attached(model.cpu(), processor, verdict, results)


def _silent(_: str) -> None:
    """Says nothing."""


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Before any work: the folder can be written to, and nothing in it would be lost."""
    if (folder / "config.json").exists() and not overwrite:
        raise ValueError(f"{folder} holds a model already: name another output_dir, or pass overwrite to replace it.")
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / ".antehoc-trial"
    trial.touch()
    trial.unlink()


def _processor(
    found: FinishedClassifier, model: Any, crop_pct: float | None, interpolation: str | None
) -> AnteHocImageProcessor:
    """That of the source, with the size and the normalisation that the model has in the end."""
    chosen = {name: getattr(model.config, name) for name in ("image_size", "image_mean", "image_std")}
    given = {"crop_pct": crop_pct, "interpolation": interpolation}
    return found.processor(**chosen, **{name: value for name, value in given.items() if value is not None})


@torch.no_grad()
def _logits(model: Any, pictures: Pictures, options: AttachOptions) -> Tensor:
    """What the network predicts for the held-out images."""
    loader: Any = DataLoader(pictures.held_out, batch_size=options.batch_size)
    return torch.cat([model(batch["pixel_values"].to(model.device), phase="prediction").logits for batch in loader])


def _fitted(
    model: Any,
    pictures: Pictures,
    predicted: Tensor,
    options: AttachOptions,
    save: Callable[[], None],
    say: Callable[[str], None],
) -> tuple[FitReport, MapReport, list[dict[str, Any]]]:
    """The best of one fit or several; saved each time before it is measured."""
    chosen: tuple[FitReport, MapReport, dict[str, Tensor]] | None = None
    rounds: list[dict[str, Any]] = []
    pairs = options.fit.pairs
    for number in range(options.rounds if options.until == "good" else 1):
        fit = replace(options.fit, pairs=pairs << number, seed=options.seed, progress=options.progress)
        fitted = fit_map(model, pictures.fitted, fit)
        if chosen is None:
            save()
        report = _measured(model, pictures, predicted, options)
        verdict = judge(report)
        rounds.append({"pairs": fit.pairs, "seconds": fitted.seconds, "score": verdict.ours, "trust": verdict.trust})
        previous = None if chosen is None else judge(chosen[1]).ours
        if previous is None or verdict.ours > previous:
            state = {name: value.clone() for name, value in model.map_head.state_dict().items()}
            chosen = fitted, report, state
            save()
        if options.until == "good" and verdict.trust == "more":
            break
        if previous is not None and verdict.ours <= previous:
            say("More coalitions no longer make the map better.")
            break
        if options.until == "good" and number + 1 < options.rounds:
            say(f"{verdict.sentence} Once more, with twice as many coalitions.")
    assert chosen is not None
    model.map_head.load_state_dict(chosen[2])
    return chosen[0], chosen[1], rounds


def _measured(model: Any, pictures: Pictures, predicted: Tensor, options: AttachOptions) -> MapReport:
    """Our map, Grad-CAM where it can explain the network, and the controls, on held-out images."""
    few = pictures.held_out[0]["pixel_values"][None].to(model.device)
    try:
        explainers = measured_explainers([RIVAL], model)
        explainers[RIVAL](few, torch.zeros(1, dtype=torch.long, device=model.device))
    except ValueError:  # a network without a layer that it could read
        explainers = {}
    count = len(pictures.held_out)
    loader: Any = DataLoader(_WithPredictions(pictures.held_out, predicted), batch_size=options.batch_size)  # type: ignore[arg-type]
    settings = EvaluationSettings(target="prediction", insertion_deletion_images=count, seed=options.seed)
    return evaluate_maps(model, loader, settings, explainers=explainers, progress=options.progress)


class _WithPredictions(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Images with the network's own predictions in place of labels: an accuracy says how many of them are kept."""

    def __init__(self, rows: Any, predicted: Tensor) -> None:
        self.rows, self.predicted = rows, predicted

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return {**self.rows[position], "labels": self.predicted[position]}


def _results(
    found: FinishedClassifier,
    model: Any,
    pictures: Pictures,
    options: AttachOptions,
    fitted: FitReport,
    report: MapReport,
    verdict: Verdict,
    rounds: list[dict[str, Any]],
) -> dict[str, Any]:
    """As `antehoc train` writes them, so that cards and tables read both."""
    measured = report.to_dict()
    measured.pop("accuracy")  # there are no labels
    return {
        "model": {**describe_model(model), "source": found.origin},
        "task": "image-classification",
        "data": {
            "name": pictures.name,
            "revision": pictures.revision,
            "labels": False,
            "images": {"fitted": len(pictures.fitted), "held out": len(pictures.held_out)},
            "skipped_images": len(pictures.skipped),
        },
        "training": {
            "seconds": fitted.seconds,
            "hardware": hardware(model.device),
            "seed": options.seed,
            "base_model": found.origin if "/" in found.origin and not Path(found.origin).exists() else None,
            "passes": {
                "interpretation": {
                    "train_task": False,
                    "coalitions": fitted.coalitions,
                    "pairs": max(rounds, key=lambda one: one["score"])["pairs"],
                }
            },
            "objective": {
                "second_pass": "coalitions of patches",
                "learned": "by one ridge regression, in closed form, on coalitions: versions of the image in which "
                "some patches are replaced by the image's mean colour, a blur or black",
            },
        },
        "fit": fitted.to_dict(),
        "rounds": rounds,
        "verdict": verdict.to_dict(),
        "skipped": pictures.skipped[:100],
        "evaluated_on": "held-out images",
        "evaluated_images": len(pictures.held_out),
        "metrics": {"explained_variance": fitted.explained["fitted map"]},
        "maps": measured,
        "versions": versions(),
    }


def _write(folder: Path, model: Any, pictures: Pictures, options: AttachOptions, results: dict[str, Any]) -> None:
    """Numbers first, then the picture, then the card, which shows both; the model is there already."""
    results["training"]["weights_sha256"] = weights_digest(folder)
    write_results(folder / RESULTS_FILE, results)
    count = min(_ON_THE_PAGE, len(pictures.held_out))
    pixels = torch.stack([pictures.held_out[index]["pixel_values"] for index in range(count)]).to(model.device)
    with torch.no_grad():
        output = model(pixels)
    shares, classes = output.logits.float().softmax(dim=1).max(dim=1)
    maps = {"antehoc": output.interpretation_map}
    if any(row["kind"] == "explainer" for row in results["maps"]["rows"]):
        maps[RIVAL] = measured_explainers([RIVAL], model)[RIVAL](pixels, classes)
    maps |= {name: CONTROLS[name](pixels, options.seed, 0) for name in _SHOWN_CONTROLS}
    captions = [
        f"{str(model.config.id2label[int(index)])[:24]} {100 * float(share):.0f} %"
        for index, share in zip(classes, shares, strict=True)
    ]
    save_page(
        folder / FIGURE_FILE,
        pixels,
        {name: values.detach().float().cpu() for name, values in maps.items()},
        captions,
        model.config,
        output.degenerate.tolist(),
    )
    write_card(folder)


def _announcement(
    found: FinishedClassifier, model: Any, processor: AnteHocImageProcessor, pictures: Pictures, crop_is_known: bool
) -> str:
    height, width = model.config.image_size
    lines = [
        f"{found.origin}: {model.config.backbone}, {found.num_labels} classes, {height}×{width} pixels; its map is "
        f"fitted to {len(pictures.fitted)} images of {pictures.name} and judged on {len(pictures.held_out)} others."
    ]
    if found.names is None and model.config.id2label[0] == "LABEL_0":
        lines.append(
            "The source does not name its classes: they are called LABEL_0 and so on unless --class_names (id2label "
            "in Python) names them."
        )
    if not crop_is_known and found.preprocessing.crop_pct is None:
        lines.append(
            f"The source does not say how images are cropped: {100 * processor.crop_pct:.1f} % of them are kept, "
            f"after {processor.interpolation} resizing, unless --crop_pct and --interpolation say otherwise."
        )
    if pictures.skipped:
        lines.append(
            f"{len(pictures.skipped)} images cannot be read and are left out; the first: {pictures.skipped[0]}."
        )
    return "\n".join(lines)


def _summary(results: dict[str, Any], verdict: Verdict, folder: Path | None) -> str:
    """A table for the terminal, the sentence, and where everything is."""
    fit = results["fit"]
    lines = ["", f"{'map':14}{'insertion − deletion':>34}{'mean':>8}"]
    for row in results["maps"]["rows"]:
        score, mean = row["scores"][METRIC], row["scores"]["map_mean"]["value"]
        interval = f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
        lines.append(f"{row['name']:14}{interval:>34}{mean:>8.2f}")
    lines += [
        "",
        f"Fitted in {fit['seconds']:.0f} s to {fit['images']} images and {fit['coalitions']} coalitions; it explains "
        f"{100 * fit['explained']['fitted map']:.0f} % of what held-out coalitions gain, the class evidence alone "
        f"{100 * fit['explained']['class evidence']:.0f} %.",
    ]
    if fit["curve"]:
        steps = "; ".join(
            f"{images} in {seconds:.0f} s: {100 * share:.0f} %" for images, seconds, share in fit["curve"]
        )
        lines.append(f"By the number of images: {steps}.")
    lines += [verdict.sentence, "The network's predictions are the same to the bit."]
    if folder is not None:
        lines.append(f"In {folder}: the model, README.md, {RESULTS_FILE}, {FIGURE_FILE}.")
    return "\n".join(lines)
