"""The options of maps and objectives on the command line, which imports no torch, are those of their classes."""

from dataclasses import fields
from typing import Any

import pytest

from antehoc_hf.modeling.configuration_antehoc import map_head_kinds
from antehoc_hf.training.objectives import OBJECTIVES
from antehoc_hf.training.options import flags_of
from antehoc_hf.training.runs import maps


def _defaults(kind: Any) -> dict[str, Any]:
    return {field.name: field.default for field in fields(kind)}


@pytest.mark.parametrize("kind", sorted(maps.MAP_HEADS))
def test_options_of_a_map(kind: str) -> None:
    config = map_head_kinds()[kind]
    own = {field.name: field.default for field in fields(config) if field.name in config.option_names()}
    assert _defaults(maps.MAP_HEADS[kind]) == own
    assert maps.MAP_HEADS[kind].objective == config.objective


@pytest.mark.parametrize("name", sorted(maps.OBJECTIVES))
def test_options_of_an_objective(name: str) -> None:
    options: Any = OBJECTIVES[name]().options  # type: ignore[operator]
    assert _defaults(maps.OBJECTIVES[name]) == _defaults(type(options))
    flags = flags_of(type(options))
    for field in fields(maps.OBJECTIVES[name]):
        assert field.metadata.get("flag", field.name) == flags[field.name]


def test_both_know_the_same() -> None:
    assert set(maps.MAP_HEADS) == set(map_head_kinds())
    assert set(maps.OBJECTIVES) == set(OBJECTIVES)
