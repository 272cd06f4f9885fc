"""From a finished classifier and images to a folder: the map is fitted, saved, measured and shown."""

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from antehoc_hf.attaching.images import Pictures, check_pictures, load_pictures
from antehoc_hf.attaching.report import announcement, results, summary, write
from antehoc_hf.attaching.verdict import RIVAL, Verdict, judge
from antehoc_hf.commands.output import check_apart, output_folder
from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps
from antehoc_hf.evaluation.familiarity import Familiarity
from antehoc_hf.evaluation.results import MapReport
from antehoc_hf.evaluation.scorers import ClassificationScorer
from antehoc_hf.explainers import measured_explainers
from antehoc_hf.graph import graph_of
from antehoc_hf.modeling import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.passes import images_a_pass
from antehoc_hf.sources import FinishedClassifier, read_classifier
from antehoc_hf.training.attach import FitOptions, fit_map
from antehoc_hf.training.attach.fit import FitReport
from antehoc_hf.training.runs.results import FIGURE_FILE, RESULTS_FILE


@dataclass(frozen=True)
class AttachOptions:
    """How a map is put on a finished classifier.

    Args:
        max_images (`int`): images that the map is fitted to.
        held_out (`int`): further images on which it is judged; at most a fifth of all.
        until (`str`): `"fitted"`: once. `"good"`: with more coalitions, each time twice as many, until the map may be
            trusted more than Grad-CAM or that no longer helps, by images which are neither fitted to nor held out.
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
        for name, least in (("max_images", 1), ("held_out", 1), ("rounds", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}.")


@dataclass(frozen=True)
class Attached:
    """A finished classifier with its map.

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
    """Puts a map on a finished classifier, whose predictions stay the same to the bit.

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
    options = AttachOptions() if options is None else options
    if not isinstance(options, AttachOptions):
        raise ValueError(f"options must be AttachOptions(…), not {str(options)[:60]!r}.")
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None and isinstance(images, str | Path):
        check_apart(folder, str(images))
    if isinstance(images, str | Path):
        check_pictures(images, split)
    written = ("config.json", RESULTS_FILE, FIGURE_FILE)
    with nullcontext() if folder is None else output_folder(folder, written, options.overwrite):
        found = read_classifier(source, backbone=backbone, backbone_kwargs=backbone_kwargs, token=token)
        _check_classes(found, config.get("problem_type") or found.problem_type)
        model = found.model(**{"map_head": {"kind": "contributions", "closed_form": True}, **config})
        processor = _processor(found, model, crop_pct, interpolation)
        pictures = load_pictures(
            images,
            processor,
            max_images=options.max_images,
            held_out=options.held_out,
            choosing=options.until == "good",
            split=split,
            seed=options.seed,
        )
        say: Callable[[str], None] = print if options.progress else lambda text: None
        say(announcement(found, model, processor, pictures, crop_is_known=crop_pct is not None))
        return _attached(found, model, processor, pictures, options, folder, say)


def _check_classes(found: FinishedClassifier, problem_type: str | None) -> None:
    if problem_type == "regression" or (problem_type is None and found.num_labels == 1):
        raise ValueError(
            f"{found.origin} predicts numbers, as far as it says, and attach explains classes: if each output is the "
            "logit of a label, set problem_type to multi_label_classification; the map of a regression is trained by "
            "steps (antehoc train --train_task false --problem_type regression)."
        )


def _attached(
    found: FinishedClassifier,
    model: Any,
    processor: AnteHocImageProcessor,
    pictures: Pictures,
    options: AttachOptions,
    folder: Path | None,
    say: Callable[[str], None],
) -> Attached:
    """Fitted, saved, measured, written."""
    model.to(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    before = _logits(model, pictures.held_out, options)
    save = None if folder is None else partial(_save, model, processor, folder)
    fitted, rounds = _fitted(model, pictures, options, save, say)
    if not torch.equal(before, _logits(model, pictures.held_out, options)):
        raise RuntimeError("The network's predictions changed while its map was fitted.")
    report = _measured(model, pictures.held_out, before.argmax(dim=1).cpu(), options, fitted)
    verdict = judge(report)
    measured = results(found, model, pictures, options.seed, fitted, report, verdict, rounds)
    if folder is not None:
        write(folder, model, pictures, measured)
        Familiarity.of(model, pictures.fitted, pictures.held_out).save(folder)
    say(summary(measured, verdict, folder))
    return Attached(model.cpu(), processor, verdict, measured)


def _save(model: Any, processor: AnteHocImageProcessor, folder: Path) -> None:
    """Each file is the old one or the new one, whenever this is interrupted."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as place:
        model.save_pretrained(place)
        processor.save_pretrained(place)
        for path in Path(place).iterdir():
            path.replace(folder / path.name)


