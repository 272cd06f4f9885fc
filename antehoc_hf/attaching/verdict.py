"""Whether a map may be trusted more than Grad-CAM, about as much, or less: one sentence, from held-out images."""

from dataclasses import dataclass
from typing import Any, Literal

from antehoc_hf.evaluation.results import MapReport

METRIC = "insertion_minus_deletion"
RIVAL = "grad-cam"
# Of insertion − deletion: below it the network answers the same whatever is covered, as if it had learned nothing.
_LEAST = 0.002
Trust = Literal["more", "as much", "less", "nothing", "not compared"]


@dataclass(frozen=True)
class Verdict:
    """What held-out images say.

    Args:
        trust (`str`): `"more"` than Grad-CAM, `"as much"`, `"less"`, or `"nothing"`: no better than a map that shows
            nothing; `"not compared"`: better than that, but Grad-CAM cannot explain the network.
        sentence (`str`): the same for a person.
        ours, rival, control (`float`): insertion − deletion of our map, of Grad-CAM (None where it cannot explain the
            network), and of the best map that shows nothing.
    """

    trust: Trust
    sentence: str
    ours: float
    rival: float | None
    control: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def judge(report: MapReport) -> Verdict:
    """Compares insertion − deletion, which brightness cannot buy, image by image.

    Args:
        report (`MapReport`): with a row for our map, for the controls and, where it can explain the network, Grad-CAM.
    """
    ours = report.row("antehoc").scores[METRIC].value
    rivals = {row.name: row for row in report.rows if row.kind == "explainer"}
    controls = [row for row in report.rows if row.kind == "control"]
    best = max(controls, key=lambda row: row.scores[METRIC].value)
    control = best.scores[METRIC].value
    on = f"on {report.num_scored} images that it had not seen"
    rival = rivals[RIVAL].scores[METRIC].value if RIVAL in rivals else None
    if best.behind_first[METRIC].low <= 0:
        text = f"The map is not to be trusted: {on} it is no better than the map {best.name!r}, which shows nothing"
        return Verdict("nothing", f"{text} (insertion − deletion {ours:.3f} and {control:.3f}).", ours, rival, control)
    if max(ours, rival or 0.0) < _LEAST:
        text = f"These maps explain nothing: {on} hardly anything that is covered changes the network's answer"
        return Verdict("nothing", f"{text} (insertion − deletion {ours:.3f}).", ours, rival, control)
    if rival is None:
        text = f"The map shows something ({ours:.3f} insertion − deletion {on}, against {control:.3f} of a map that"
        return Verdict(
            "not compared", f"{text} shows nothing); Grad-CAM cannot explain this network.", ours, None, control
        )
    behind = rivals[RIVAL].behind_first[METRIC]
    trust: Trust = "more" if behind.low > 0 else "less" if behind.high < 0 else "as much"
    words = {"more": "more than", "as much": "about as much as", "less": "less than"}[trust]
    numbers = (
        f"insertion − deletion {ours:.3f} against {rival:.3f}, difference {behind.low:+.3f} to {behind.high:+.3f}"
    )
    return Verdict(trust, f"The map may be trusted {words} Grad-CAM: {numbers} {on}.", ours, rival, control)
