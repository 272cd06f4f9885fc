"""The error of a command line. It imports nothing, so that everything may raise it."""


class UsageError(ValueError):
    """The command line or a recipe asks for something that makes no sense; one sentence."""
