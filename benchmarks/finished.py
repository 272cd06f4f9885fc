"""Finished parts of a benchmark: computed once, written down whole, and never taken for those of other options."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def finished(path: Path, options: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """
    A part's result: what the file holds, or what `compute` gives, which is then written there.

    Args:
        path (`Path`): of the file.
        options (`dict`): all that the result depends on.
        compute: called only if there is no such file.

    Raises:
        SystemExit: if the file holds the result of other options: nothing is overwritten or mixed.
    """
    wanted = json.loads(json.dumps(options, default=str))
    if path.exists():
        result: dict[str, Any] = json.loads(path.read_text())
        found = result.get("options", {})
        if found != wanted:
            name = next(name for name in {**wanted, **found} if wanted.get(name) != found.get(name))
            raise SystemExit(
                f"{path} was computed with {name}={found.get(name)!r}, not {wanted.get(name)!r}: choose another "
                "--output, or delete it and the folder beside it."
            )
        return result
    result = {"options": wanted, **compute()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1))
    partial.replace(path)
    return result
