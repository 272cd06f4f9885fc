"""The ante-hoc paper's tables and figures, computed again."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.output import output_folder
from antehoc_hf.paper.cells import Bench, CellStore
from antehoc_hf.paper.figures import draw
from antehoc_hf.paper.landmarks import parts_table
from antehoc_hf.paper.plots import plot
from antehoc_hf.paper.protocols import DATA_SETS, LANDMARKS, DataSource, protocol_named
from antehoc_hf.paper.tables import Table, tables_of
from antehoc_hf.paper.workshop import Workshop
from antehoc_hf.training.runs.results import versions, write_results

if TYPE_CHECKING:
    from antehoc_hf.commands.benchmark import BenchmarkArguments


def benchmark_paper(options: BenchmarkArguments) -> dict[str, Any]:
    """Trains what is missing, measures what is missing, and writes `tables.md`, `tables.json`, a picture of each table
    and the figures. Start it again after an interruption: trained networks, checkpoints and finished cells are kept.

    Args:
        options: see `antehoc benchmark paper --help`.

    Returns:
        `dict`: what `tables.json` holds.

    Raises:
        ValueError: for options or data that make no sense, in one sentence.
        OSError: if something cannot be read or written.
    """
    protocol = protocol_named(options.recipe)
    protocol = replace(
        protocol,
        images=options.images or protocol.images,
        slow_images=min(options.slow_images or protocol.slow_images, options.images or protocol.images),
        seeds=tuple(options.seeds) or protocol.seeds,
    )
    root, sources = Path(options.output_dir), _sources(options.dataset, options.data)
    bench = Bench(
        Workshop(root, protocol, quiet=not options.progress),
        CellStore(root / "cells", protocol.name),
        tuple(options.explainers),
    )
    written = () if _loses_nothing(root, options) else ("tables.json",)
    with output_folder(root, written, options.overwrite, alone=False):
        return _computed(bench, options, sources, root)


def _loses_nothing(root: Path, options: BenchmarkArguments) -> bool:
    """Whether the tables that the folder holds are among those asked for; what they hold is checked cell by cell."""
    try:
        before = json.loads((root / "tables.json").read_text(encoding="utf-8"))["options"]
        return all(set(before[name]) <= set(getattr(options, name)) for name in ("table", "dataset", "explainers"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _computed(bench: Bench, options: BenchmarkArguments, sources: dict[str, DataSource], root: Path) -> dict[str, Any]:
    """All tables and figures, written."""
    protocol = bench.workshop.protocol
    tables: list[Table] = []
    for number in options.table:
        tables += tables_of(bench, number, options.dataset, protocol.seeds, sources)
        _write(root, tables, options)  # what is finished is shown, whatever comes later
    figures = [
        file
        for number in options.figure
        for key in options.dataset
        for file in draw(bench, number, key, sources[key], protocol.seeds[0], root / "figures")
    ]
    if 4 in options.figure:
        about = [key for key in options.dataset if key in LANDMARKS]
        tables += [parts_table(bench, key, sources[key], protocol.seeds) for key in about]
    results = _write(root, tables, options)
    if not tables and not figures:
        raise UsageError(f"None of the chosen tables and figures is about {', '.join(options.dataset)}.")
    print((root / "tables.md").read_text(encoding="utf-8"))
    print(f"Written to {root}: tables.md, tables.json, {len(tables)} pictures of tables, {len(figures)} figures")
    return results


def _sources(keys: Sequence[str], places: Sequence[str]) -> dict[str, DataSource]:
    """The data sets, where the user says they are."""
    sources = dict(DATA_SETS)
    for place in places:
        key, _, name = place.partition("=")
        if key not in sources or not name:
            raise UsageError(f"--data {place!r} must be KEY=NAME with a key of {', '.join(sources)}.")
        sources[key] = replace(sources[key], name=name)
    for key in keys:
        if sources[key].name is None:
            raise UsageError(f"{sources[key].title} has no known place: say where it is, --data {key}=FOLDER.")
    return sources


def _write(root: Path, tables: Sequence[Table], options: BenchmarkArguments) -> dict[str, Any]:
    """Markdown, JSON and pictures of all tables so far."""
    untold = ("data", "output_dir", "overwrite", "progress")
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    results = {
        "options": {name: value for name, value in vars(options).items() if name not in untold},
        "tables": [table.to_dict() for table in tables],
        "versions": {**versions(), **machine},
    }
    write_results(root / "tables.json", results)
    text = "\n".join(table.to_markdown() for table in tables)
    (root / "tables.md").write_text(f"{text}\n{json.dumps(results['versions'])}\n", encoding="utf-8")
    for table in tables:
        slug = "".join(letter if letter.isalnum() else "-" for letter in table.title.split(", ")[-1]).lower()
        plot(table).savefig(root / f"{table.kind.lower()}-{table.number}-{slug}.png", bbox_inches="tight")
    return results
