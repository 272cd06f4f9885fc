"""How metrics are headed and written on a card: those of tasks by this list, those of maps by what the report says."""

from dataclasses import dataclass

from antehoc_hf.model_cards.data import Maps, ScoreColumn
from antehoc_hf.model_cards.escape import text


@dataclass(frozen=True)
class Measure:
    """A heading, and how its number is written: `scale` × value with so many decimals, and a unit."""

    heading: str
    decimals: int = 2
    scale: float = 1.0
    unit: str = ""

    def written(self, value: float) -> str:
        """The number with its unit."""
        return f"{self.scale * value:.{self.decimals}f}{self.unit}"


def _share(heading: str) -> Measure:
    return Measure(heading, 2, 100.0, " %")


TASK_METRICS = {
    "accuracy": _share("accuracy ↑"),
    "mean_average_precision": _share("mean average precision ↑"),
    "shuffled_average_precision": _share("mean average precision with the scores of other images"),
    "exact_match": _share("exact match ↑"),
    "mse": Measure("mean squared error ↓", 4),
    "mse_of_mean": Measure("mean squared error of one answer for all images, the mean of the labels", 4),
    "mae": Measure("mean absolute error ↓", 4),
    "nme_interocular": Measure("NME by the distance of the eyes ↓", 2, 1.0, " %"),
    "nme_box": Measure("NME by the box ↓", 2, 1.0, " %"),
    "auc_8": Measure("area under the curve up to 8 % ↑", 3),
    "failure_rate_8": Measure("failure rate at 8 % ↓", 1, 1.0, " %"),
    "nme_of_mean_points": Measure("NME of one answer for all images, the mean of the true points", 2, 1.0, " %"),
    "bleu_1": Measure("BLEU-1 ↑", 1),
    "bleu_2": Measure("BLEU-2 ↑", 1),
    "bleu_3": Measure("BLEU-3 ↑", 1),
    "bleu_4": Measure("BLEU-4 ↑", 1),
    "token_accuracy": _share("token accuracy ↑"),
}


def fair_measures(maps: Maps) -> dict[str, Measure]:
    """Columns of metrics that a bright map does not win."""
    return {column.metric: _measure(column) for column in _measured(maps) if column.judges and not column.bright}


def bright_measures(maps: Maps) -> dict[str, Measure]:
    """Columns of metrics that reward brightness, followed by those that only describe a map."""
    columns = _measured(maps)
    bright = [column for column in columns if column.judges and column.bright]
    describing = [column for column in columns if not column.judges]
    return {column.metric: _measure(column) for column in (*bright, *describing)} if bright else {}


def all_measures(maps: Maps) -> dict[str, Measure]:
    """Every column, in the report's order."""
    return {column.metric: _measure(column) for column in _measured(maps)}


def _measure(column: ScoreColumn) -> Measure:
    return Measure(text(column.heading, 80), column.decimals)


def _measured(maps: Maps) -> list[ScoreColumn]:
    """The columns in which there is a number."""
    found = {metric for row in maps.rows for metric, _ in row.scores}
    return [column for column in maps.columns if column.metric in found]
