"""Ways of launching that the two passes do not go together with."""

from accelerate import Accelerator
from accelerate.utils import DistributedType

from antehoc_hf.training.arguments import AnteHocTrainingArguments


def check_launch(args: AnteHocTrainingArguments, accelerator: Accelerator) -> None:
    """
    Looks at what the launcher and its environment have decided; the arguments have checked themselves.

    Raises:
        ValueError: if training would stop, or do something else than it says.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError(
            "DeepSpeed is not supported, because it takes an optimizer step at every backward pass: use DDP or FSDP2 "
            "instead."
        )
    if args.n_gpu > 1:
        raise ValueError(
            "Several GPUs in one process (DataParallel) are not supported: start one process a GPU, with "
            "`accelerate launch` or `torchrun`."
        )
    if args.update_order == "sequential" and accelerator.mixed_precision == "fp16":
        raise ValueError(
            "update_order='sequential' takes two optimizer steps, which fp16's loss scaling does not foresee: use "
            "bf16 or update_order='simultaneous'."
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        _check_sharding(args, accelerator)
    elif args.fsdp:
        raise ValueError(
            "fsdp is set, but Accelerate shards on GPUs and other accelerators only and would silently replicate the "
            "model here: leave fsdp out."
        )


def _check_sharding(args: AnteHocTrainingArguments, accelerator: Accelerator) -> None:
    if not accelerator.is_fsdp2:
        raise ValueError("FSDP 1 is not supported: set the version to 2 in the FSDP configuration.")
    if args.joint_weight > 0 or args.update_order == "sequential" or accelerator.mixed_precision == "fp16":
        raise ValueError(
            "FSDP is supported for joint_weight=0 and update_order='simultaneous', without fp16: use DDP for other "
            "settings."
        )
