"""From finished cells to the paper's five tables: plain rows first, then Markdown and a picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from antehoc_hf.evaluation.controls import controls_explained
from antehoc_hf.evaluation.results import markdown_table
from antehoc_hf.paper.cells import Bench, spread
from antehoc_hf.paper.protocols import CAPTIONS, CLASSIFICATION, DataSource
from antehoc_hf.paper.published import ACCURACY, BINARISED, ENERGY_MAPS, STABILITY, Numbers
from antehoc_hf.paper.published import CAPTIONS as PUBLISHED_CAPTIONS
from antehoc_hf.paper.workshop import TrainedNetwork

NETWORKS = {"plain": "plain network", "senn": "SENN", "cbah": "CBAH", "antehoc": "antehoc"}


@dataclass(frozen=True)
class Value:
    """One number of a table.

    Args:
        mean (`float`, *optional*): over seeds; None: there is nothing to average (no image lost probability, say).
        deviation (`float`, *optional*): standard deviation over seeds; None for one seed.
        published (`float`, *optional*): what the paper prints there.
    """

    mean: float | None
    deviation: float | None = None
    published: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of one data set.

    Args:
        number (`int`): of the paper's table.
        title (`str`): what it shows, and on what.
        columns (`dict`): measure → heading, with an arrow to where it is better.
        rows (`dict`): method → measure → value.
        notes (`list[str]`): N, seeds, and what must be known to read it.
        kind (`str`): `"Table"`, or `"Figure"` for the numbers to one.
    """

    number: int
    title: str
    columns: Mapping[str, str]
    rows: Mapping[str, Mapping[str, Value]]
    notes: Sequence[str] = field(default_factory=list)
    kind: str = "Table"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = {
            name: {measure: vars(value) for measure, value in of_row.items()} for name, of_row in self.rows.items()
        }
        return {
            self.kind.lower(): self.number,
            "title": self.title,
            "columns": dict(self.columns),
            "rows": rows,
            "notes": [*self.notes],
        }

    def to_markdown(self) -> str:
        """Mean ± standard deviation over seeds; the paper's number in brackets."""
        lines = [f"### {self.kind} {self.number}: {self.title}", "", *self.notes, ""]
        rows = [["", *self.columns.values()]]
        for name, row in self.rows.items():
            rows.append([name, *(_cell(row.get(measure), _decimals(measure)) for measure in self.columns)])
        lines += markdown_table(rows)
        explained = controls_explained(self.rows)
        lines += ["", explained] if explained else []
        return "\n".join(lines) + "\n"


def _cell(value: Value | None, decimals: int = 1) -> str:
    if value is None:
        return ""
    text = "none" if value.mean is None else f"{value.mean:.{decimals}f}"
    text += "" if value.deviation is None else f" ± {value.deviation:.{decimals}f}"
    return text + ("" if value.published is None else f" ({value.published:g})")


def _decimals(measure: str) -> int:
    """One for percent and seconds, more for shares."""
    if measure.startswith(("insertion", "road")):
        return 3
    return 2 if measure.startswith(("map_mean", "similarity")) else 1


# What brightness can't buy, after the paper's measures in the first two tables.
_FAIR = {
    "equal_area_avg_drop": "Avg. Drop, equal area ↓",
    "insertion_minus_deletion": "insertion − deletion ↑",
    "insertion_minus_deletion_patch_blur": "patches to blur ↑",
    "map_mean": "mean of map",
}


def faithfulness(bench: Bench, number: int, key: str, source: DataSource, seeds: Sequence[int]) -> Table:
    """Table 1 (energy maps) or 2 (binarised at 0.8) on one data set."""
    prefix, published = ("", ENERGY_MAPS) if number == 1 else ("binarised_", BINARISED)
    reports = [bench.maps(TrainedNetwork("classifier", key, source, seed)) for seed in seeds]
    paper = {f"{prefix}drop_cond": "Drop ↓", f"{prefix}inc_cond": "Inc ↑", f"{prefix}win": "Win ↑"}
    columns = {**paper, **_FAIR}
    rows = _rows(reports, columns, lambda name: dict(zip(paper, published.get(key, {}).get(name, ()), strict=False)))
    accuracy = _value([report["accuracy"]["value"] for report in reports])
    what = "energy maps" if number == 1 else "energy maps binarised at 0.8"
    notes = [
        protocol_line(bench, seeds, reports[0]["num_images"]),
        f"Insertion and deletion on {bench.workshop.protocol.slow_images} of the images. Accuracy on these images: "
        f"{_cell(accuracy)} %, the plain network's to the bit. A constant map explains nothing: what it beats is no "
        "evidence.",
    ]
    return Table(number, f"{what}, {source.title}", columns, rows, notes)


