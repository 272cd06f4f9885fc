"""The numbers to the paper's Figure 4: whether the map of each part's model lies on that part."""

from collections.abc import Mapping, Sequence
from typing import Any

from antehoc_hf.paper.cells import Bench, spread
from antehoc_hf.paper.protocols import DataSource
from antehoc_hf.paper.tables import Table, Value, protocol_line, scores_of
from antehoc_hf.paper.workshop import TrainedNetwork

_PARTS = ("nose", "eyes", "mouth")
_SHOWN = ("antehoc", "center")
_OF_EACH_MAP = {"equal_area_nme": "NME, equal area ↓", "nme": "NME, image ⊙ map ↓", "map_mean": "mean of map"}


def part_networks(key: str, source: DataSource, seed: int) -> Mapping[str, TrainedNetwork]:
    """The models of the single parts, or of all points where the data set has no such parts."""
    groups = _PARTS if key == "faces" else ("all",)
    return {
        group: TrainedNetwork("landmarks", key, source, seed, extra=("--landmark_group", group), variant=group)
        for group in groups
    }


def _part_reports(bench: Bench, key: str, source: DataSource, seeds: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Part → a `MapReport` a seed, as plain data; what is missing is trained and measured."""
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in seeds:
        for part, network in part_networks(key, source, seed).items():
            found.setdefault(part, []).append(bench.landmarks(network))
    return found


def parts_table(bench: Bench, key: str, source: DataSource, seeds: Sequence[int]) -> Table:
    """Error of each part's model, and energy of its map within each part over the part's share of the image.

    Args:
        bench: networks and cells; what is missing is trained and measured.
        key, source: the data set.
        seeds: of the trainings.

    Returns:
        `Table`: a row for each part's model and one for a centred blob; NME in percent, map means as shares.
    """
    found = _part_reports(bench, key, source, seeds)
    reports = next(iter(found.values()))
    within = {
        f"{name}_energy_share_over_area": f"energy ÷ area, {name} ↑" for name in reports[0].get("part_areas", {})
    }
    columns = {"error": "NME ↓", **within, **_OF_EACH_MAP}
    rows = {}
    for part, of_part in found.items():
        for name in _SHOWN:
            scores = scores_of(of_part, name)
            row = {measure: _value(of_map.get(measure) for of_map in scores) for measure in (*within, *_OF_EACH_MAP)}
            error = {"error": _value(report["nme"] for report in of_part)} if name == "antehoc" else {}
            rows[f"{name}, {part}"] = {**error, **row}
    notes = [
        protocol_line(bench, seeds, reports[0]["num_images"]),
        "A model for each part, and a blob in the centre to compare its map with. NME: mean error of the points "
        f"in units of {reports[0]['settings']['normalizer']}. Energy ÷ area is 1 where a map does not know the part.",
    ]
    return Table(4, f"maps of the models of parts, {source.title}", columns, rows, notes, kind="Figure")


def _value(found: Any) -> Value:
    return Value(*spread([None if score is None else score["value"] for score in found]))
