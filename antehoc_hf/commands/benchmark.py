"""`antehoc benchmark paper`: the ante-hoc paper's tables and figures, computed again."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.explainers import EXPLAINERS
from antehoc_hf.paper.cells import Bench, CellStore
from antehoc_hf.paper.figures import draw
from antehoc_hf.paper.landmarks import parts_table
from antehoc_hf.paper.plots import plot
from antehoc_hf.paper.protocols import CAPTIONS, CLASSIFICATION, LANDMARKS, PROTOCOLS, DataSource, protocol_named
from antehoc_hf.paper.tables import Table, tables_of
from antehoc_hf.paper.workshop import Workshop
from antehoc_hf.training.runs.results import versions, write_results
from antehoc_hf.training.runs.settings import OptionParser

DATA_SETS = {**LANDMARKS, **CAPTIONS, **CLASSIFICATION}


@dataclass
class BenchmarkArguments:
    """What is computed, on what."""

    _argument_group_name: ClassVar[str] = "benchmark"

    table: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5], metadata={"help": "Of the paper's, 1 to 5."})
    figure: list[int] = field(
        default_factory=list, metadata={"help": "Of the paper's: 1, 3, 4 or 5. None: no figure."}
    )
    dataset: list[str] = field(
        default_factory=lambda: ["shapes"],
        metadata={"help": f"Of {', '.join(DATA_SETS)}. Each table takes those that it is about."},
    )
    data: list[str] = field(
        default_factory=list,
        metadata={"help": "KEY=NAME: where it is (a folder, or a name on the Hub), such as cifar10=FOLDER."},
    )
    recipe: str = field(
        default="cpu", metadata={"help": f"How much is trained and measured: {' or '.join(PROTOCOLS)}."}
    )
    seeds: list[int] = field(default_factory=list, metadata={"help": "Of the trainings. None: the recipe's."})
    images: int | None = field(
        default=None, metadata={"help": "Test images a map is measured on. None: the recipe's."}
    )
    slow_images: int | None = field(
        default=None, metadata={"help": "Of these, for insertion, deletion, ROAD and noise. None: the recipe's."}
    )
    explainers: list[str] = field(
        default_factory=lambda: ["grad-cam", "grad-cam++", "score-cam"],
        metadata={"help": f"Methods beside ours: of {', '.join(EXPLAINERS)}."},
    )
    output_dir: str = field(default="benchmark", metadata={"help": "Where networks, cells, tables and figures go."})
    progress: bool = field(default=True, metadata={"help": "Show bars."})


def benchmark(argv: Sequence[str]) -> dict[str, Any]:
    """
    Trains what is missing, measures what is missing, and writes `tables.md`, `tables.json`, a picture of each table
    and the figures. Start it again after an interruption: trained networks, checkpoints and finished cells are kept.

    Args:
        argv: the word `paper`, then flags, see `antehoc benchmark paper --help`.

    Returns:
        `dict`: what `tables.json` holds.

    Raises:
        ValueError: for options or data that make no sense, in one sentence.
        OSError: if something cannot be read or written.
    """
    options = _parsed(argv)
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
    root.mkdir(parents=True, exist_ok=True)
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


def _parsed(argv: Sequence[str]) -> BenchmarkArguments:
    arguments = list(argv)
    if arguments[:1] not in (["paper"], ["-h"], ["--help"]):
        raise UsageError("There is one benchmark: `antehoc benchmark paper`. Its options follow the word.")
    arguments = arguments[1:] if arguments[0] == "paper" else arguments
    parser = OptionParser((BenchmarkArguments,), prog="antehoc benchmark paper")
    options: BenchmarkArguments = parser.parse_options(arguments)[0]
    for name, allowed in (("table", (1, 2, 3, 4, 5)), ("figure", (1, 3, 4, 5)), ("dataset", tuple(DATA_SETS))):
        wrong = [value for value in getattr(options, name) if value not in allowed]
        if wrong:
            raise UsageError(f"{name} {wrong[0]!r} must be one of {', '.join(map(str, allowed))}.")
    unknown = [name for name in options.explainers if name not in EXPLAINERS]
    if unknown:
        raise UsageError(f"There is no explainer {unknown[0]!r}: there are {', '.join(EXPLAINERS)}.")
    for name in ("images", "slow_images"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}.")
    return options


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
    places = {key: value for key, value in vars(options).items() if key not in ("data", "output_dir", "progress")}
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    results = {
        "options": places,
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
