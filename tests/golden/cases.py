"""What must not change while the house is rebuilt: training, predictions, maps and reports of each task and kind of
map.

`python tests/golden/cases.py FILE` computes the values and writes them. Sums and a digest of the bits: the sums are
compared everywhere, the bits where processor and packages are those on which the file was written.
"""

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from antehoc_hf.evaluation import evaluate_maps
from antehoc_hf.evaluation.settings import EvaluationSettings
from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocForImageClassification, AnteHocForLandmarkDetection
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.data.captions import CaptionCollator
from antehoc_hf.training.trainer import AnteHocTrainer

SIZE, PAD, BOS, EOS, STEPS = 64, 0, 1, 2, 20
CASES = ("classes-contributions", "classes-energy", "landmarks-energy", "captions-energy")


class Rows(Dataset):
    """Noise with an offset that goes with the class, the points or the words."""

    def __init__(self, task: str, length: int = 24) -> None:
        self.task, self.length = task, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        kind = index % 4
        image = torch.randn(3, SIZE, SIZE, generator=generator) + 0.5 * kind
        if self.task == "classes":
            return {"pixel_values": image, "labels": kind}
        if self.task == "landmarks":
            labels = torch.rand(3, 2, generator=generator)
            labels[: index % 3] = torch.nan
            return {"pixel_values": image, "labels": labels, "normalizer": torch.ones(2, 2)}
        return {"pixel_values": image, "labels": torch.tensor([*[4 + kind] * (1 + kind), EOS])}


def build_model(case: str) -> Any:
    task, kind = case.split("-")
    torch.manual_seed(0)
    if task == "landmarks":
        return AnteHocForLandmarkDetection.from_backbone(
            "test_resnet", image_size=SIZE, num_landmarks=3, map_head=kind
        )
    if task == "captions":
        return AnteHocForImageCaptioning.from_backbone(
            "test_resnet", image_size=SIZE, vocab_size=9, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
            max_caption_length=8, decoder_embedding_size=16, decoder_hidden_size=24, map_head=kind,
        )  # fmt: skip
    return AnteHocForImageClassification.from_backbone("test_resnet", image_size=SIZE, num_labels=4, map_head=kind)


def train(model: Any, task: str, folder: str) -> AnteHocTrainer:
    args = AnteHocTrainingArguments(
        output_dir=folder, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=STEPS,
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, learning_rate=1e-2,
    )  # fmt: skip
    collator = CaptionCollator(pad_token_id=PAD, bos_token_id=BOS) if task == "captions" else None
    trainer = AnteHocTrainer(model=model, args=args, train_dataset=Rows(task), data_collator=collator)
    trainer.train()
    return trainer


def values_of(case: str) -> dict[str, Any]:
    """All golden values of one case: number, sum and sum of magnitudes of each group of tensors, with a digest of its
    bits, and every number of the report.
    """
    task = case.split("-")[0]
    model = build_model(case)
    with tempfile.TemporaryDirectory() as folder:
        trainer = train(model, task, folder)
    model.eval()
    map_prefix = "map_head."
    state = model.state_dict()
    found: dict[str, Any] = {
        "backbone": _summary(tensor for name, tensor in state.items() if not name.startswith(map_prefix)),
        "map": _summary(tensor for name, tensor in state.items() if name.startswith(map_prefix)),
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "interpretation_losses": [
            entry["interpretation_loss"] for entry in trainer.state.log_history if "interpretation_loss" in entry
        ],
    }
    pixel_values = torch.stack([Rows(task)[index]["pixel_values"] for index in range(4)])
    with torch.no_grad():
        if task == "captions":
            outputs = model.caption(pixel_values, output_word_maps=True)
            found["prediction"] = _summary([outputs.log_probabilities])
            found["word_maps"] = _summary([outputs.word_maps])
        else:
            outputs = model(pixel_values=pixel_values, output_attention_maps=True)
            found["prediction"] = _summary([outputs.landmarks if task == "landmarks" else outputs.logits])
        found["interpretation_map"] = _summary([outputs.interpretation_map])
        if getattr(outputs, "contributions", None) is not None:
            found["contributions"] = _summary([outputs.contributions])
        if getattr(outputs, "soft_attention_maps", None) is not None:
            found["soft_attention_maps"] = _summary([outputs.soft_attention_maps])
            found["weight_maps"] = _summary([outputs.weight_maps])
    found["report"] = report(model, task)
    return found


def report(model: Any, task: str) -> dict[str, float]:
    """The scores of the task's report, flat: row/measure → value."""
    settings = EvaluationSettings(resamples=50, insertion_deletion_images=8, road_images=4)
    if task == "classes":
        made = evaluate_maps(model, DataLoader(Rows(task, 8), batch_size=4), settings, progress=False)
    elif task == "captions":
        loader = DataLoader(Rows(task, 8), batch_size=4, collate_fn=CaptionCollator(PAD, BOS))
        made = evaluate_maps(model, loader, settings, progress=False)
    else:
        made = evaluate_maps(model, DataLoader(Rows(task, 8), batch_size=4), progress=False)
    return {f"{row.name}/{name}": estimate.value for row in made.rows for name, estimate in row.scores.items()}


def _summary(tensors: Iterable[Tensor]) -> dict[str, Any]:
    digest, count, total, magnitude = hashlib.sha256(), 0, 0.0, 0.0
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(values.numpy().tobytes())
        count += values.numel()
        total += values.double().sum().item()
        magnitude += values.double().abs().sum().item()
    return {"numbers": count, "sum": total, "magnitude": magnitude, "digest": digest.hexdigest()[:16]}


def machine() -> dict[str, str]:
    """What the bits depend on; libraries choose kernels by all that a processor can do, not by its class alone."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return {
        "processor": platform.machine(),
        "flags": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def main(path: str) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    values = {"machine": machine(), "cases": {case: values_of(case) for case in CASES}}
    Path(path).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
