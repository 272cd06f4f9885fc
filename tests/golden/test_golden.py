"""Training, predictions, maps and reports are what they were when `values.json` was written."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "values.json").read_text(encoding="utf-8"))


def _cases() -> Any:
    spec = importlib.util.spec_from_file_location("golden_cases", HERE / "cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CASES = _cases()


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_nothing_changed(case: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        found = json.loads(json.dumps(CASES.values_of(case)))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    same_machine = CASES.machine() == GOLDEN["machine"]
    assert list(_different(found, GOLDEN["cases"][case], to_the_bit=same_machine)) == []


def _different(found: Any, golden: Any, to_the_bit: bool, where: str = "") -> Any:
    """Names of the values that differ."""
    if isinstance(golden, dict):
        # Further measures may join a report.
        differing = golden.keys() - found.keys() if where == "/report" else golden.keys() ^ found.keys()
        if differing:
            yield f"{where}: {sorted(differing)}"
        for name in golden.keys() & found.keys():
            if name != "digest" or to_the_bit:
                yield from _different(found[name], golden[name], to_the_bit, f"{where}/{name}")
    elif isinstance(golden, list):
        if len(found) != len(golden):
            yield f"{where}: {len(found)} instead of {len(golden)}"
        for index, (left, right) in enumerate(zip(found, golden, strict=False)):
            yield from _different(left, right, to_the_bit, f"{where}/{index}")
    elif isinstance(golden, float):
        # Rankings of pixels (insertion, pointing) jump where two values are equal but for rounding.
        tolerance = 0.0 if to_the_bit else 2e-2
        if not (math.isnan(found) and math.isnan(golden)) and not math.isclose(
            found, golden, rel_tol=tolerance, abs_tol=tolerance
        ):
            yield f"{where}: {found} instead of {golden}"
    elif found != golden:
        yield f"{where}: {found} instead of {golden}"
