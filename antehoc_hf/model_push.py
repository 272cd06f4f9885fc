"""What `model.push_to_hub` does where this project is installed."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer

from antehoc_hf.modeling import AnteHocImageProcessor


def push_model(
    model: Any,
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    max_shard_size: int | str = "50GB",
    processor: Any = None,
    tokenizer: Any = None,
    **others: Any,
) -> str:
    """Pushes a model with its code, image processor, tokenizer and a card.

    The card holds what the model knows about itself: the pretrained weights it started from, and what its training and
    evaluation with `AnteHocTrainer` found out, as long as its weights have not changed since.

    Args:
        model: with or without a head.
        repo_id (`str`): `"name"`, in the user's own namespace, or `"namespace/name"`; made if it is not there.
        commit_message, private, token, revision, max_shard_size: as in transformers.
        processor (*optional*): None: that of the checkpoint it came from, or else the one of its backbone.
        tokenizer (*optional*): None: that of the checkpoint it came from, if it has one.
        others: further arguments of transformers that make no difference here, such as `tags`.

    Returns:
        `str`: the commit's address.

    Raises:
        ValueError: for `create_pr`, which is not supported.
        PushError: if the Hub does not take it.
    """
    # Only needed here, and slow to import.
    from antehoc_hf.model_cards import push_folder, write_card
    from antehoc_hf.model_cards.in_memory import noted_results
    from antehoc_hf.model_cards.publish import create_repository

    if others.get("create_pr"):
        raise ValueError("create_pr is not supported: push to a branch with revision=…, or use `hf upload`.")
    with TemporaryDirectory() as scratch:
        model.save_pretrained(scratch, max_shard_size=max_shard_size)
        (processor or processor_of(model)).save_pretrained(scratch)
        tokenizer = tokenizer or _tokenizer(model)
        if tokenizer is not None:
            tokenizer.save_pretrained(scratch)
        name = create_repository(repo_id, private, token or None)
        write_card(Path(scratch), repo_id=name, results=noted_results(model))
        message = commit_message or f"Upload {type(model).__name__}"
        return push_folder(Path(scratch), name, revision=revision, message=message, token=token or None).url


def processor_of(model: Any) -> AnteHocImageProcessor:
    """The image processor of the checkpoint that a model came from, or else the one of its backbone."""
    config = model.config
    if model.name_or_path:
        try:
            return AnteHocImageProcessor.from_pretrained(model.name_or_path)
        except OSError:  # a checkpoint without one
            pass
    return AnteHocImageProcessor.from_backbone(
        config.backbone, image_size=config.image_size, image_mean=config.image_mean, image_std=config.image_std
    )


def _tokenizer(model: Any) -> Any:
    if getattr(model.config, "vocab_size", None) is None or not model.name_or_path:
        return None
    try:
        return AutoTokenizer.from_pretrained(model.name_or_path)
    except (OSError, ValueError):  # a checkpoint without one
        return None
