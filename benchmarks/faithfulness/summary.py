"""From the parts' files to one page, one file of numbers and one picture."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from antehoc_hf.evaluation import CONTROLS
from antehoc_hf.evaluation.controls import controls_explained
from antehoc_hf.evaluation.results import markdown_table
from benchmarks.faithfulness import part_maps
from benchmarks.faithfulness.cells import CELLS, MARGIN_BEST, MARGIN_REFERENCE, OURS, Cell

_OURS, _OTHERS, _CONTROL = "#b5350b", "#23527c", "#9a9a9a"
_SHOWN_CONTROLS = ("random", "center", "sobel")
_NOTES = {
    "worth": "Maps that know the patches' Shapley values, measured on the network by sampling orders, and those of "
    "the methods, on the same images. `rank correlation with worth`: over the patches of an image; of the worth "
    "itself that of two measurements with half of the orders each, so how well it is known.",
    "grid": "Share of the positive energy of a class's map in the quadrant of its image, and how often the maximum "
    "lies there; chance 0.25, aim 0.8. `antehoc, contributions`: positive part of the contributions. The last rows "
    "know the truth: which quadrant is right, and what each is worth to the class in the network's own eyes (Shapley "
    "values, from all 16 images that show some of the quadrants), as pixels and as a map of so many patches can show "
    "it.",
    "sanity": "Rank correlation with the trained network's map of its prediction. After randomising it should be near "
    "`another image`, or 0.",
    "stability": "Rank correlation of the maps with and without salt and pepper (higher is steadier), and change of "
    "Drop and Inc (lower). `antehoc` follows the prediction on the noisy image; the others keep the class.",
    "shapes": "Aims: energy in the mask and part importance 0.8. `the same with the ground` ranks the ground as one "
    "more part, whose worth is the probability lost on another ground. `ground: energy and use`: rank correlation "
    "over images between energy on the ground and that loss. The last rows know the truth, as pixels and as a map of "
    "so many patches can show it: no map can be asked for more. `removals on another ground`: a second measurement "
    "of what `part importance` is compared with.",
    "cost": "Median ratio to the plain network and quartiles; aims: forward 1.10, step 2.2.",
}


def number(value: float | None, decimals: int = 3) -> str:
    """As printed."""
    return "–" if value is None or math.isnan(value) else f"{value:.{decimals}f}"


def over_seeds(estimates: Sequence[Mapping[str, Any]], decimals: int) -> str:
    """Mean ± standard deviation over seeds; of one seed its interval."""
    values = [estimate["value"] for estimate in estimates if estimate.get("value") is not None]
    if not values:
        return "–"
    mean = number(statistics.mean(values), decimals)
    if len(values) > 1:
        return f"{mean} ± {number(statistics.stdev(values), decimals)}"
    low, high = estimates[0].get("low"), estimates[0].get("high")
    if len(estimates) > 1 or low is None:
        return mean
    return f"{mean} [{number(low, decimals)}, {number(high, decimals)}]"


def score_table(seeds: Sequence[Mapping[str, Any]], first: str = "map") -> list[str]:
    """Rows and measures as they are in the files of the seeds; percentages and counts with one decimal."""
    measures = list(dict.fromkeys(measure for row in seeds[0].values() for measure in row))
    decimals, rows = {}, [[first, *measures]]
    for measure in measures:
        values = [row[measure]["value"] for seed in seeds for row in seed.values() if measure in row]
        decimals[measure] = 1 if max((abs(value) for value in values if value is not None), default=0.0) > 5 else 3
    for row in seeds[0]:
        of_seeds = [seed.get(row, {}) for seed in seeds]
        cells = [over_seeds([found[m] for found in of_seeds if m in found], decimals[m]) for m in measures]
        rows.append([row, *cells])
    explained = controls_explained(seeds[0])
    return [*markdown_table(rows), *(["", explained] if explained else [])]


def verdict_table(rows: Sequence[Mapping[str, Any]], per_seed: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """The verdict on every cell; where there are several seeds, also in how many of them it holds."""
    decimals = {cell.name: cell.decimals for cell in CELLS}
    lines = [
        "| cell | ours | best other | Grad-CAM | ours ÷ best | ours ÷ Grad-CAM | ours − best | best control | met | "
        "seeds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|---:|",
    ]
    for index, row in enumerate(rows):
        digits, gap = decimals[row["cell"]], row["difference_to_best"]
        seeds = [of_seed[index]["met"] for of_seed in per_seed]
        met = {True: "**yes**" if row["certain"] else "yes, not certain", False: "no", None: "–"}[row["met"]]
        cells = [
            f"{row['heading']} {'↑' if row['higher'] else '↓'}",
            number(row["ours"], digits),
            f"{number(row['best_value'], digits)} {row['best'] or ''}",
            number(row["reference_value"], digits),
            number(row["ratio_to_best"], 2),
            number(row["ratio_to_reference"], 2),
            f"[{number(gap['low'], digits)}, {number(gap['high'], digits)}]" if gap else "–",
            f"{number(row['control_value'], digits)} {row['control'] or ''}",
            met,
            "–" if row["met"] is None else f"{sum(value is True for value in seeds)} of {len(seeds)}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def cell_table(per_seed: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Every map in every cell, those with margins first, mean ± standard deviation over seeds."""
    honest = tuple(cell for cell in CELLS if cell.aim == "margins")
    paper = tuple(cell for cell in CELLS if cell.aim != "margins")
    explained = controls_explained(per_seed[0])
    return [*_cell_table(per_seed, honest), "", *_cell_table(per_seed, paper), "", explained]


