"""Arguments of the two-pass training."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from accelerate.utils import DynamoBackend
from transformers import TrainingArguments
from transformers.debug_utils import DebugOption
from transformers.training_args import OptimizerNames

from antehoc_hf.training.options import ABOVE_0, AT_LEAST_0, PART, SHARE, Range, check_options

# Of the stock arguments, which torch and transformers check late, or never.
_COUNT = Range(1, multiple_of=1)
_STOCK = {
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm", "adam_epsilon", "warmup_steps"), AT_LEAST_0),
    **dict.fromkeys(("num_train_epochs", "logging_steps", "eval_steps", "save_steps"), ABOVE_0),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), PART),
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), _COUNT),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps", "torch_empty_cache_steps"), _COUNT),
    **dict.fromkeys(("seed", "data_seed"), Range(0, 2**32, multiple_of=1)),
    "save_total_limit": _COUNT,
    "dataloader_num_workers": Range(0, multiple_of=1),
    "label_smoothing_factor": Range(0, 1, includes_high=True),
}

UpdateOrder = Literal["simultaneous", "sequential"]

DEEPSPEED = (
    "DeepSpeed is not supported, because it takes an optimizer step at every backward pass: use DDP or FSDP2 instead."
)
SEQUENTIAL_FP16 = (
    "update_order='sequential' takes two optimizer steps, which fp16's loss scaling does not foresee: use bf16 or "
    "update_order='simultaneous'."
)


@dataclass
class AnteHocTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` and what every second pass needs on top. What the map learns from has options
    of its own: see [`EnergyOptions`] and [`CoalitionOptions`].

    The inherited `learning_rate`, `weight_decay`, `max_grad_norm` and so on belong to the first pass, i.e. to the
    backbone and its head, and mean exactly what they mean to the stock Trainer. The learning rate schedule and the
    kind of optimizer are shared.

    > Parameters that control the map head's optimizer

    Args:
        interpretation_learning_rate (`float`, *optional*, defaults to 1e-3):
            Peak learning rate of the map head; it follows the same schedule as `learning_rate`.
        interpretation_weight_decay (`float`, *optional*, defaults to 0.0):
            Weight decay of the map head (biases are exempt, as usual).
        interpretation_max_grad_norm (`float`, *optional*, defaults to 1.0):
            Clipping of the map head's gradient, apart from `max_grad_norm`; 0 switches it off.

    > Parameters that control how often and on how much the second pass runs

    Args:
        interpretation_batch_share (`float`, *optional*, defaults to 1.0):
            Share of each batch in (0, 1] that makes the second pass: its first ceil(share · B) samples.
        interpretation_interval (`int`, *optional*, defaults to 1):
            The second pass is made in every n-th optimizer step, the first step included.
        interpretation_start (`float`, *optional*, defaults to 0.0):
            Share of the training, in [0, 1), that is over before the first second pass: what a backbone does that has
            hardly learned anything is soon out of date.

        train_task (`bool`, *optional*, defaults to `True`):
            False: backbone and head stay exactly as they are, running statistics included, and the map head
            alone learns, e.g. to explain a finished classifier.
        update_order (`str`, *optional*, defaults to `"simultaneous"`):
            `"simultaneous"`: both gradients are taken at the same parameters, then both are applied. `"sequential"`:
            the backbone steps first and the second pass runs through the updated backbone.

    > Parameters that change the backbone's training

    Args:
        partial_image_share (`float`, *optional*, defaults to 0.0):
            Share of each batch, in [0, 1), that the first pass sees as a random coalition of patches, drawn like the
            objective's own, so that the network knows images of which something is missing. The backbone is then no
            longer the plain network's.

    > Parameters that control the output folder

    Args:
        overwrite_run (`bool`, *optional*, defaults to `False`):
            Delete the checkpoints of the run that `output_dir` holds and start over. Without it a folder that holds
            a run is refused unless that run is resumed.

    Raises:
        ValueError: for a value out of range, or a combination that would not train what it says.
    """

    interpretation_learning_rate: Annotated[float, ABOVE_0] = field(
        default=1e-3, metadata={"help": "Peak learning rate of the map head."}
    )
    interpretation_weight_decay: Annotated[float, AT_LEAST_0] = field(
        default=0.0, metadata={"help": "Weight decay of the map head."}
    )
    interpretation_max_grad_norm: Annotated[float, AT_LEAST_0] = field(
        default=1.0, metadata={"help": "Clipping of the map head's gradient; 0 switches it off."}
    )
    interpretation_batch_share: Annotated[float, SHARE] = field(
        default=1.0, metadata={"help": "Share of each batch, in (0, 1], that makes the second pass."}
    )
    interpretation_interval: Annotated[int, Range(1, multiple_of=1)] = field(
        default=1, metadata={"help": "Make the second pass in every n-th optimizer step."}
    )
    interpretation_start: Annotated[float, PART] = field(
        default=0.0, metadata={"help": "Share of the training, in [0, 1), that is over before the first second pass."}
    )
    train_task: bool = field(
        default=True, metadata={"help": "False: backbone and head stay as they are; the map head alone learns."}
    )
    update_order: UpdateOrder = field(
        default="simultaneous",
        metadata={"help": "'simultaneous', or 'sequential': the second pass runs through the updated backbone."},
    )
    partial_image_share: Annotated[float, PART] = field(
        default=0.0,
        metadata={"help": "Share of each batch that the first pass sees in part only, as random patches; 0: none."},
    )
    overwrite_run: bool = field(
        default=False, metadata={"help": "Delete the run that output_dir holds and start over."}
    )

    def __post_init__(self) -> None:
        check_options(self, _STOCK)
        if self.max_steps != -1 and self.max_steps not in _COUNT:
            raise ValueError(
                f"max_steps must be -1, for as many as the epochs have, or {_COUNT}, not {self.max_steps}."
            )
        self._check_combinations()
        self._check_compilation()
        self._check_names()
        # The two passes reach different parameters: a reducer that expects all of them in each would wait forever.
        self.ddp_find_unused_parameters = True
        super().__post_init__()
        optimizer = OptimizerNames(self.optim).value
        if "lomo" in optimizer or "layerwise" in optimizer:
            raise ValueError(
                f"optim={optimizer!r} updates the parameters during the backward pass, which two passes a step do not "
                "allow: choose another optimizer, e.g. 'adamw_torch'."
            )

    def _check_compilation(self) -> None:
        if self.torch_compile_mode is not None:
            _check_choice("torch_compile_mode", self.torch_compile_mode, list(torch._inductor.list_mode_options()))
        if self.torch_compile_backend is not None:
            # What accelerate passes on, and torch has here.
            there = torch._dynamo.list_backends(exclude_tags=())  # type: ignore[no-untyped-call]
            known = [backend.lower() for backend in DynamoBackend.list() if backend.lower() in there]
            _check_choice("torch_compile_backend", self.torch_compile_backend.lower(), known)

    def _check_names(self) -> None:
        """What the stock arguments pass over, or stumble upon when the training has begun."""
        asked = self.debug if isinstance(self.debug, list) else str(self.debug or "").split()
        for choice in asked:
            name = choice.value if isinstance(choice, DebugOption) else str(choice)
            _check_choice("debug", name, [option.value for option in DebugOption])
        for name in self.include_for_metrics:
            _check_choice("include_for_metrics", name, ["inputs", "loss"])
        _check_choice("train_sampling_strategy", str(self.train_sampling_strategy), ["random", "sequential"])
        if self.save_strategy == "best" and self.metric_for_best_model is None:
            raise ValueError("save_strategy='best' needs to know by what: name it with metric_for_best_model.")
        for name in ("neftune_noise_alpha", "use_liger_kernel"):
            if getattr(self, name):
                raise ValueError(f"{name} is for language models, and these models see images: leave it out.")

    def _check_combinations(self) -> None:
        if self.ddp_find_unused_parameters is False:
            raise ValueError(
                "Each of the two passes leaves the other's parameters unused, so ddp_find_unused_parameters=False "
                "would stop distributed training: leave it out."
            )
        if self.ddp_static_graph:
            raise ValueError(
                "ddp_static_graph=True does not fit two passes a step, whose graphs differ: leave it out."
            )
        if self.deepspeed:
            raise ValueError(DEEPSPEED)
        if not self.train_task and self.partial_image_share > 0:
            raise ValueError(
                "train_task=False trains no backbone that could learn from partial images: leave one out."
            )
        late = self.interpretation_interval > 1 or self.interpretation_start > 0
        if not self.train_task and (late or self.update_order == "sequential"):
            raise ValueError(
                "train_task=False leaves steps without a second pass, or before it, nothing to learn: leave out "
                "interpretation_interval, interpretation_start and update_order."
            )
        if self.update_order == "sequential" and self.fp16:
            raise ValueError(SEQUENTIAL_FP16)


def _check_choice(name: str, value: str, choices: list[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(choices)}.")
