"""Captions from templates, and the region of the image that each of their words names."""

import colorsys

from antehoc_hf.shapes.parts import CLASSES, HORNS, TAILS, WINGS, Bug
from antehoc_hf.shapes.textures import Colour

Words = list[tuple[str, str]]
"""Pieces of a caption, each with the region that its words name ("" for none)."""

_HORN_WORDS = {"lance": "pointed horn", "fork": "forked horn", "mace": "round horn"}
_WING_WORDS = {"moth": "broad wings", "fly": "slender wings", "hawk": "swept wings"}
_TAIL_WORDS = {"fan": "fan tail", "pincers": "pincer tail", "sting": "sting tail"}
_HUES = (
    *((0.04, "red"), (0.11, "orange"), (0.19, "yellow"), (0.44, "green"), (0.53, "cyan")),
    *((0.7, "blue"), (0.8, "purple"), (0.94, "pink"), (1.01, "red")),
)


def describe(bug: Bug, label: int, family: str) -> tuple[list[str], list[list[str]]]:
    """Three captions of a scene and, word by word of `caption.split()`, the region that the word names.

    Regions are those of `part_mask`: a part, "deciding" for the class's name, "bug", "background" for the place,
    and "" for words that name nothing.
    """
    horn, wings, tail = bug.variants
    horn_words: Words = [(_HORN_WORDS[HORNS[horn]], "horn")]
    wing_words: Words = [(f"{colour_name(bug.colours['wings'])} {_WING_WORDS[WINGS[wings]]}", "wings")]
    tail_words: Words = [(_TAIL_WORDS[TAILS[tail]], "tail")]
    place: Words = [("on", ""), (family, "background")]
    texts: list[Words] = [
        [("a", ""), (list(CLASSES)[label], "deciding"), *place],
        [("a", ""), ("bug", "bug"), ("with a", ""), *horn_words, ("and a", ""), *tail_words, *place],
        [("a", ""), (f"{colour_name(bug.colours['body'])} body", "body"), ("with", ""), *wing_words],
    ]
    words = [[(word, region) for piece, region in text for word in piece.split()] for text in texts]
    return [" ".join(word for word, _ in text) for text in words], [[region for _, region in text] for text in words]


def colour_name(rgb: Colour) -> str:
    """The English name of a strong colour."""
    hue = colorsys.rgb_to_hsv(*rgb)[0]
    return next(name for end, name in _HUES if hue < end)