def _processor(
    found: FinishedClassifier, model: Any, crop_pct: float | None, interpolation: str | None
) -> AnteHocImageProcessor:
    """That of the source, with the size and the normalisation that the model has in the end."""
    chosen = {name: getattr(model.config, name) for name in ("image_size", "image_mean", "image_std")}
    given = {"crop_pct": crop_pct, "interpolation": interpolation}
    return found.processor(**chosen, **{name: value for name, value in given.items() if value is not None})


@torch.no_grad()
def _logits(model: Any, rows: Any, options: AttachOptions) -> Tensor:
    """What the network predicts."""
    loader: Any = DataLoader(rows, batch_size=options.batch_size)
    return torch.cat([model(batch["pixel_values"].to(model.device), phase="prediction").logits for batch in loader])


def _fitted(
    model: Any, pictures: Pictures, options: AttachOptions, save: Callable[[], None] | None, say: Callable[[str], None]
) -> tuple[FitReport, list[dict[str, Any]]]:
    """The best of one fit or several, by images that do not judge it in the end. The first map is saved at once,
    another one when it is known to be better.
    """
    best: FitReport | None = None
    state: dict[str, Tensor] = {}
    rounds: list[dict[str, Any]] = []
    several = options.until == "good"
    predicted = _logits(model, pictures.choosing, options).argmax(dim=1).cpu() if several else None
    for number in range(options.rounds if several else 1):
        pairs = options.fit.pairs << number
        fit = replace(options.fit, pairs=pairs, seed=options.seed, progress=options.progress)
        fitted = fit_map(model, pictures.fitted, fit)
        rounds.append({"pairs": pairs, "seconds": fitted.seconds})
        if save is not None and best is None:
            save()
        if predicted is None:
            return fitted, rounds
        verdict = judge(_measured(model, pictures.choosing, predicted, options, fitted))
        better = best is None or verdict.ours > max(one["score"] for one in rounds[:-1])
        rounds[-1] |= {"score": verdict.ours, "trust": verdict.trust}
        if not better:
            say("More coalitions no longer make the map better.")
            break
        if save is not None and best is not None:
            save()
        best, state = fitted, {name: value.clone() for name, value in model.map_head.state_dict().items()}
        if verdict.trust == "more":
            break
        if number + 1 < options.rounds:
            say(f"{verdict.sentence} Once more, with twice as many coalitions.")
    assert best is not None
    model.map_head.load_state_dict(state)
    return best, rounds


def _measured(model: Any, rows: Any, predicted: Tensor, options: AttachOptions, fitted: FitReport) -> MapReport:
    """Our map, Grad-CAM where it can explain the network, and the controls, on images that the map has not seen."""
    as_graph = fitted.setting.runtime == "onnxruntime"  # which was faster while fitting
    few = rows[0]["pixel_values"][None].to(model.device)
    try:
        explainers = measured_explainers([RIVAL], model)
        explainers[RIVAL](few, torch.zeros(1, dtype=torch.long, device=model.device))
    except ValueError:  # a network without a layer that it could read
        explainers = {}
    loader: Any = DataLoader(_WithPredictions(rows, predicted), batch_size=options.batch_size)  # type: ignore[arg-type]
    settings = EvaluationSettings(target="prediction", insertion_deletion_images=len(rows), seed=options.seed)
    network = graph_of(model.backbone, few.new_zeros(images_a_pass(few, 32), *few.shape[1:])) if as_graph else None
    scorer = ClassificationScorer(model, settings, network=network)
    return evaluate_maps(model, loader, settings, explainers=explainers, scorer=scorer, progress=options.progress)


class _WithPredictions(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Images with the network's own predictions in place of labels: an accuracy says how many of them are kept."""

    def __init__(self, rows: Any, predicted: Tensor) -> None:
        self.rows, self.predicted = rows, predicted

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return {**self.rows[position], "labels": self.predicted[position]}
