"""Which of timm's architectures explain themselves: builds every one, runs it forward and looks at prediction and map.

Everything runs on the meta device (shapes without arithmetic) where an architecture allows it. Writes a table with the
counts and every refusal, in Markdown; what is in its `.jsonl` is not looked at again. Usage:

    python -m benchmarks.sweep [--output docs/backbones.md] [--filter 'resnet*']
"""

import fnmatch
import json
import logging
import multiprocessing
import re
import signal
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from tqdm import tqdm

from antehoc_hf.modeling import AnteHocConfig, AnteHocForImageClassification
from antehoc_hf.modeling.landmark_cnn import NAME as LANDMARK_CNN
from benchmarks.output import parser

SECONDS_FOR_ONE = 240


def is_convolutional(network: nn.Module) -> bool:
    """At least eight convolutions wider than one pixel and no self-attention."""
    wide = [m for m in network.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    attention = [m for m in network.modules() if re.search(r"Attention(?!Pool)|^Attn", type(m).__name__)]
    return len(wide) >= 8 and not attention


def look_at(name: str) -> dict[str, Any]:
    """Builds one architecture and gives what came of it; never raises."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS_FOR_ONE)
    row: dict[str, Any] = {"name": name, "convolutional": True, "ok": False, "kind": "", "reason": ""}
    try:
        with torch.device("meta"):
            row["convolutional"] = is_convolutional(timm.create_model(name))
        config = AnteHocConfig(backbone=name)
        with torch.device("meta"):
            model = AnteHocForImageClassification(config).eval()
        height, width = model.config.image_size
        output = _output(model, height, width)
        shapes = tuple(output.logits.shape), tuple(output.interpretation_map.shape)
        assert shapes == ((1, model.config.num_labels), (1, 1, height, width)), f"logits and map of shapes {shapes}"
        row |= {"ok": True, "taps": model.config.num_attention_maps, "fixed_size": model.config.fixed_image_size}
    except Exception as error:  # the sweep is there to list them
        row |= {"kind": type(error).__name__, "reason": " ".join(str(error).split())[:400]}
    finally:
        signal.alarm(0)
    return row


def _output(model: AnteHocForImageClassification, height: int, width: int) -> Any:
    with torch.no_grad():
        try:
            return model(torch.zeros(1, 3, height, width, device="meta"))
        except NotImplementedError:  # an operation without meta kernel: take real numbers
            real = AnteHocForImageClassification(model.config).eval()
            return real(torch.zeros(1, 3, height, width))


def _too_long(*_: object) -> None:
    raise TimeoutError(f"took more than {SECONDS_FOR_ONE} s")


def table(rows: list[dict[str, Any]]) -> str:
    """The counts and the refusals as Markdown."""
    lines = ["| architectures | all | explain themselves | share |", "|---|---:|---:|---:|"]
    groups = {"all of `timm.list_models()`": rows, "convolutional": [row for row in rows if row["convolutional"]]}
    for title, group in groups.items():
        good = sum(row["ok"] for row in group)
        lines.append(f"| {title} | {len(group)} | {good} | {100 * good / max(len(group), 1):.1f} % |")
    refused = [row for row in rows if not row["ok"]]
    lines += ["", "Refused:", "", "| architecture | convolutional | reason |", "|---|---|---|"]
    for row in refused:
        reason = row["reason"] if row["kind"] == "ValueError" else f"{row['kind']}: {row['reason']}"
        lines.append(f"| `{row['name']}` | {'yes' if row['convolutional'] else 'no'} | {reason.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--output", type=Path, default=Path("outputs/sweep/backbones.md"))
    command.add_argument("--filter", default="*", help="only architectures that match, e.g. 'resnet*'")
    command.add_argument("--workers", type=int, default=1)
    options = command.parse_args()
    names = fnmatch.filter(timm.list_models(exclude_filters=LANDMARK_CNN), options.filter)  # that one is ours
    context = multiprocessing.get_context("spawn")
    # A fresh process now and then: what one architecture leaves behind must not reach the next.
    options.output.parent.mkdir(parents=True, exist_ok=True)
    record = options.output.with_suffix(".jsonl")
    done = {row["name"]: row for row in map(json.loads, record.read_text().splitlines())} if record.exists() else {}
    left = [name for name in names if name not in done]
    with context.Pool(options.workers, maxtasksperchild=60) as pool, record.open("a") as file:
        for row in tqdm(pool.imap(look_at, left), total=len(left), desc="architectures"):
            done[row["name"]] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            if not row["ok"]:
                tqdm.write(f"{row['name']}: {row['kind']}: {row['reason']}")
    rows = [done[name] for name in names]
    text = f"timm {timm.__version__}, torch {torch.__version__}\n\n{table(rows)}"
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
