"""What a card says about the map: its kind's texts, and how its objective has taught it."""

from dataclasses import dataclass

from antehoc_hf.model_cards.data import CardData
from antehoc_hf.model_cards.escape import text


@dataclass(frozen=True)
class MapTexts:
    """What is said about maps of one kind.

    Args:
        about: what the map is; with places for `when` and how it `learned`, for `grid`, and for the words on targets.
        learned: how such a map usually learns.
        second_pass: what usually goes through the network then.
        causality: why the map is not a causal proof, unless its objective says so itself.
        limits: what else the map does not show.
        layers: what the layers read are called in the table of the model.
        method: the sentence before the method's citation.
        per_target: whether each target has a map of its own.
    """

    about: str
    learned: str
    second_pass: str
    causality: str
    limits: tuple[str, ...]
    layers: str
    method: str
    per_target: bool = False


_ENERGY = MapTexts(
    about="""\
Soft attention maps, read off layers of the backbone, are weighted position by position by a small *weight network* and
summed (Guna R T et al., Eq. 1). It was trained {when}, {learned}. The map comes out of the same forward pass as the
prediction: `outputs.interpretation_map`, (batch, 1, height, width) in [0, 1]; `outputs.degenerate` marks maps that
show nothing.""",
    learned="so that the image multiplied by its map keeps the prediction",
    second_pass="image ⊙ map",
    causality="**No causal proof.** It shows where the network's features were strong and weighted, not what would "
    "change the prediction.",
    limits=(
        "**Not about a class.** Two classes in one image get one and the same map.",
        "**Not to be trusted for being bright.** A map that keeps everything keeps the prediction: before the model's "
        "own row read the control rows, which know nothing about the model.",
    ),
    layers="attention maps",
    method="The method:",
)
_MISSING = "the image's mean colour, a blur or black"
_CONTRIBUTIONS = MapTexts(
    about="""\
There is a map for each {target}. In the same forward pass as the prediction a small map head reads layers of the
backbone and estimates what each patch of the image{grid} contributes to {worth}. Together the contributions make up
the difference between the whole image and one without any patch. It was trained {when}, {learned}.

`outputs.interpretation_map`, (batch, 1, height, width) in [0, 1], {shown}. `outputs.degenerate` marks maps that show
nothing.""",
    learned=f"by least squares on coalitions: versions of the image in which some patches are replaced by {_MISSING}",
    second_pass="coalitions of patches",
    causality=f"**No causal proof.** It estimates how the prediction changes when patches are replaced by {_MISSING}; "
    "about other changes, or about causes in the world, it says nothing.",
    limits=(
        "**Not where the object is.** A patch counts for what the network makes of it, be it background; parts of the "
        "object that the network does not need count little.",
        "**Not finer than its patches.** What lies between them is interpolated.",
        "**Learned, and not to be trusted unseen.** It may be wrong on images unlike those of the training: before "
        "the model's own row read the control rows, which know nothing about the model.",
    ),
    layers="layers read",
    method="The work that this one starts from:",
    per_target=True,
)
_CLASSES = {
    "target": "class",
    "worth": "the probability of each class",
    "shown": "is the map of the predicted class: 0 is what speaks most against it. "
    "`model.interpretation(pixel_values, target=3)` gives the map of class 3",
}
_VALUES = {
    "target": "value",
    "worth": "each value that is predicted",
    "shown": "is the map of the sum of all values: 0 is what lowers it most. `model.interpretation(pixel_values, "
    "target=0)` gives the map of the first",
}
_TARGETS = {
    "landmark-detection": {
        "target": "point",
        "worth": "how near each point stays to where the whole image has it, exp(−‖Δ‖² / 2σ²) with σ = 0.05 of the "
        "image's sides",
        "shown": "is the map of all points together: 0 is what contributes nothing. `model.interpretation("
        "pixel_values, target=…)` gives the map of a part or a point, by name or number",
    },
    "image-captioning": {
        "target": "word",
        "worth": "the log-probability of each word, given those before it",
        "shown": "is the map of all words of the caption together: 0 is what contributes nothing. `model.caption("
        "pixel_values, output_word_maps=True)` gives the map of each word",
    },
}
"""Task → what its contributions contribute to."""

MAP_TEXTS = {"contributions": _CONTRIBUTIONS, "energy": _ENERGY}
"""Kind of map, as in the configuration → what is said about it."""


def texts_of(card: CardData) -> MapTexts:
    """The texts of a model's kind of map."""
    return MAP_TEXTS.get(card.map_kind, _ENERGY)


def map_is(card: CardData) -> str:
    """How the map comes about, and what it shows."""
    texts = texts_of(card)
    when = "together with the backbone" if trains_task(card) else "for the finished backbone, which stayed as it was"
    grid = f" ({card.map_grid} of them along its shorter side)" if card.map_grid else ""
    words = _TARGETS.get(card.task, _VALUES if card.problem_type == "regression" else _CLASSES)
    return texts.about.format(when=when, grid=grid, learned=_said(card, "learned") or texts.learned, **words)


def map_is_not(card: CardData) -> str:
    """What it does not show, as a list."""
    texts = texts_of(card)
    said = dict(card.objective).get("limits") or ()
    own = [_bold_beginning(text(sentence, 400)) for sentence in said if isinstance(sentence, str)]
    return "\n".join(f"- {sentence}" for sentence in (*(own or (texts.causality,)), *texts.limits))


def pass_titles(card: CardData) -> dict[str, str]:
    """Headings of the two passes, by their names in `CardData.passes`."""
    first = "backbone and head learn the task" if trains_task(card) else "backbone and head stay as they are"
    second = _said(card, "second_pass") or texts_of(card).second_pass
    return {
        "task": f"First pass: the image; {first}",
        "interpretation": f"Second pass: {second} through the frozen backbone; the map head learns",
    }


def _said(card: CardData, name: str) -> str:
    """What the objective says of itself, as text and not as Markdown; empty if it says nothing."""
    return text(dict(card.objective).get(name) or "", 400)


def _bold_beginning(sentences: str) -> str:
    first, _, others = sentences.partition(". ")
    return f"**{first}.** {others}" if others else sentences


def trains_task(card: CardData) -> bool:
    """Whether the network was trained with its map; otherwise it was finished before."""
    return dict(dict(card.passes).get("interpretation", ())).get("train_task") is not False
