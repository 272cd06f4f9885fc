"""Where a command writes its results: never over those of an earlier run, unless it is asked to."""

from __future__ import annotations

from pathlib import Path

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.options import option


def overwrite_option() -> bool:
    """The option `--overwrite`, the same in every command."""
    return option(False, "Let the results replace those of an earlier run.")  # type: ignore[no-any-return]


def check_vacant(result: Path, overwrite: bool, name: str = "output_dir") -> None:
    """
    Args:
        result (`Path`): the file that a run leaves, by which an earlier one is known.
        overwrite (`bool`): whether it may be replaced.
        name (`str`): of the option that says where it is written.

    Raises:
        UsageError: if there is such a file already.
    """
    if result.exists() and not overwrite:
        raise UsageError(
            f"{result} is there already, from an earlier run: name another --{name}, or add --overwrite to replace it."
        )
