"""Which map a run's model has and what teaches it: `--map_head`, `--objective`, and the options of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.options import options_of
from antehoc_hf.modeling.configuration_antehoc import map_head_kinds
from antehoc_hf.training.objectives import OBJECTIVES
from antehoc_hf.training.options import Options


def objective_kinds() -> dict[str, type[Options]]:
    """Name of an objective → the dataclass of its options."""
    return {name: objective.options_class for name, objective in OBJECTIVES.items()}


def map_arguments() -> tuple[type, ...]:
    """The dataclasses of the options of maps and objectives."""
    return (*map_head_kinds().values(), *objective_kinds().values())


@dataclass(frozen=True)
class MapChoice:
    """What a run's options say about its map.

    Args:
        kind (`str`): a kind of map.
        options (`dict`): of that kind of map.
        objective (`str`): what teaches it.
        objective_options (`dict`): of that objective.
        chosen (`bool`): whether the kind was asked for; otherwise the data may demand the other one.
        flags (`tuple[str]`): the options of the map and the objective that the command line gives.
    """

    kind: str = "contributions"
    options: Mapping[str, object] = field(default_factory=dict)
    objective: str = "coalitions"
    objective_options: Mapping[str, object] = field(default_factory=dict)
    chosen: bool = False
    flags: tuple[str, ...] = ()

    def settled(self, kind: str) -> MapChoice:
        """The choice, once the data are known.

        Args:
            kind (`str`): what is used where none was asked for.

        Raises:
            UsageError: if options were given for the other kind.
        """
        if self.chosen or kind == self.kind:
            return self
        for name in self.flags:
            raise UsageError(f"--{name} belongs to {_owner_of(name)}, and these data need {_map(kind)}: leave it out.")
        return MapChoice(kind, {}, map_head_kinds()[kind].objective, {})


def choose_map(given: Mapping[str, object], flags: Collection[str], default: str) -> MapChoice:
    """What the options of a run ask for.

    Args:
        given: all options of the recipe and the command line.
        flags: the names of those of the command line. What a recipe says for another kind of map than the command
            line chooses is passed over.
        default (`str`): what the task's maps are where nothing is chosen.

    Raises:
        UsageError: if there is no such kind or option, or options belong to a kind that is not chosen.
    """
    kind, options = _named("map_head", given.get("map_head"), map_head_kinds())
    objective, objective_options = _named("objective", given.get("objective"), objective_kinds())
    if "map_head" in flags and "objective" not in flags:
        if objective is not None and kind is not None and map_head_kinds()[kind].objective != objective:
            objective, objective_options = None, {}
    elif objective is not None and (kind is None or ("objective" in flags and "map_head" not in flags)):
        taught = next(name for name, of_kind in map_head_kinds().items() if of_kind.objective == objective)
        kind, options = (kind, options) if kind == taught else (taught, {})
    used = kind or default
    own = map_head_kinds()[used].objective
    taught_by = objective or own
    if taught_by != own:
        raise UsageError(
            f"map_head={used!r} is taught by the objective {own}, not by {taught_by}: leave one of the two out."
        )
    owned = {one.name: one.field.name for cls in map_arguments() for one in options_of(cls)}
    of_map, of_objective = dict(options), dict(objective_options)
    overridden = {"map_head", "objective", "task", "model_type"} & set(flags)
    for name in owned.keys() & given.keys():
        if name in _flags_of(map_head_kinds()[used]):
            of_map[owned[name]] = given[name]
        elif name in _flags_of(objective_kinds()[taught_by]):
            of_objective[owned[name]] = given[name]
        elif name in flags or not overridden:
            raise UsageError(f"--{name} belongs to {_owner_of(name)}: {_advice(name, kind is not None)}")
    return MapChoice(used, of_map, taught_by, of_objective, kind is not None, tuple(sorted(owned.keys() & set(flags))))


def map_option_names() -> set[str]:
    """Every option about a map or an objective, on the command line or within one of them."""
    of_fields = {name for cls in map_head_kinds().values() for name in cls.option_names()}
    return {"map_head", "objective", *of_fields, *(name for cls in map_arguments() for name in _flags_of(cls))}


def config_of(choice: MapChoice) -> dict[str, object]:
    """Kind and options of a map as AnteHocConfig takes them."""
    return {"map_head": {"kind": choice.kind, **choice.options}}


def _named(
    option_name: str, value: object, known: Mapping[str, type[Options]]
) -> tuple[str | None, dict[str, object]]:
    """`"energy"` or `{"kind": "energy", …}`: the name and the options."""
    if value is None:
        return None, {}
    options: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {"kind": value}
    kind = options.pop("kind", None)
    if kind not in known:
        wrong = f"{option_name} needs a kind" if kind is None else f"There is no {option_name} {kind!r}"
        raise UsageError(f"{wrong}: choose {' or '.join(known)}.")
    of_map = getattr(known[kind], "option_names", None)
    names = of_map() if of_map is not None else [declared.name for declared in fields(known[kind])]
    for name in options:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
            raise UsageError(f"{option_name} {kind!r} has no option {name!r}: {hint}")
    return kind, options


def _flags_of(cls: type) -> set[str]:
    return {declared.name for declared in options_of(cls)}


def _owner_of(flag: str) -> str:
    """What an option of the command line belongs to, in words."""
    for part, named in (("map", map_head_kinds()), ("objective", objective_kinds())):
        for name, cls in named.items():
            if flag in _flags_of(cls):
                return f"the {name} {part}"
    raise KeyError(flag)


def _map(kind: str) -> str:
    return "an energy map" if kind == "energy" else f"a map of {kind}"


def _advice(flag: str, chosen: bool) -> str:
    wanted = next(
        kind
        for kind, cls in map_head_kinds().items()
        if flag in _flags_of(cls) | _flags_of(objective_kinds().get(cls.objective, cls))
    )
    return f"leave it out, or choose --map_head {wanted}." if chosen else f"add --map_head {wanted}."
