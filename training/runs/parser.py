"""The parser of `antehoc train`, and the mistakes that it finds before torch is imported."""

import ast
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.options import OptionParser, as_words
from antehoc_hf.training.runs.options import NO_DATA_SET, RUN_ARGUMENTS
from antehoc_hf.training.runs.recipes import default_options, read_layers, recipe_names

# Packages in which options are declared that only a run with torch can read.
_DECLARING = ("transformers", "antehoc_hf.training", "antehoc_hf.modeling")


def train_parser(*further: type) -> OptionParser:
    """The parser of `antehoc train`: the options of a run, and `further` dataclasses of options."""
    return OptionParser(
        *(*RUN_ARGUMENTS, *further),
        prog="antehoc train",
        epilog=f"Recipes: {', '.join(recipe_names())}.",
        defaults=default_options(),
    )


def check_early(argv: Sequence[str]) -> None:
    """Finds mistakes that can be found without importing torch.

    Raises:
        UsageError: for an option that does not exist, a value of the wrong type, or a missing data set.
    """
    parser = train_parser()
    flags, others = parser.read_known(argv)
    names = _declared_elsewhere()
    for word in others:
        name = word.split("=")[0].lstrip("-")
        if word.startswith("--") and name not in names:
            raise UsageError(parser.unknown(word, names))
    recipe, config = flags.get("recipe"), flags.get("config")
    chosen = read_layers(recipe, config, [*parser.options, *names])
    if flags.get("dataset_name", chosen.get("dataset_name")) is None:
        raise UsageError(NO_DATA_SET)
    values = {**{name: value for name, value in chosen.items() if name in parser.options}, **flags}
    typed = parser.read([word for item in values.items() for word in as_words(*item)])
    for cls in RUN_ARGUMENTS:
        parser.build(cls, typed)


@cache
def _declared_elsewhere() -> frozenset[str]:
    """The options that the trainer's arguments, maps and objectives declare, read from their source."""
    stock, *ours = (Path(str(_origin(name))).parent for name in _DECLARING)
    files = [stock / "training_args.py", *(file for folder in ours for file in folder.rglob("*.py"))]
    texts = (file.read_text("utf-8") for file in files)
    classes = (node for text in texts if "help" in text for node in ast.parse(text).body)
    return frozenset(
        name for cls in classes if isinstance(cls, ast.ClassDef) for field in cls.body if (name := _option_name(field))
    )


def _option_name(declared: ast.stmt) -> str | None:
    """The flag of a field with a help text."""
    if not isinstance(declared, ast.AnnAssign) or declared.value is None:
        return None
    text = ast.unparse(declared)
    flag = re.search(r"Flag\('(\w+)'\)|'flag': '(\w+)'", text)
    return (flag[1] or flag[2] if flag else ast.unparse(declared.target)) if "'help': " in text else None


def _origin(package: str) -> str | None:
    found = find_spec(package)
    return None if found is None else found.origin
