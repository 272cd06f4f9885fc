"""What a user's data can be guilty of. Each message is one sentence saying what is wrong and what to do."""


class DataError(ValueError):
    """The data set can't be used as asked.

    A data-loader worker re-raises an error with its whole traceback in the message; only the sentence is kept,
    so that the error reads the same with and without workers.
    """

    def __init__(self, message: str) -> None:
        if message.startswith("Caught ") and "Original Traceback" in message:
            message = message.rstrip().rsplit(f"{type(self).__name__}: ", 1)[-1]
        super().__init__(message)


class BadImageError(DataError):
    """An image can't be read."""


class LabelError(DataError):
    """A label is missing or lies outside the classes."""
