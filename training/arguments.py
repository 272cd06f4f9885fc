"""Arguments of the two-pass training."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

InterpretationTarget = Literal["probabilities", "logits", "kl"]
UpdateOrder = Literal["simultaneous", "sequential"]
InterpretationBatchNorm = Literal["eval", "batch", "update"]
CoalitionSampling = Literal["contiguous", "ranked", "shapley"]
CoalitionBackground = Literal["mixed", "mean", "blur", "black"]


@dataclass
class AnteHocTrainingArguments(TrainingArguments):
    """
    `transformers.TrainingArguments` and what the second pass needs on top.

    The inherited `learning_rate`, `weight_decay`, `max_grad_norm` and so on belong to the first pass, i.e. to the
    backbone and its head, and mean exactly what they mean to the stock Trainer. The learning rate schedule and the
    kind of optimizer are shared.

    > Parameters that control the weight network's optimizer

    Args:
        interpretation_learning_rate (`float`, *optional*, defaults to 1e-3):
            Peak learning rate of the weight network; it follows the same schedule as `learning_rate`.
        interpretation_weight_decay (`float`, *optional*, defaults to 0.0):
            Weight decay of the weight network (biases are exempt, as usual).
        interpretation_max_grad_norm (`float`, *optional*, defaults to 1.0):
            Clipping of the weight network's gradient, apart from `max_grad_norm`; 0 switches it off.

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
            False: backbone and head stay exactly as they are, running statistics included, and the weight network
            alone learns, e.g. to explain a classifier that is there already.

    > Parameters that control the second pass's objective

    Args:
        interpretation_target (`str`, *optional*, defaults to `"probabilities"`):
            What is compared between the prediction on the image and that on the energy map. `"probabilities"`: the
            mean squared error of softmax (or sigmoid) outputs, the paper's loss. `"logits"`: the mean squared error
            of logits, centred over the classes where a common shift means nothing. `"kl"`: the Kullback–Leibler
            divergence from the prediction on the image.
        joint_weight (`float`, *optional*, defaults to 0.0):
            Weight λ of the second pass's loss for the backbone and head, so that they learn from masked images too.
            0: only the weight network learns from it, and the backbone trains as if there were no map.
        update_order (`str`, *optional*, defaults to `"simultaneous"`):
            `"simultaneous"`: both gradients are taken at the same parameters, then both are applied. `"sequential"`:
            the backbone steps first and the second pass runs through the updated backbone.
        interpretation_batch_norm (`str`, *optional*, defaults to `"eval"`):
            Batch norm in the second pass. `"eval"`: running statistics, never updated on masked images. `"batch"`:
            the batch's statistics, not stored. `"update"`: the batch's statistics, stored; this changes the backbone.
        target_eval (`bool`, *optional*, defaults to `False`):
            Compare with a prediction made in evaluation mode, at the price of another forward pass, instead of with
            the first pass's, which was made with dropout and the batch's statistics.
        reconstruction_weight (`float`, *optional*, defaults to 0.0):
            Weight of the mean squared error between the weight network's output before its softmax and its input,
            which makes it an autoencoder in the strict sense.
        area_weight (`float`, *optional*, defaults to 0.0):
            Weight of the map's mean.
        tv_weight (`float`, *optional*, defaults to 0.0):
            Weight of the map's total variation: the mean absolute difference of neighbouring pixels, both directions.
        entropy_weight (`float`, *optional*, defaults to 0.0):
            Weight of the entropy over the weight maps, in [0, 1]; it pushes each pixel to choose one attention map.

    > Parameters of class-conditional maps (`weight_network="contributions"`), whose second pass compares coalitions of
    patches and not energy maps

    Args:
        coalitions_per_image (`int`, *optional*, defaults to 2):
            Masked images of each image in a second pass, an even number: coalitions are compared in pairs of one size.
            Each costs a forward pass without gradient.
        coalition_sampling (`str`, *optional*, defaults to `"contiguous"`):
            `"contiguous"`: neighbouring patches tend to go together, all sizes are as likely. `"ranked"`: the patches
            that the map of the predicted class itself puts first, give or take those of which it is not sure; all
            sizes are as likely. `"shapley"`: sizes by the Shapley kernel, patches independent: the contributions
            become Shapley values.
        coalition_background (`str`, *optional*, defaults to `"mixed"`):
            What stands where a patch is missing: the image's `"mean"` colour, the image `"blur"`red, `"black"`, or one
            of the three at random.

    > Parameters that change the backbone's training

    Args:
        partial_image_share (`float`, *optional*, defaults to 0.0):
            Share of each batch, in [0, 1), that the first pass sees as a random coalition of patches, drawn as above,
            so that the network knows images of which something is missing. The backbone is then no longer the plain
            network's.

    > Parameters that control the output folder

    Args:
        overwrite_run (`bool`, *optional*, defaults to `False`):
            Delete the checkpoints of the run that `output_dir` holds and start over. Without it a folder that holds
            a run is refused unless that run is resumed.

    Raises:
        ValueError: for a value out of range, or a combination that would not train what it says.
    """

    interpretation_learning_rate: float = field(
        default=1e-3, metadata={"help": "Peak learning rate of the weight network."}
    )
    interpretation_weight_decay: float = field(default=0.0, metadata={"help": "Weight decay of the weight network."})
    interpretation_max_grad_norm: float = field(
        default=1.0, metadata={"help": "Clipping of the weight network's gradient; 0 switches it off."}
    )
    interpretation_batch_share: float = field(
        default=1.0, metadata={"help": "Share of each batch, in (0, 1], that makes the second pass."}
    )
    interpretation_interval: int = field(
        default=1, metadata={"help": "Make the second pass in every n-th optimizer step."}
    )
    interpretation_start: float = field(
        default=0.0, metadata={"help": "Share of the training, in [0, 1), that is over before the first second pass."}
    )
    train_task: bool = field(
        default=True, metadata={"help": "False: backbone and head stay as they are; the weight network alone learns."}
    )
    interpretation_target: InterpretationTarget = field(
        default="probabilities",
        metadata={"help": "What the second pass compares: 'probabilities', centred 'logits', or 'kl'."},
    )
    joint_weight: float = field(
        default=0.0, metadata={"help": "Weight of the second pass's loss for the backbone and head; 0: none."}
    )
    update_order: UpdateOrder = field(
        default="simultaneous",
        metadata={"help": "'simultaneous', or 'sequential': the second pass runs through the updated backbone."},
    )
    interpretation_batch_norm: InterpretationBatchNorm = field(
        default="eval",
        metadata={"help": "Batch norm in the second pass: 'eval' (running statistics), 'batch', or 'update'."},
    )
    target_eval: bool = field(
        default=False,
        metadata={"help": "Compare with a prediction in evaluation mode (one more forward pass)."},
    )
    reconstruction_weight: float = field(
        default=0.0, metadata={"help": "Weight of the weight network's reconstruction error."}
    )
    area_weight: float = field(default=0.0, metadata={"help": "Weight of the map's mean."})
    tv_weight: float = field(default=0.0, metadata={"help": "Weight of the map's total variation."})
    entropy_weight: float = field(default=0.0, metadata={"help": "Weight of the entropy over the weight maps."})
    coalitions_per_image: int = field(
        default=2, metadata={"help": "Masked images of each image in a second pass of class-conditional maps; even."}
    )
    coalition_sampling: CoalitionSampling = field(
        default="contiguous",
        metadata={
            "help": "'contiguous' coalitions, those 'ranked' first by the map, or 'shapley' (the Shapley kernel)."
        },
    )
    coalition_background: CoalitionBackground = field(
        default="mixed", metadata={"help": "In place of a missing patch: 'mean', 'blur', 'black', or 'mixed'."}
    )
    partial_image_share: float = field(
        default=0.0,
        metadata={"help": "Share of each batch that the first pass sees in part only, as random patches; 0: none."},
    )
    overwrite_run: bool = field(
        default=False, metadata={"help": "Delete the run that output_dir holds and start over."}
    )

    def __post_init__(self) -> None:
        self._check_interpretation()
        self._check_combinations()
        # The two passes reach different parameters: a reducer that expects all of them in each would wait forever.
        self.ddp_find_unused_parameters = True
        super().__post_init__()
        optimizer = OptimizerNames(self.optim).value
        if "lomo" in optimizer or "layerwise" in optimizer:
            raise ValueError(
                f"optim={optimizer!r} updates the parameters during the backward pass, which two passes a step do not "
                "allow: choose another optimizer, e.g. 'adamw_torch'."
            )

    def _check_interpretation(self) -> None:
        if not self.interpretation_learning_rate > 0 or not math.isfinite(self.interpretation_learning_rate):
            raise ValueError(
                f"interpretation_learning_rate must be a positive number, not {self.interpretation_learning_rate}."
            )
        for name in (
            "interpretation_weight_decay",
            "interpretation_max_grad_norm",
            "joint_weight",
            "reconstruction_weight",
            "area_weight",
            "tv_weight",
            "entropy_weight",
        ):
            value = getattr(self, name)
            if not value >= 0 or not math.isfinite(value):
                raise ValueError(f"{name} must be a number of at least 0, not {value}.")
        if not 0 < self.interpretation_batch_share <= 1:
            raise ValueError(
                "interpretation_batch_share is the share of the batch that makes the second pass and must lie in "
                f"(0, 1], not {self.interpretation_batch_share}."
            )
        if not 0 <= self.interpretation_start < 1:
            raise ValueError(
                "interpretation_start is the share of the training that is over before the first second pass and must "
                f"lie in [0, 1), not {self.interpretation_start}."
            )
        if not 0 <= self.partial_image_share < 1:
            raise ValueError(
                "partial_image_share is the share of the batch that the first pass sees in part and must lie in "
                f"[0, 1), not {self.partial_image_share}."
            )
        if self.interpretation_interval < 1 or self.interpretation_interval != int(self.interpretation_interval):
            raise ValueError(
                "interpretation_interval counts optimizer steps and must be a whole number of at least 1, not "
                f"{self.interpretation_interval}."
            )
        if self.coalitions_per_image < 2 or self.coalitions_per_image % 2:
            raise ValueError(
                "coalitions_per_image must be an even number of at least 2, since coalitions are compared in pairs, "
                f"not {self.coalitions_per_image}."
            )
        for name, choices in (
            ("interpretation_target", get_args(InterpretationTarget)),
            ("update_order", get_args(UpdateOrder)),
            ("interpretation_batch_norm", get_args(InterpretationBatchNorm)),
            ("coalition_sampling", get_args(CoalitionSampling)),
            ("coalition_background", get_args(CoalitionBackground)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, choices))}.")

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
            raise ValueError(
                "DeepSpeed is not supported, because it takes an optimizer step at every backward pass: use DDP or "
                "FSDP2 instead."
            )
        if not self.train_task and (self.joint_weight > 0 or self.interpretation_batch_norm == "update"):
            raise ValueError(
                "train_task=False leaves backbone and head as they are, which joint_weight and "
                "interpretation_batch_norm='update' would change: leave these out."
            )
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
        if self.update_order == "sequential" and self.joint_weight > 0:
            raise ValueError(
                "joint_weight adds the second pass's gradient to the backbone's, which update_order='sequential' has "
                "applied by then: use update_order='simultaneous' with it."
            )
        if self.update_order == "sequential" and self.fp16:
            raise ValueError(
                "update_order='sequential' takes two optimizer steps, which fp16's loss scaling does not foresee: use "
                "bf16 or update_order='simultaneous'."
            )
