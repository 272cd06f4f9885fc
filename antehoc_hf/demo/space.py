"""A Hugging Face Space with the demo page of models on the Hub: three small files."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from antehoc_hf.commands.errors import UsageError

GRADIO_VERSION = "6.31.0"  # the page was tried with
PYTHON_VERSION = "3.11"
PACKAGE = "antehoc-hf[demo]"
_LONGEST_DESCRIPTION = 60  # the Hub takes no more

_APP = '''"""Drop an image and see what the model says and what it looked at."""

from antehoc_hf.demo.gradio_app import launch_options
from antehoc_hf.demo.page import build_page

page = build_page({models})
page.launch(**launch_options())
'''

_TEXT = """
# What did it look at?

Drop an image: the model predicts and shows where it looked, in one forward pass. The page also cuts the map into its
dominant regions, compares it with other explanation methods, and measures how much of the prediction the map keeps on
this image, next to maps that know no model.

{models}

The map does not prove a cause. Made by `antehoc demo --export_space`.
"""


def export_space(
    folder: str | Path, models: Sequence[str], *, package: str = PACKAGE, overwrite: bool = False
) -> list[Path]:
    """Writes `app.py`, `requirements.txt` and `README.md` (with the Space's settings), ready to be pushed.

    Args:
        folder: where to; made if it is not there.
        models: names on the Hub.
        package (`str`): what pip installs this project from: a version, or `antehoc-hf[demo] @ git+https://…`.
        overwrite (`bool`): replace files of these names that are there already and differ.

    Returns:
        `list[Path]`: the files.

    Raises:
        UsageError: if there is no model, a name cannot be one of the Hub's, or files would be overwritten.
    """
    if not models:
        raise UsageError("There is no model for the Space: name one on the Hub with --model NAMESPACE/NAME.")
    for name in models:
        _check_name(name)
    folder = Path(folder)
    files = {folder / name: text for name, text in _texts(list(dict.fromkeys(models)), package).items()}
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name a folder for the Space.")
    differing = [path.name for path, text in files.items() if path.exists() and not _holds(path, text)]
    if differing and not overwrite:
        raise UsageError(
            f"{folder} holds another {', '.join(differing)} already: name another folder, or pass --overwrite true."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def _texts(models: list[str], package: str) -> dict[str, str]:
    short = models[0].split("/")[-1]
    described = f"What {short} looks at, and whether to trust it"
    settings = {
        "title": f"What did {short} look at?",
        "emoji": "🔎",
        "colorFrom": "green",
        "colorTo": "indigo",
        "sdk": "gradio",
        "sdk_version": GRADIO_VERSION,
        "python_version": PYTHON_VERSION,
        "app_file": "app.py",
        "pinned": False,
        "short_description": described if len(described) <= _LONGEST_DESCRIPTION else "What a model looks at",
        "models": list(models),
        "preload_from_hub": list(models),  # two lists: of one, YAML would make an alias
        "tags": ["antehoc", "explainability", "timm"],
    }
    head = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=1000)
    listed = "\n".join(f"- [{name}](https://huggingface.co/{name})" for name in models)
    return {
        "app.py": _APP.format(models="[" + ", ".join(f'"{name}"' for name in models) + "]"),
        "requirements.txt": f"{package}\n",
        "README.md": f"---\n{head}---\n{_TEXT.format(models=listed)}",
    }


def _check_name(name: str) -> None:
    if Path(name).exists():
        raise UsageError(
            f"{name} is a folder here, but a Space loads its model from the Hub: push it with `antehoc push {name}` "
            "and name it as it is called there."
        )
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise UsageError(f"{name!r} cannot be the name of a model on the Hub, such as 'org/name'.") from None
    if "/" not in name:
        raise UsageError(f"{name!r} lacks its namespace: name the model as on the Hub, such as 'org/{name}'.")


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False
