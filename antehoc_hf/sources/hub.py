"""Checkpoints on the Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download

from antehoc_hf.modeling.backbone import reason_of

_WANTED = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")


def fetched(name: str, token: str | None = None) -> Path:
    """The folder of a repository's checkpoint, from the cache where it is there.

    Raises:
        OSError: if it cannot be had.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=list(_WANTED), token=token))
    except Exception as error:  # huggingface_hub and httpx raise many kinds
        raise OSError(
            f"Could not fetch {name!r} from the Hub ({reason_of(error)}). Is the name right, and, for a private "
            "repository, a token given?"
        ) from error
