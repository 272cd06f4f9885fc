"""What is said and written of a fitted map: the announcement, results.json, the picture, the card, the summary."""

from pathlib import Path
from typing import Any

import torch

from antehoc_hf.attaching.images import Pictures
from antehoc_hf.attaching.page import save_page
from antehoc_hf.attaching.verdict import METRIC, RIVAL, Verdict
from antehoc_hf.evaluation.controls import CONTROLS, controls_explained
from antehoc_hf.evaluation.results import MapReport
from antehoc_hf.explainers import measured_explainers
from antehoc_hf.model_cards import write_card
from antehoc_hf.model_cards.card import weights_digest
from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.modeling.map_head import class_worth
from antehoc_hf.sources import FinishedClassifier
from antehoc_hf.training.attach.fit import FitReport
from antehoc_hf.training.card import hardware
from antehoc_hf.training.runs.results import FIGURE_FILE, RESULTS_FILE, describe_model, versions, write_results

_ON_THE_PAGE = 6
_SHOWN_CONTROLS = ("random", "center")


def results(
    found: FinishedClassifier,
    model: Any,
    pictures: Pictures,
    seed: int,
    fitted: FitReport,
    report: MapReport,
    verdict: Verdict,
    rounds: list[dict[str, Any]],
) -> dict[str, Any]:
    """As `antehoc train` writes them, so that cards and tables read both."""
    maps = report.to_dict()
    maps.pop("accuracy")  # there are no labels
    return {
        "model": {**describe_model(model), "source": found.origin},
        "task": "image-classification",
        "data": {
            "name": pictures.name,
            "revision": pictures.revision,
            "labels": False,
            "images": {
                "fitted": len(pictures.fitted),
                **({"chosen on": len(pictures.choosing)} if len(pictures.choosing) else {}),
                "held out": len(pictures.held_out),
            },
            "skipped_images": len(pictures.skipped),
        },
        "training": {
            "seconds": fitted.seconds,
            "hardware": hardware(model.device),
            "seed": seed,
            "base_model": found.origin if "/" in found.origin and not Path(found.origin).exists() else None,
            "passes": {
                "interpretation": {
                    "train_task": False,
                    "coalitions": fitted.coalitions,
                    "pairs": max(rounds, key=lambda one: one.get("score", 0.0))["pairs"],
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
        "maps": maps,
        "versions": versions(),
    }


def write(folder: Path, model: Any, pictures: Pictures, measured: dict[str, Any]) -> None:
    """Numbers first, then the picture, then the card, which shows both; the model is there already."""
    measured["training"]["weights_sha256"] = weights_digest(folder)
    write_results(folder / RESULTS_FILE, measured)
    count = min(_ON_THE_PAGE, len(pictures.held_out))
    pixels = torch.stack([pictures.held_out[index]["pixel_values"] for index in range(count)]).to(model.device)
    with torch.no_grad():
        output = model(pixels)
    shares, classes = class_worth(model.config, output.logits).max(dim=1)
    maps = {"antehoc": output.interpretation_map}
    if any(row["kind"] == "explainer" for row in measured["maps"]["rows"]):
        maps[RIVAL] = measured_explainers([RIVAL], model)[RIVAL](pixels, classes)
    maps |= {name: CONTROLS[name](pixels, measured["training"]["seed"], 0) for name in _SHOWN_CONTROLS}
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


def announcement(
    found: FinishedClassifier, model: Any, processor: AnteHocImageProcessor, pictures: Pictures, crop_is_known: bool
) -> str:
    (height, width), classes = model.config.image_size, "class" if found.num_labels == 1 else "classes"
    lines = [
        f"{found.origin}: {model.config.backbone}, {found.num_labels} {classes}, {height}×{width} pixels; its map is "
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


def summary(measured: dict[str, Any], verdict: Verdict, folder: Path | None) -> str:
    """A table for the terminal, the sentence, and where everything is."""
    fit = measured["fit"]
    lines = ["", f"{'map':14}{'insertion − deletion':>34}{'mean':>8}"]
    for row in measured["maps"]["rows"]:
        score, mean = row["scores"][METRIC], row["scores"]["map_mean"]["value"]
        interval = f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
        lines.append(f"{row['name']:14}{interval:>34}{mean:>8.2f}")
    lines += [
        "",
        controls_explained(row["name"] for row in measured["maps"]["rows"]),
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
