"""Options whose types say their range, `Annotated[float, AT_LEAST_0]`, and one place that checks them."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """The numbers that an option takes.

    Args:
        low, high (`float`): its limits.
        includes_low, includes_high (`bool`): whether the limits belong to it.
        multiple_of (`int`, *optional*): 1 for whole numbers, 2 for even ones; None: any number.
    """

    low: float = 0.0
    high: float = math.inf
    includes_low: bool = True
    includes_high: bool = False
    multiple_of: int | None = None

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        above = value >= self.low if self.includes_low else value > self.low
        below = value <= self.high if self.includes_high else value < self.high
        return above and below and (self.multiple_of is None or value % self.multiple_of == 0)

    def __str__(self) -> str:
        kind = {None: "a number", 1: "a whole number", 2: "an even number"}[self.multiple_of]
        if self.high == math.inf:
            return f"{kind} {'of at least' if self.includes_low else 'above'} {self.low:.12g}"
        left, right = "[" if self.includes_low else "(", "]" if self.includes_high else ")"
        return f"{kind} in {left}{self.low:.12g}, {self.high:.12g}{right}"


AT_LEAST_0 = Range()
ABOVE_0 = Range(includes_low=False)
SHARE = Range(0, 1, includes_low=False, includes_high=True)
PART = Range(0, 1)


@dataclass(frozen=True)
class Flag:
    """The name of an option on the command line, where the field's own would say too little."""

    name: str


class Options(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[object]]]


O = TypeVar("O", bound=Options)  # noqa: E741


def check_options(options: Options, inherited: Mapping[str, Range] | None = None) -> None:
    """Holds every option against the range or the choices that its type states.

    Args:
        options: a dataclass.
        inherited: ranges of fields whose types do not say them; None is in all of these.

    Raises:
        ValueError: naming the first option that is out of its range or none of its choices.
    """
    for name, within in (inherited or {}).items():
        if getattr(options, name) is not None:
            _check_range(options, name, within)
    for name, kind in get_type_hints(type(options), include_extras=True).items():
        if name not in options.__dataclass_fields__:
            continue
        value, kind, extras = getattr(options, name), *_parts(kind)
        for within in extras:
            if isinstance(within, Range):
                _check_range(options, name, within)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, get_args(kind)))}.")


def _check_range(options: Options, name: str, within: Range) -> None:
    if getattr(options, name) not in within:
        raise ValueError(f"{name} must be {within}, not {getattr(options, name)!r}.")


def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without what `Annotated` adds, and that."""
    return (kind.__origin__, kind.__metadata__) if get_origin(kind) is Annotated else (kind, ())


def flags_of(kind: type[Options]) -> dict[str, str]:
    """Option → its name on the command line."""
    hints = get_type_hints(kind, include_extras=True)
    names = {}
    for declared in dataclasses.fields(kind):
        flags = [extra.name for extra in _parts(hints[declared.name])[1] if isinstance(extra, Flag)]
        names[declared.name] = flags[0] if flags else declared.name
    return names


def build_options(kind: type[O], given: O | None, values: Mapping[str, object]) -> O:
    """Options from an object, from keywords, or from an object with some of its values replaced.

    Raises:
        ValueError: if there is no such option, or a value is out of range.
    """
    names = [declared.name for declared in dataclasses.fields(kind)]
    for name in values:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}."
            raise ValueError(f"{kind.__name__} has no option {name!r}: {hint}")
    if given is None:
        return kind(**values)
    if not isinstance(given, kind):
        raise ValueError(f"options must be {kind.__name__}, not {type(given).__name__}.")
    return dataclasses.replace(given, **values)
