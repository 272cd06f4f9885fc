"""A tiny training run, for the tests of this folder: imported by `conftest.py`, and run as a program in processes.

As a program: `python tiny_run.py specs.json`, where the file holds one run or a list of them: `model`, `args`, `data`,
`awake`, `resume`, `processes`, `save`, a folder for the trained model, and `dump`, the file to which the main process
writes what came out.
"""

import json
import os
import random
import sys
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.utils.data import Dataset
from transformers import TrainerCallback

from antehoc_hf.modeling import AnteHocForImageClassification, AnteHocForLandmarkDetection
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.objectives import OBJECTIVES
from antehoc_hf.training.options import flags_of
from antehoc_hf.training.trainer import AnteHocTrainer

SIZE = 64


class Images(Dataset):
    """Noise with a class-dependent offset; `augment` adds noise from all three global generators. With `points`,
    labels are so many points instead, of which some are missing.
    """

    def __init__(self, length: int = 24, augment: bool = False, points: int = 0) -> None:
        self.length, self.augment, self.points = length, augment, points

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, SIZE, SIZE, generator=generator) + 0.5 * (index % 4)
        if self.augment:
            image = image + 0.3 * torch.randn(3, 1, 1) + 0.3 * random.random() + 0.3 * float(np.random.rand())
        if self.points:
            labels = torch.rand(self.points, 2, generator=generator)
            labels[: index % self.points] = torch.nan
            return {"pixel_values": image, "labels": labels, "normalizer": torch.ones(2, 2)}
        return {"pixel_values": image, "labels": index % 4}


def build_model(backbone: str = "test_resnet", seed: int = 0, points: int = 0, **config: Any) -> Any:
    torch.manual_seed(seed)
    if points:
        config = {"map_head": "energy", **config}
        return AnteHocForLandmarkDetection.from_backbone(backbone, image_size=SIZE, num_landmarks=points, **config)
    config = {"num_labels": 4, "map_head": "energy", **config}
    return AnteHocForImageClassification.from_backbone(backbone, image_size=SIZE, **config)


def build_args(output_dir: Any, **options: Any) -> AnteHocTrainingArguments:
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "learning_rate": 1e-2,
    }
    return AnteHocTrainingArguments(output_dir=str(output_dir), **{**defaults, **options})


def build_trainer(model: Any, output_dir: Any, train_dataset: Any = None, parts: Any = None, **options: Any) -> Any:
    """With options of the arguments and, by their names on the command line, of the objective that suits the model.

    Args:
        parts (`dict`, *optional*): keyword arguments of the trainer.
    """
    kind = OBJECTIVES[model.config.map_head.objective]
    names = {flag: name for name, flag in flags_of(kind.options_class).items()}
    objective = kind(**{names[flag]: options.pop(flag) for flag in list(options) if flag in names})
    args = build_args(output_dir, **options)
    return AnteHocTrainer(model, args, train_dataset=train_dataset, objective=objective, **(parts or {}))


class GradientRecorder(TrainerCallback):
    """Copies of all gradients as the optimizer is about to use them, a dictionary for each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        named = model.named_parameters()
        self.steps.append({name: whole(p.grad).clone() for name, p in named if p.grad is not None})


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()


def state_of(trainer: AnteHocTrainer) -> dict[str, torch.Tensor]:
    return {name: whole(tensor) for name, tensor in trainer.model.state_dict().items()}


def processes_agree(state: dict[str, torch.Tensor]) -> bool:
    """Whether all processes hold the very same numbers, buffers included."""
    if not torch.distributed.is_initialized():
        return True
    own = [tensor.double().sum().item() for tensor in state.values()]
    everybodys: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everybodys, own)
    return all(others == own for others in everybodys)


def run(spec: dict[str, Any]) -> AnteHocTrainer:
    if "processes" in spec:
        assert torch.distributed.get_world_size() == spec["processes"], "the launcher started one process only"
    recorder = GradientRecorder()
    model = build_model(**spec.get("model", {}))
    if spec.get("awake"):  # the last layer starts at zero, and nothing behind it would get a gradient
        torch.manual_seed(1)
        last = model.map_head.gates if model.map_head.per_target else model.map_head.weight_network.head
        torch.nn.init.normal_(last.weight, std=0.3)
    data = Images(**spec.get("data", {}))
    trainer = build_trainer(model, train_dataset=data, parts={"callbacks": [recorder]}, **spec["args"])
    trainer.train(resume_from_checkpoint=spec.get("resume"))
    if spec.get("save"):
        trainer.save_model(spec["save"])
    state = state_of(trainer)
    agree = processes_agree(state)
    if trainer.args.process_index == 0 and spec.get("dump"):
        result = {
            "processes": trainer.args.world_size,
            "wrapper": type(trainer.model_wrapped).__name__,
            "agree": agree,
            "state": state,
            "gradients": recorder.steps,
            "log": trainer.state.log_history,
        }
        torch.save(result, spec["dump"] + ".new")
        os.replace(spec["dump"] + ".new", spec["dump"])  # whole or not at all, whenever this is killed
    return trainer


def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    specs = content if isinstance(content, list) else [content]
    if "processes" in specs[0]:
        PartialState(cpu=True)  # opens the process group
    if specs[0].get("shard_on_cpu"):
        # Accelerate shards on accelerators only and would silently take DDP on a CPU, where FSDP2 itself works.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    for spec in specs:
        run(spec)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
