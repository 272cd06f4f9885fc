"""The results in `results/` as a table, and as a picture: what the fit explains on its way, and how maps compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
NAMES = ("fitted map", "class evidence", "grad-cam", "grad-cam++", "center")


def main() -> None:
    results = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]
    compared = [result for result in results if "insertion_deletion" in result]
    for result in compared:
        print(f"\n{result['network']}, {result['split']}, {result.get('compared', result['validation'])} images\n")
        print("| map | " + " | ".join(f"{kind} | minus Grad-CAM" for kind in result["insertion_deletion"]) + " |")
        print("|---|" + "---:|---|" * len(result["insertion_deletion"]))
        for name in result["insertion_deletion"]["mean"]:
            print(f"| {name} | " + " | ".join(_cell(of[name]) for of in result["insertion_deletion"].values()) + " |")
    _draw(results, compared)


def _cell(score: dict[str, Any]) -> str:
    difference, low, high = score["difference"]
    return f"{score['mean']:.3f} | {difference:+.3f} [{low:+.3f}, {high:+.3f}]"


def _draw(results: list[dict[str, Any]], compared: list[dict[str, Any]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    fits = [
        (result["network"], seed, fit)
        for result in results
        for seed, fit in zip(result["seeds"], result["fits"], strict=True)
        if fit["curve"]
    ]
    for network, seed, fit in fits:
        images, _, explained = zip(*fit["curve"], strict=True)
        label = f"{network}, seed {seed} ({fit['seconds'] / 60:.0f} min)"
        (line,) = left.plot(images, explained, marker=".", label=label)
        left.axhline(fit["explained"]["class evidence"], color=line.get_color(), linestyle=":")
    left.set(xlabel="images seen", ylabel="share of held-out gains explained", title="fitted map; dotted: evidence")
    left.legend()
    for number, result in enumerate(compared):
        scores = result["insertion_deletion"]["mean"]
        places = [place + 0.8 * number / len(compared) for place in range(len(NAMES))]
        right.bar(places, [scores[name]["mean"] for name in NAMES], width=0.8 / len(compared), label=result["network"])
    right.set_xticks(range(len(NAMES)), NAMES, rotation=20)
    right.set(ylabel="insertion − deletion, mean colour", title="validation images, own prediction", ylim=(0, 0.55))
    right.legend()
    figure.savefig(HERE / "attach.png", dpi=110)


if __name__ == "__main__":
    main()