def _cell_table(per_seed: Sequence[Mapping[str, Mapping[str, Any]]], cells: Sequence[Cell]) -> list[str]:
    rows = [["map", *(f"{cell.heading} {'↑' if cell.higher else '↓'}" for cell in cells)]]
    for name in per_seed[0]:
        shown = [over_seeds([seed[name][cell.name] for seed in per_seed], cell.decimals) for cell in cells]
        rows.append([f"**{name}**" if name == OURS else name, *shown])
    return markdown_table(rows)


def maps_lines(values: Sequence[part_maps.Values], found: dict[str, Any]) -> list[str]:
    """The part `maps`; what is in it goes into `found` as well."""
    pooled = part_maps.verdicts(list(values))
    per_seed = [part_maps.verdicts([of_seed]) for of_seed in values]
    scores = [part_maps.scores([of_seed]) for of_seed in values]
    found["maps"] = {"verdicts": pooled, "verdicts_of_seeds": per_seed, "scores": part_maps.scores(list(values))}
    decided = [row for row in pooled if row["met"] is not None]
    margins = [row for row in decided if row["aim"] == "margins"]
    return [
        f"Aims met: {sum(row['met'] for row in margins)} of {len(margins)} cells of insertion − deletion and Average "
        f"Drop ({MARGIN_BEST:.0%} ahead of the best, {MARGIN_REFERENCE:.0%} ahead of Grad-CAM), "
        f"{sum(row['met'] for row in decided) - sum(row['met'] for row in margins)} of {len(decided) - len(margins)} "
        "of the paper's measures on cut masks (ahead of the best). Where lower is better, ahead means the reduction.",
        "",
        "`ours − best` is a 95 % bootstrap interval, paired by image; `not certain`: it holds 0. Soft maps have no "
        "verdict, since brightness buys their scores. Beside stands the best of the controls, maps that explain "
        "nothing. `seeds`: in how many the aim is met.",
        "",
        *verdict_table(pooled, per_seed),
        "",
        "Every map" + (" (mean ± standard deviation over seeds):" if len(values) > 1 else " (95 % intervals):"),
        "",
        *cell_table(scores),
    ]


def part_lines(part: str, results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A part other than `maps`."""
    lines = [_NOTES[part], ""]
    lines += score_table([result["scores"] for result in results], "backbone" if part == "cost" else "map")
    for extra in ("background", "removals"):
        if all(extra in result for result in results):
            lines += ["", *score_table([result[extra] for result in results], extra)]
    return lines


def picture(values: Sequence[part_maps.Values], path: Path) -> None:
    """Bars with 95 % intervals over the images, for the cells that have margins."""
    scores = part_maps.scores(list(values))
    names = [name for name in scores if name not in CONTROLS or name in _SHOWN_CONTROLS]
    cells = [cell for cell in CELLS if cell.aim == "margins"]
    figure = Figure(figsize=(13, 2 * (1.0 + 0.24 * len(names))), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 5, sharey=True)
    axes[0, 4].axis("off")
    legend = "bars: means over images and seeds\nlines: 95 % over images\ngrey: explain nothing"
    axes[0, 4].text(0.1, 0.5, legend, fontsize=8, transform=axes[0, 4].transAxes)
    places = [*axes[0, :4], *axes[1]]
    for axis, cell in zip(places, cells, strict=True):
        for position, name in enumerate(names):
            score = scores[name][cell.name]
            if score["value"] is None:
                continue
            color = _OURS if name == OURS else _CONTROL if name in CONTROLS else _OTHERS
            reach = [[score["value"] - score["low"]], [score["high"] - score["value"]]]
            axis.barh(position, score["value"], xerr=reach, color=color, height=0.7, error_kw={"lw": 1, "capsize": 2})
        axis.set_title(f"{cell.heading} ({'higher' if cell.higher else 'lower'} is better)", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.axvline(0, color="black", linewidth=0.6)
        axis.grid(axis="x", color="#e5e5e5", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    for row in axes:
        row[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0, 0].invert_yaxis()
    figure.savefig(path)
