"""From the batches' files of `pretrained` to a page: means, and ours against the best other, paired by image."""

import argparse
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from antehoc_hf.evaluation.results import markdown_table
from antehoc_hf.training.runs.results import write_results
from benchmarks.faithfulness.cells import CELLS, OURS, difference, mean_of
from benchmarks.faithfulness.fastshap import FASTSHAP
from benchmarks.faithfulness.summary import part_lines

_MARGINS = [cell for cell in CELLS if cell.aim == "margins"]
_HEADINGS = {cell.name: cell.heading for cell in _MARGINS}
_LOWER = {cell.name for cell in _MARGINS if not cell.higher} | {"top-1, hidden"}
_NOT_RIVALS = ("center", "class evidence", "worth itself")

Values = dict[str, dict[str, Tensor]]
"""Map → measure → (N,) one value an image."""


def page(folder: Path, options: argparse.Namespace) -> str:
    """Writes pretrained.md and pretrained.json of all that is there, and gives the text."""
    settings = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
    fits = {seed: _fit(folder / f"map-{seed}.pt") for seed in options.seeds}
    lines = [f"# {options.network}: {options.split}", "", f"Settings: `{json.dumps(settings)}`, {platform.machine()}."]
    lines += ["", "| seed | images | explained of held-out gains | class evidence alone |", "|---|---:|---:|---:|"]
    for seed, fit in fits.items():
        explained = fit["explained"]
        share, alone = explained["fitted map"], explained["class evidence"]
        lines.append(f"| {seed} | {fit['images']} | {share:.3f} | {alone:.3f} |")
    numbers: dict[str, Any] = {"settings": settings, "fits": fits}
    explainers = {path.stem: _fit(path) for path in sorted(folder.glob(f"{FASTSHAP}-*.pt"))}
    numbers[FASTSHAP] = {name: {**report, "errors": None} for name, report in explainers.items()}
    rows = [["explainer", "images", "epochs", "minutes", "explained of held-out coalitions"]]
    for name, report in explainers.items():
        counted = [str(report["images"]), str(report["epochs"])]
        rows.append([name, *counted, f"{report['seconds'] / 60:.0f}", f"{report['explained']:.3f}"])
    lines += ["", *markdown_table(rows)] if explainers else []
    for part in ("maps", "fidelity", "worth"):
        files = [json.loads(path.read_text())["value"] for path in sorted(folder.glob(f"{part}-*.json"))]
        if not files:
            continue
        values = _with_mean_of_seeds(_joined(files))
        count = max(len(of_measure) for of_measure in values[OURS].values())
        minutes = sum(file["seconds"] for file in files) / 60
        lines += ["", f"## {part.capitalize()}", "", f"{count} images, {minutes:.0f} min."]
        if part == "maps":
            right = torch.tensor(
                [each for file in files if "center" in file["scores"] for each in file["right"]]
            ).float()
            lines += [f"Top-1 accuracy among 1,000 classes {100 * right.mean():.1f} %."]
        lines += ["", *_means(values), "", *_duels(values)]
        for name in (name for name in values if name.startswith(FASTSHAP)):
            asked = len(next(iter(values[name].values())))
            both = _first({OURS: values[OURS], name: values[name]}, asked)
            lines += ["", f"Ours and {name}, {asked} images:", "", *_duels(both)]
        few = {name for name, found in values.items() if 0 < len(next(iter(found.values()))) < count}
        if few:
            first = min(len(next(iter(values[name].values()))) for name in few)
            same = _first(values, first)
            lines += ["", f"The first {first} of these images, for methods not asked about all:", "", *_means(same)]
            lines += ["", *_duels(same)]
        numbers[part] = {
            name: {measure: {"mean": mean_of(of), "count": len(of)} for measure, of in found.items()}
            for name, found in values.items()
        }
    for part in ("grid", "sanity"):
        path = folder / f"{part}.json"
        if path.exists():
            found = json.loads(path.read_text())["value"]
            lines += ["", f"## {part.capitalize()}", "", *part_lines(part, [found])]
            numbers[part] = found
    text = "\n".join(lines) + "\n"
    (folder / "pretrained.md").write_text(text)
    write_results(folder / "pretrained.json", numbers)
    return text


def _fit(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, weights_only=False)["report"])


def _joined(files: list[dict[str, Any]]) -> Values:
    """All images in their order; a method that was asked about the first ones alone has fewer."""
    found: dict[str, dict[str, list[float]]] = {}
    for file in files:
        for name, of_map in file["scores"].items():
            for measure, values in of_map.items():
                found.setdefault(name, {}).setdefault(measure, []).extend(values)
    return {
        name: {measure: torch.tensor(values, dtype=torch.float64) for measure, values in of_map.items()}
        for name, of_map in found.items()
    }


def _first(values: Values, count: int) -> Values:
    return {name: {measure: of[:count] for measure, of in found.items()} for name, found in values.items()}


def _with_mean_of_seeds(values: Values) -> Values:
    seeds = [found for name, found in values.items() if name.startswith(f"{OURS}, ")]
    ours = {measure: torch.stack([found[measure] for found in seeds]).mean(dim=0) for measure in seeds[0]}
    return {OURS: ours} | values


def _means(values: Values) -> list[str]:
    """A table of maps and measures; `–` for maps of fewer images than ours has."""
    measures = list(values[OURS])
    rows = [["map", *(f"{_HEADINGS.get(name, name)} {'↓' if name in _LOWER else '↑'}" for name in measures)]]
    for name, found in values.items():
        whole = all(len(found[measure]) == len(values[OURS][measure]) for measure in measures if measure in found)
        if whole:
            cells = (f"{mean_of(found[measure]):.3f}" if measure in found else "–" for measure in measures)
            rows.append([name, *cells])
    return list(markdown_table(rows))


def _duels(values: Values) -> list[str]:
    """Ours against the best other, measure by measure: means, ratio and the paired interval of the difference."""
    rows = [["measure", "ours", "best other", "its mean", "ours ÷ best", "difference [95 %]"]]
    count = {measure: len(of) for measure, of in values[OURS].items()}
    others: Mapping[str, dict[str, Tensor]] = {
        name: found for name, found in values.items() if not name.startswith(OURS) and name not in _NOT_RIVALS
    }
    for measure, ours in values[OURS].items():
        same = {name: of for name, of in others.items() if len(of.get(measure, ())) == count[measure]}
        rivals = {name: mean_of(of[measure]) for name, of in same.items()}
        if not rivals:
            continue
        best = (min if measure in _LOWER else max)(rivals, key=lambda name: rivals[name])
        own, off = mean_of(ours), difference(ours[:, None], others[best][measure][:, None])
        ratio = f"{own / rivals[best]:.2f}" if rivals[best] > 0 else "–"
        interval = f"{off.value:+.3f} [{off.low:+.3f}, {off.high:+.3f}]"
        rows.append([_HEADINGS.get(measure, measure), f"{own:.3f}", best, f"{rivals[best]:.3f}", ratio, interval])
    return list(markdown_table(rows))
