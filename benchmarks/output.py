"""Where a benchmark's table goes."""

from pathlib import Path


def show(text: str, path: Path | None) -> None:
    """Prints a table, and writes it to a file where one is named; its folder need not exist."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(text)
