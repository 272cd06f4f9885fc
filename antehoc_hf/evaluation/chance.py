"""Whether a model knows more than one that does not look at the image."""

import math


def close_to_chance(right: float, classes: int, images: int) -> str:
    """A sentence if a classifier is hardly better than guessing: what it looks at then says nothing.

    Close is within three standard errors of 1 / `classes`, and in any case within half of it (at most 0.1).

    Args:
        right (`float`): the share of images that are classified correctly.
        classes, images (`int`): how many there are.

    Returns:
        `str`: empty where the classifier knows something, and for a single image, which shows neither.
    """
    chance = 1 / classes
    margin = max(3 * math.sqrt(chance * (1 - chance) / images), min(chance / 2, 0.1))
    if images < 2 or right >= min(chance + margin, 1.0):
        return ""
    known = f"{right:.0%} of {images} images right, guessing {chance:.0%}"
    return f"Close to chance ({known}): these maps explain nothing."


def as_one_answer(error: float, of_mean: float) -> str:
    """A sentence if the points that a model finds are no better than the same points for every image.

    Args:
        error (`float`): the normalised mean error of what it finds, in percent.
        of_mean (`float`): that of the mean of all true points, in percent.

    Returns:
        `str`: empty where the model knows something of the images.
    """
    if error < of_mean:
        return ""
    known = f"error {error:.1f} %, that of the mean of all true points {of_mean:.1f} %"
    return f"No better than one answer for all images ({known}): these maps explain nothing."
