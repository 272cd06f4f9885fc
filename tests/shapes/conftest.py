"""Small data sets shared by the tests of this folder."""

import pytest
from datasets import DatasetDict

from antehoc_hf.shapes import load_shapes
from antehoc_hf.shapes.scene import REGIONS


@pytest.fixture(scope="package")
def small() -> DatasetDict:
    """A dozen rows of 64 pixels with every single removal."""
    return load_shapes(train=12, validation=0, test=12, seed=3, without=REGIONS)


@pytest.fixture(scope="package")
def many() -> DatasetDict:
    """Enough small rows to count in; the background is independent of the class."""
    return load_shapes(image_size=32, train=420, validation=0, test=210, seed=1)


@pytest.fixture(scope="package")
def correlated() -> DatasetDict:
    """The same rows as `many`, each class on its own background."""
    return load_shapes(image_size=32, train=240, validation=0, test=60, seed=1, background="correlated")
