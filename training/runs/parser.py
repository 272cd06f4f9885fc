"""The parser of `antehoc train`, and the mistakes that it finds before torch is imported."""

import ast
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.options import OptionParser, as_words
from antehoc_hf.training.runs.options import NO_DATA_SET, RUN_ARGUMENTS
from antehoc_hf.training.runs.recipes import default_options, read_layers, recipe_names


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
    """Names that the classes of the trainer and its arguments declare, read from their source."""
    stock, ours = (Path(str(_origin(package))).parent for package in ("transformers", "antehoc_hf.training"))
    trees = (ast.parse(file.read_text("utf-8")) for file in (stock / "training_args.py", *ours.rglob("*.py")))
    fields = (node.target for tree in trees for node in ast.walk(tree) if isinstance(node, ast.AnnAssign))
    return frozenset(field.id for field in fields if isinstance(field, ast.Name))


def _origin(package: str) -> str | None:
    found = find_spec(package)
    return None if found is None else found.origin
