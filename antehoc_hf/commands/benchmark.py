"""`antehoc benchmark paper`: the ante-hoc paper's tables and figures, computed again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from antehoc_hf.commands.errors import UsageError, check_explainers, check_least
from antehoc_hf.commands.options import OptionParser, option
from antehoc_hf.commands.output import overwrite_option
from antehoc_hf.explainers import EXPLAINERS
from antehoc_hf.paper.protocols import DATA_SETS, PROTOCOLS


@dataclass
class BenchmarkArguments:
    """What is computed, on what."""

    group: ClassVar[str] = "benchmark"

    table: list[int] = option([1, 2, 3, 4, 5], "Tables of the paper, 1 to 5.")
    figure: list[int] = option([], "Figures of the paper: 1, 3, 4 or 5. By default none.")
    dataset: list[str] = option(["shapes"], f"Of {', '.join(DATA_SETS)}. Each table takes those that it is about.")
    data: list[str] = option([], "KEY=NAME: where it is (a folder, or a name on the Hub), such as cifar10=FOLDER.")
    recipe: str = option("cpu", f"How much is trained and measured: {' or '.join(PROTOCOLS)}.")
    seeds: list[int] = option([], "Seeds of the trainings. By default the recipe's.")
    images: int | None = option(None, "Test images a map is measured on. By default the recipe's.")
    slow_images: int | None = option(
        None, "Of these, how many for insertion, deletion, ROAD and noise. By default the recipe's."
    )
    explainers: list[str] = option(
        ["grad-cam", "grad-cam++", "score-cam"], f"Methods next to ours, of {', '.join(EXPLAINERS)}."
    )
    output_dir: str = option("benchmark", "Folder for networks, cells, tables and figures.", short="-o")
    overwrite: bool = overwrite_option()
    progress: bool = option(True, "Show progress bars.")

    def __post_init__(self) -> None:
        check_explainers(self.explainers)
        for name, allowed in (("table", (1, 2, 3, 4, 5)), ("figure", (1, 3, 4, 5)), ("dataset", tuple(DATA_SETS))):
            wrong = [value for value in getattr(self, name) if value not in allowed]
            if wrong:
                raise UsageError(f"{name} {wrong[0]!r} must be one of {', '.join(map(str, allowed))}.")
        check_least(self, {"images": 1, "slow_images": 1, "seeds": 0})


def parse(argv: Sequence[str]) -> BenchmarkArguments:
    """The options, after the word `paper`; see [`OptionParser`] for the errors."""
    if list(argv[:1]) not in (["paper"], ["-h"], ["--help"], ["--help-all"]):
        raise UsageError("There is one benchmark: `antehoc benchmark paper`. Its options follow the word.")
    parser = OptionParser(BenchmarkArguments, prog="antehoc benchmark paper")
    return parser.parse(argv[1:] if argv[0] == "paper" else argv, BenchmarkArguments)[0]


def run(options: BenchmarkArguments) -> None:
    """Computes tables and figures; see `antehoc_hf.commands.benchmark_paper`."""
    from antehoc_hf.commands.benchmark_paper import benchmark_paper

    benchmark_paper(options)
