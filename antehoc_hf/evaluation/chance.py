"""Whether a classifier is right more often than one that guesses."""

import math


def close_to_chance(right: float, classes: int, images: int) -> str:
    """A sentence if a classifier is hardly better than guessing: what it looks at then says nothing.

    Close is within three standard errors of 1 / `classes`, and in any case within half of it (at most 0.1).

    Args:
        right (`float`): the share of images that are classified correctly.
        classes, images (`int`): how many there are.

    Returns:
        `str`: empty where the classifier knows something.
    """
    chance = 1 / classes
    margin = max(3 * math.sqrt(chance * (1 - chance) / images), min(chance / 2, 0.1))
    if right >= min(chance + margin, 1.0):
        return ""
    known = f"{right:.0%} of {images} images right, guessing {chance:.0%}"
    return f"Close to chance ({known}): these maps explain nothing."
