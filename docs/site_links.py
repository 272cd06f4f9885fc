"""For the site: what the pages link to outside of `docs/` is in the repository."""

import re
from typing import Any


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """`](../benchmarks/README.md)` leads to the file on the repository's main branch."""
    return re.sub(r"\]\(\.\./([^)]+)\)", rf"]({config.repo_url}/blob/main/\1)", markdown)
