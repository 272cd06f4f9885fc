"""Options that are checked before anything is computed."""


def at_least_one(**options: int) -> int:
    """A number of steps or images, if it is one.

    Raises:
        ValueError: if it is below 1.
    """
    ((name, value),) = options.items()
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} must be a whole number of at least 1.")
    return value


def one_of(allowed: tuple[str, ...], **options: object) -> None:
    """Checks a named choice.

    Raises:
        ValueError: if it is not one of those allowed.
    """
    ((name, value),) = options.items()
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}.")
