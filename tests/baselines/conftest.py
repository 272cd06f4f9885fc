"""What the baselines' tests share."""

from pathlib import Path

import pytest
from helpers import write_colours


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with class folders of plain colours."""
    return write_colours(tmp_path_factory.mktemp("colours"))