def accuracies(bench: Bench, key: str, source: DataSource, seeds: Sequence[int]) -> Table:
    """Table 3: networks of one size that explain themselves, and the plain one, which the paper leaves out."""
    rows, images = {}, 0
    for model_type, name in NETWORKS.items():
        networks = [TrainedNetwork("comparison", key, source, seed, model_type) for seed in seeds]
        results = [bench.workshop.results(network) for network in networks]
        found = [100 * result["metrics"]["accuracy"] for result in results]
        seconds = [result["training"]["seconds"] for result in results]
        rows[name] = {"accuracy": _value(found, ACCURACY.get(key, {}).get(model_type)), "seconds": _value(seconds)}
        images = results[0]["evaluated_images"]
    columns = {"accuracy": "accuracy % ↑", "seconds": "training, seconds"}
    notes = [protocol_line(bench, seeds, images), "Seconds are those of this machine, whatever else it was doing."]
    return Table(3, f"accuracy, {source.title}", columns, rows, notes)


def caption_table(bench: Bench, key: str, source: DataSource, seeds: Sequence[int]) -> Table:
    """Table 4: how much of a caption's probability the maps keep."""
    reports = [bench.captions(TrainedNetwork("captioner", key, source, seed)) for seed in seeds]
    bleu = _value(
        [
            bench.workshop.results(TrainedNetwork("captioner", key, source, seed))["metrics"].get("bleu_4")
            for seed in seeds
        ]
    )
    columns = {
        "drop_cond": "Drop ↓",
        "inc_cond": "Inc ↑",
        "win": "Win ↑",
        "equal_area_avg_drop": "Avg. Drop, equal area ↓",
        "map_mean": "mean of map",
    }
    published = PUBLISHED_CAPTIONS if key == "flickr8k" else {}
    rows = _rows(
        reports, columns, lambda name: dict(zip(("drop_cond", "inc_cond"), published.get(name, ()), strict=False))
    )
    notes = [
        protocol_line(bench, seeds, reports[0]["num_images"]),
        f"Probability of the reference captions, length-normalised. BLEU-4 of the captioner: {_cell(bleu)}.",
    ]
    return Table(4, f"captions, {source.title}", columns, rows, notes)


def stability(bench: Bench, key: str, source: DataSource, seeds: Sequence[int]) -> Table:
    """Table 5: change of Drop and Inc under salt and pepper."""
    reports = [bench.stability(TrainedNetwork("classifier", key, source, seed)) for seed in seeds]
    shares = bench.workshop.protocol.noise
    columns = {f"{kind} {share:g}": f"{kind} {share:g} ↓" for share in shares for kind in ("CD", "CI")}
    columns |= {f"similarity {shares[0]:g}": f"same order of pixels, {shares[0]:g} ↑"}
    rows = _rows(reports, columns, lambda name: {measure: _of_noise(measure, name) for measure in columns})
    notes = [
        protocol_line(bench, seeds, reports[0]["num_images"]),
        "In brackets the paper's mean over its four data sets. A map that never changes is stable and says nothing.",
    ]
    return Table(5, f"stability under noise, {source.title}", columns, rows, notes)


def tables_of(
    bench: Bench, number: int, keys: Sequence[str], seeds: Sequence[int], sources: Mapping[str, DataSource]
) -> list[Table]:
    """The tables of that number, one for each of the data sets that it is about.

    Args:
        bench: networks and cells; what is missing is computed.
        number (`int`): 1 to 5.
        keys: of data sets.
        seeds: of the trainings.
        sources: key → where it is.
    """
    if number == 4:
        return [caption_table(bench, key, sources[key], seeds) for key in keys if key in CAPTIONS]
    chosen = [key for key in keys if key in CLASSIFICATION]
    if number in (1, 2):
        return [faithfulness(bench, number, key, sources[key], seeds) for key in chosen]
    make = accuracies if number == 3 else stability
    return [make(bench, key, sources[key], seeds) for key in chosen]


def _rows(
    reports: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    published: Callable[[str], Mapping[str, float | None]],
) -> dict[str, dict[str, Value]]:
    """Method → measure → value over the seeds' reports, and what the paper prints for the method."""
    rows = {}
    for name in (row["name"] for row in reports[0]["rows"]):
        scores, printed = scores_of(reports, name), published(name)
        rows[name] = {
            measure: _value([found[measure]["value"] for found in scores if measure in found], printed.get(measure))
            for measure in columns
        }
    return rows


def scores_of(reports: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """The scores of one kind of map in each report."""
    return [next(row for row in report["rows"] if row["name"] == name)["scores"] for report in reports]


def _of_noise(measure: str, name: str) -> float | None:
    kind, share = measure.split()
    printed: Numbers = STABILITY.get(float(share), {}).get(name, ())
    position = {"CD": 0, "CI": 1}.get(kind)
    return printed[position] if printed and position is not None else None


def _value(found: Sequence[float | None], published: float | None = None) -> Value:
    return Value(*spread(found), published)


def protocol_line(bench: Bench, seeds: Sequence[int], images: int) -> str:
    """What all tables say of how they were made."""
    counted = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})"
    return (
        f"Recipe `{bench.workshop.protocol.name}`, {counted}, {images} test images; mean ± standard deviation over "
        "seeds, the paper's number in brackets. Percent; map means, similarities and insertion − deletion are shares."
    )
