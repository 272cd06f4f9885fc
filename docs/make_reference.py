"""Writes `reference.md` from the docstrings: every public name, how it is called, and what it does.

Run it with `python docs/make_reference.py`.
"""

import importlib
import inspect
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOMS = (
    "antehoc_hf",
    "antehoc_hf.modeling",
    "antehoc_hf.training",
    "antehoc_hf.evaluation",
    "antehoc_hf.explainers",
    "antehoc_hf.concepts",
    "antehoc_hf.baselines",
    "antehoc_hf.pipelines",
    "antehoc_hf.visualization",
    "antehoc_hf.shapes",
    "antehoc_hf.model_cards",
)
PAGE = Path(__file__).with_name("reference.md")
_TITLE = """# Reference

Every public name, from its docstring: written by `python docs/make_reference.py`. Arguments, shapes, ranges and errors
are told in full by `help(name)`.
"""


def reference() -> str:
    """The whole page."""
    told: set[int] = set()
    return _TITLE + "".join(_room(name, told) for name in ROOMS)


def _room(name: str, told: set[int]) -> str:
    """A room's heading, what it is for, and its names; a name that stands in an earlier room is told there."""
    module = importlib.import_module(name)
    parts = [f"\n## `{name}`\n\n{_first_paragraph(module)}\n"]
    for public in sorted(getattr(module, "__all__", ()), key=str.lower):
        thing = getattr(module, public)
        if id(thing) in told or public.startswith("__"):
            continue
        told.add(id(thing))
        parts.append(_entry(public, thing))
    return "".join(parts)


def _entry(name: str, thing: Any) -> str:
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return f"\n### `{name}`\n\n```text\n{_call(name, thing)}\n```\n\n{_first_paragraph(thing)}\n"
    if isinstance(thing, Mapping):
        return f"\n### `{name}`\n\nNames: {', '.join(f'`{key}`' for key in thing)}.\n"
    return f"\n### `{name}`\n\nA {type(thing).__name__}.\n"


def _call(name: str, thing: Any) -> str:
    """The signature, on lines that can be read."""
    try:
        signature = inspect.signature(thing)
    except (ValueError, TypeError):
        return name
    shown = [str(parameter.replace(annotation=inspect.Parameter.empty)) for parameter in signature.parameters.values()]
    # An object as a default shows its place in memory, which is another one in the next process.
    shown = [re.sub(r"<[^<>]*( object)? at 0x[0-9a-f]+>|<factory>", "…", parameter) for parameter in shown]
    line = f"{name}({', '.join(shown)})"
    return line if len(line) <= 100 else textwrap.fill(line, 100, subsequent_indent="    ", break_on_hyphens=False)


def _first_paragraph(thing: Any) -> str:
    text = inspect.cleandoc(thing.__dict__.get("__doc__") or getattr(thing, "__doc__", None) or "")
    return " ".join(text.split("\n\n")[0].split())


def main() -> None:
    PAGE.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
