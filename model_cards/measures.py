"""How metrics are headed and written, in the order in which a card shows them."""

import re
from dataclasses import dataclass

from antehoc_hf.model_cards.data import Maps
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
    "exact_match": _share("exact match ↑"),
    "mse": Measure("mean squared error ↓", 4),
    "mae": Measure("mean absolute error ↓", 4),
    "nme_interocular": Measure("NME by the distance of the eyes ↓", 2, 1.0, " %"),
    "nme_box": Measure("NME by the box ↓", 2, 1.0, " %"),
    "auc_8": Measure("area under the curve up to 8 % ↑", 3),
    "failure_rate_8": Measure("failure rate at 8 % ↓", 1, 1.0, " %"),
    "bleu_1": Measure("BLEU-1 ↑", 1),
    "bleu_2": Measure("BLEU-2 ↑", 1),
    "bleu_3": Measure("BLEU-3 ↑", 1),
    "bleu_4": Measure("BLEU-4 ↑", 1),
    "token_accuracy": _share("token accuracy ↑"),
}

# What brightness can't buy; of equal area, by rank, or against a known truth.
_HONEST = {
    "equal_area_avg_drop": Measure("Avg. Drop, equal area ↓", 1),
    "equal_area_win": Measure("Win, equal area ↑", 1),
    "equal_area_accuracy": Measure("accuracy, equal area ↑", 1),
    "equal_area_nme": Measure("NME, equal area ↓", 2),
    "insertion_minus_deletion": Measure("insertion − deletion ↑", 3),
    "road": Measure("ROAD ↑", 3),
    "energy_share_over_area": Measure("energy share / area ↑", 2),
    "relevance_rank": Measure("relevance rank ↑", 3),
    "pointing_game": Measure("pointing game ↑", 1),
}
_BRIGHT = {
    "drop_cond": Measure("Drop ↓", 1),
    "inc_cond": Measure("Inc ↑", 1),
    "win": Measure("Win ↑", 1),
    "avg_drop": Measure("Avg. Drop ↓", 1),
    "accuracy": Measure("accuracy ↑", 1),
    "nme": Measure("NME, image ⊙ map ↓", 2),
    "map_mean": Measure("mean of map", 2),
}
_PARTS = {"energy_over_area": ("energy / area ↑", 2), "pointing_game": ("pointing ↑", 1)}


def honest_measures(maps: Maps) -> dict[str, Measure]:
    """Those that were measured and that a bright map does not win."""
    measured = _measured(maps)
    found = {name: measure for name, measure in _HONEST.items() if name in measured}
    for name in measured:
        match = re.fullmatch(rf"(.+)_({'|'.join(_PARTS)})", name)
        if match and name not in _HONEST and not name.startswith("equal_area_"):
            heading, decimals = _PARTS[match[2]]
            found[name] = Measure(f"{text(match[1], 40)}: {heading}", decimals)
    return found


def bright_measures(maps: Maps) -> dict[str, Measure]:
    """Those that were measured and that reward brightness; nothing but the maps' mean is nothing."""
    measured = _measured(maps)
    found = {name: measure for name, measure in _BRIGHT.items() if name in measured}
    return {} if set(found) <= {"map_mean"} else found


def _measured(maps: Maps) -> list[str]:
    """Every metric of any row, in the order of the rows."""
    return list(dict.fromkeys(metric for row in maps.rows for metric, _ in row.scores))
