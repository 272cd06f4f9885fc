"""Which map a run's model has and what teaches it: `--map_head`, `--objective`, and the options of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.options import option, options_of


@dataclass
class ContributionMapOptions:
    """Options of maps of contributions."""

    group: ClassVar[str] = "map head contributions"
    objective: ClassVar[str] = "coalitions"

    grid: int = field(
        default=8, metadata={"help": "Patches along the image's shorter side.", "flag": "contribution_grid"}
    )
    width: int = 64


@dataclass
class EnergyMapOptions:
    """Options of energy maps, most of them readings of the paper: given with `--map_head` alone."""

    group: ClassVar[str] = "map head energy"
    objective: ClassVar[str] = "energy"

    weight_network: str = "autoencoder"
    weight_network_input: str = "conditioned"
    weight_network_depth: int | None = None
    weight_network_width: int = 16
    weight_network_stride: int = 2
    weight_network_skip: bool = False
    channel_reduction: str = "mean"
    attention_softmax: str = "spatial"
    attention_resize: str = "renormalized"
    attention_scaling: str = "none"
    map_scaling: str = "minmax"
    mask_space: str = "pixel"


@dataclass
class CoalitionOptions:
    """Options of the objective `"coalitions"`."""

    group: ClassVar[str] = "objective coalitions"

    coalitions_per_image: int = option(2, "Masked images of each image in a second pass; even.")
    sampling: Literal["contiguous", "ranked", "shapley"] = field(
        default="contiguous",
        metadata={
            "help": "'contiguous' coalitions, those 'ranked' first by the map, or 'shapley' (the Shapley kernel).",
            "flag": "coalition_sampling",
        },
    )
    background: Literal["mixed", "mean", "blur", "black"] = field(
        default="mixed",
        metadata={
            "help": "In place of a missing patch: 'mean', 'blur', 'black', or 'mixed'.",
            "flag": "coalition_background",
        },
    )


@dataclass
class EnergyOptions:
    """Options of the objective `"energy"`."""

    group: ClassVar[str] = "objective energy"

    target: Literal["probabilities", "logits", "kl"] = field(
        default="probabilities",
        metadata={
            "help": "What the second pass compares: 'probabilities', centred 'logits', or 'kl'.",
            "flag": "interpretation_target",
        },
    )
    joint_weight: float = option(0.0, "Weight of the second pass's loss for the backbone and head; 0: none.")
    batch_norm: Literal["eval", "batch", "update"] = field(
        default="eval",
        metadata={
            "help": "Batch norm in the second pass: 'eval' (running statistics), 'batch', or 'update'.",
            "flag": "interpretation_batch_norm",
        },
    )
    reconstruction_weight: float = option(0.0, "Weight of the weight network's reconstruction error.")
    area_weight: float = option(0.0, "Weight of the map's mean.")
    tv_weight: float = option(0.0, "Weight of the map's total variation.")
    entropy_weight: float = option(0.0, "Weight of the entropy over the weight maps.")
    target_eval: bool = False


MAP_HEADS: dict[str, Any] = {"contributions": ContributionMapOptions, "energy": EnergyMapOptions}
OBJECTIVES: dict[str, Any] = {"coalitions": CoalitionOptions, "energy": EnergyOptions}
MAP_ARGUMENTS: tuple[type, ...] = (*MAP_HEADS.values(), *OBJECTIVES.values())


@dataclass(frozen=True)
class MapChoice:
    """
    What a run's options say about its map.

    Args:
        kind (`str`): a key of `MAP_HEADS`.
        options (`dict`): of that kind of map.
        objective (`str`): a key of `OBJECTIVES`.
        objective_options (`dict`): of that objective.
        chosen (`bool`): whether the kind was asked for; otherwise the data may demand the other one.
        flags (`tuple[str]`): the options of the map and the objective that the command line gives.
    """

    kind: str = "contributions"
    options: Mapping[str, Any] = field(default_factory=dict)
    objective: str = "coalitions"
    objective_options: Mapping[str, Any] = field(default_factory=dict)
    chosen: bool = False
    flags: tuple[str, ...] = ()

    def settled(self, kind: str) -> MapChoice:
        """
        The choice, once the data are known.

        Args:
            kind (`str`): what is used where none was asked for.

        Raises:
            UsageError: if options were given for the other kind.
        """
        if self.chosen or kind == self.kind:
            return self
        for name in self.flags:
            raise UsageError(f"--{name} belongs to {_owner_of(name)}, and these data need {_map(kind)}: leave it out.")
        return MapChoice(kind, {}, MAP_HEADS[kind].objective, {})


def choose_map(
    given: Mapping[str, Any], flags: Collection[str], kinds: Collection[str], default: str, task: str
) -> MapChoice:
    """
    What the options of a run ask for.

    Args:
        given: all options of the recipe and the command line.
        flags: the names of those of the command line. What a recipe says for another kind of map than the command
            line chooses is passed over.
        kinds: what the task's maps can be.
        default (`str`): what they are where nothing is chosen.
        task (`str`): its name.

    Raises:
        UsageError: if there is no such kind or option, or options belong to a kind that is not chosen.
    """
    kind, options = _named("map_head", given.get("map_head"), MAP_HEADS)
    objective, objective_options = _named("objective", given.get("objective"), OBJECTIVES)
    if "map_head" in flags and "objective" not in flags:
        if objective is not None and kind is not None and MAP_HEADS[kind].objective != objective:
            objective, objective_options = None, {}
    elif objective is not None and (kind is None or ("objective" in flags and "map_head" not in flags)):
        taught = next(name for name, of_kind in MAP_HEADS.items() if of_kind.objective == objective)
        kind, options = (kind, options) if kind == taught else (taught, {})
    used = kind or default
    if used not in kinds:
        raise UsageError(
            f"map_head={used!r} explains the probabilities of classes, which --task {task} does not have: leave it "
            "out."
        )
    taught_by = objective or MAP_HEADS[used].objective
    if taught_by != MAP_HEADS[used].objective:
        raise UsageError(
            f"map_head={used!r} is taught by the objective {MAP_HEADS[used].objective}, not by {taught_by}: leave one "
            "of the two out."
        )
    owned = {one.name: one.field.name for cls in MAP_ARGUMENTS for one in options_of(cls)}
    of_map, of_objective = dict(options), dict(objective_options)
    overridden = {"map_head", "objective", "task", "model_type"} & set(flags)
    for name in owned.keys() & given.keys():
        if name in _flags_of(MAP_HEADS[used]):
            of_map[owned[name]] = given[name]
        elif name in _flags_of(OBJECTIVES[taught_by]):
            of_objective[owned[name]] = given[name]
        elif name in flags or not overridden:
            raise UsageError(f"--{name} belongs to {_owner_of(name)}: {_advice(name, kind is not None, kinds)}")
    return MapChoice(used, of_map, taught_by, of_objective, kind is not None, tuple(sorted(owned.keys() & set(flags))))


def map_option_names() -> set[str]:
    """Every option about a map or an objective, on the command line or within one of them."""
    of_fields = {name for cls in MAP_HEADS.values() for name in cls.__dataclass_fields__}
    return {"map_head", "objective", *of_fields, *(name for cls in MAP_ARGUMENTS for name in _flags_of(cls))}


def config_of(choice: MapChoice) -> dict[str, Any]:
    """Kind and options of a map as AnteHocConfig takes them."""
    return {"map_head": {"kind": choice.kind, **choice.options}}


def _named(option_name: str, value: Any, known: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """`"energy"` or `{"kind": "energy", …}`: the name and the options."""
    if value is None:
        return None, {}
    options = dict(value) if isinstance(value, Mapping) else {"kind": value}
    kind = options.pop("kind", None)
    if kind not in known:
        wrong = f"{option_name} needs a kind" if kind is None else f"There is no {option_name} {kind!r}"
        raise UsageError(f"{wrong}: choose {' or '.join(known)}.")
    names = list(known[kind].__dataclass_fields__)
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
    for part, named in (("map", MAP_HEADS), ("objective", OBJECTIVES)):
        for name, cls in named.items():
            if flag in _flags_of(cls):
                return f"the {name} {part}"
    raise KeyError(flag)


def _map(kind: str) -> str:
    return "an energy map" if kind == "energy" else f"a map of {kind}"


def _advice(flag: str, chosen: bool, kinds: Collection[str]) -> str:
    wanted = next(
        kind for kind, cls in MAP_HEADS.items() if flag in _flags_of(cls) | _flags_of(OBJECTIVES[cls.objective])
    )
    if wanted not in kinds:
        return "leave it out."
    return f"leave it out, or choose --map_head {wanted}." if chosen else f"add --map_head {wanted}."
