"""The comparison's verdicts, on scores made up so that the answer is known."""

import pytest
import torch


@pytest.fixture
def cells(comparison):
    return comparison("cells")


def cell_of(cells, aim, higher):
    return next(cell for cell in cells.CELLS if cell.aim == aim and cell.higher == higher)


def test_a_tenth_over_the_best_and_a_quarter_over_the_reference(cells):
    cell = cell_of(cells, "margins", True)
    noise = torch.linspace(-0.01, 0.01, 50, dtype=torch.float64)[:, None]
    values = {cells.OURS: 0.36 + noise, "other": 0.32 + noise, cells.REFERENCE: 0.28 + noise}
    found = cells.verdict(cell, values, ["other", cells.REFERENCE], [])
    assert (found["best"], found["met"], found["certain"]) == ("other", True, True)
    assert found["gain_over_best"] == pytest.approx(0.125)
    values[cells.REFERENCE] = 0.30 + noise
    assert cells.verdict(cell, values, ["other", cells.REFERENCE], [])["met"] is False  # 20 % over the reference


def test_no_image_gains_with_our_map(cells):
    """Inc is a mean over the images that gained: of none there is no number, no interval, and no verdict."""
    cell = cell_of(cells, "best", True)
    none, some = torch.full((20, 1), torch.nan), torch.linspace(1, 2, 20)[:, None]
    found = cells.verdict(cell, {cells.OURS: none, "other": some, cells.REFERENCE: some}, ["other"], [])
    assert found["met"] is None
    assert found["certain"] is False
