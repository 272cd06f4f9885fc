"""For the site: what the pages link to outside of `docs/` is in the repository."""

import re
import tomllib
from pathlib import Path
from typing import Any


def on_config(config: Any, **_: Any) -> Any:
    """The repository's address is written down in one place."""
    project = tomllib.loads(Path(config.config_file_path).with_name("pyproject.toml").read_text(encoding="utf-8"))
    config.repo_url = project["project"]["urls"]["Repository"]
    return config


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """`](../benchmarks/README.md)` leads to the file on the repository's main branch."""
    return re.sub(r"\]\(\.\./([^)]+)\)", rf"]({config.repo_url}/blob/main/\1)", markdown)
