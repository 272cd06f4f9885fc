"""Recipes: YAML files of options, each of which may be based on another."""

import difflib
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from antehoc_hf.commands.errors import UsageError

RECIPES = Path(__file__).parents[1] / "recipes"
# A key of recipes alone: the recipe whose values are taken where this one has none.
BASED_ON = "based_on"
DEFAULTS = "defaults"


def default_options() -> dict[str, object]:
    """What `antehoc train` assumes where nothing is given."""
    tensorboard = any(find_spec(package) is not None for package in ("tensorboard", "tensorboardX"))
    return {"report_to": "tensorboard" if tensorboard else "none", **read_recipe(DEFAULTS)}


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != DEFAULTS)


def read_layers(recipe: str | None, config: str | None, names: Collection[str]) -> dict[str, object]:
    """The options of `--recipe` and, above them, of `--config`.

    Raises:
        UsageError: if a file is missing, cannot be read, or has a key that is not one of `names`.
    """
    values: dict[str, object] = {}
    for name in (recipe, config):
        layer = {} if name is None else read_recipe(name)
        for key in layer:
            if key not in names or key in ("recipe", "config"):
                near = difflib.get_close_matches(key, names, n=3)
                hint = (
                    f"did you mean {' or '.join(near)}?" if near else "`antehoc train --help-all` lists the options."
                )
                raise UsageError(f"Recipe {name!r} has a key {key!r}, which is not an option: {hint}")
        values |= layer
    return values


def read_recipe(name_or_path: str) -> dict[str, object]:
    """The options of a recipe, with those of the recipe it is based on.

    Args:
        name_or_path (`str`): one of [`recipe_names`], or the path of a YAML file.

    Raises:
        UsageError: if there is no such recipe, or it is not a mapping of names to values.
    """
    values: dict[str, object] = {}
    seen: list[Path] = []
    wanted: str | None = name_or_path
    folder = Path()
    while wanted is not None:
        path = _recipe_path(wanted, folder)
        if path in seen:
            raise UsageError(f"Recipe {name_or_path!r} is based on itself: remove {BASED_ON} from {path}.")
        seen.append(path)
        own = _read_yaml(path)
        wanted, folder = own.pop(BASED_ON, None), path.parent
        values = {**own, **values}
    return values


def _recipe_path(name: str, folder: Path) -> Path:
    """A named recipe, or a file; `based_on` may also name a file in the same folder."""
    if not isinstance(name, str):
        raise UsageError(f"A recipe is a name or a path, not {name!r}.")
    own = RECIPES / f"{name}.yaml"
    for path in (own, folder / name, Path(name).expanduser()):
        if path.is_file():
            return path
    near = difflib.get_close_matches(name, recipe_names(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(recipe_names())}, or give a file's path."
    raise UsageError(f"There is no recipe {name!r}: {hint}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise UsageError(f"Recipe {path} is not YAML{where}: {reason}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"Recipe {path} is not a text file.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"Recipe {path} must hold lines such as 'learning_rate: 0.001', not {type(values).__name__}.")
    return {str(key): value for key, value in values.items()}
