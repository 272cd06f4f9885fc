"""What benchmarks do alike: the command line, tables of means, and where a table goes."""

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from antehoc_hf.evaluation import bootstrap_mean
from antehoc_hf.evaluation.results import markdown_table

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""Column → row → the scores of single images, points or words."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line whose help is the module's text as it stands."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def mean_table(found: Scores, rows: Sequence[str]) -> str:
    """Markdown: means with their bootstrap intervals; `all` is the first column, and each says how many it counts."""
    columns = ["all", *sorted(set(found) - {"all"})]
    counted = [f"{column} ({len(found[column][rows[0]])})" for column in columns]
    cells = [[row, *(_mean(found[column].get(row)) for column in columns)] for row in rows]
    return "\n".join(markdown_table([["map", *counted], *cells])) + "\n"


def _mean(values: Sequence[float] | None) -> str:
    if not values:
        return "–"
    mean = bootstrap_mean(torch.tensor(values))
    return f"{mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}]"


def report(options: argparse.Namespace, name: str, numbers: object, table: str) -> str:
    """Writes NAME.json and NAME.md into the folder `options.output`: what was asked for, on what machine it ran, and
    what came of it; gives the text.
    """
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("output", "model")}
    settings["dataset_name"] = Path(options.dataset_name).name
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{name}.json").write_text(json.dumps({"settings": settings, name: numbers}, indent=1))
    text = f"{settings}, {platform.machine()}, torch {torch.__version__}\n\n{table}"
    (options.output / f"{name}.md").write_text(text)
    return text


def show(text: str, path: Path | None) -> None:
    """Prints a table, and writes it to a file where one is named; its folder need not exist."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(text)
