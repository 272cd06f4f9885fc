"""Ways of launching that two passes a step do not go together with."""

from accelerate import Accelerator
from accelerate.utils import DistributedType

from antehoc_hf.training.arguments import DEEPSPEED, SEQUENTIAL_FP16, AnteHocTrainingArguments


def check_launch(args: AnteHocTrainingArguments, accelerator: Accelerator, trains_task: bool = False) -> None:
    """Looks at what the launcher and its environment have decided; the arguments have checked themselves.

    Args:
        args (`AnteHocTrainingArguments`): the trainer's.
        accelerator (`Accelerator`): the trainer's.
        trains_task (`bool`): whether the second pass trains backbone and head, too.

    Raises:
        ValueError: if training would stop, or do something else than it says.
    """
    fp16 = accelerator.mixed_precision == "fp16"
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError(DEEPSPEED)
    if args.n_gpu > 1:
        raise ValueError(
            "Several GPUs in one process (DataParallel) are not supported: start one process a GPU, with "
            "`accelerate launch` or `torchrun`."
        )
    if args.update_order == "sequential" and fp16:
        raise ValueError(SEQUENTIAL_FP16)
    if accelerator.distributed_type == DistributedType.FSDP:
        if not accelerator.is_fsdp2:
            raise ValueError("FSDP 1 is not supported: set the version to 2 in the FSDP configuration.")
        if trains_task or args.update_order == "sequential" or fp16:
            raise ValueError(
                "FSDP is supported for joint_weight=0 and update_order='simultaneous', without fp16: use DDP for "
                "other settings."
            )
    elif args.fsdp:
        raise ValueError(
            "fsdp is set, but Accelerate shards on GPUs and other accelerators only and would silently replicate the "
            "model here: leave fsdp out."
        )
