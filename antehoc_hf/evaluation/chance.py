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


def as_one_answer(error: float, of_mean: float, what: str = "points", unit: str = " %") -> str:
    """A sentence if what a model finds is hardly better than the same answer for every image: by less than 5 %.

    Args:
        error (`float`): the mean error of what it finds, for points the normalised one in percent.
        of_mean (`float`): that of the mean of all true answers.
        what, unit (`str`): what it finds, and the unit of the errors.

    Returns:
        `str`: empty where the model knows something of the images.
    """
    if error < 0.95 * of_mean:
        return ""
    known = f"error {error:.3g}{unit}, that of the mean of all true {what} {of_mean:.3g}{unit}"
    better = "Hardly better" if error < of_mean else "No better"
    return f"{better} than one answer for all images ({known}): these maps explain nothing."


def as_shuffled(precision: float, of_others: float) -> str:
    """A sentence if several classes an image are found hardly better than by another image's scores.

    Args:
        precision (`float`): the mean average precision.
        of_others (`float`): that of the scores of other images.

    Returns:
        `str`: empty where the model knows something of the images.
    """
    if precision >= min(of_others + min(of_others / 2, 0.1), 1.0):
        return ""
    known = f"mean average precision {precision:.2f}, with the scores of other images {of_others:.2f}"
    return f"Close to chance ({known}): these maps explain nothing."
