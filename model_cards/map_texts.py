"""What a card says of the map: the paper's, or the one for each class; and how its weight network was trained."""

from antehoc_hf.model_cards.data import CardData

_IS = """\
Soft attention maps, read off layers of the backbone, are weighted position by position by a small *weight network* and
summed (Guna R T et al., Eq. 1). It was trained {when}, so that the image multiplied by its map keeps the
prediction. The map comes out of the same forward pass as the prediction: `outputs.interpretation_map`, (batch, 1,
height, width) in [0, 1]; `outputs.degenerate` tells of maps that show nothing."""
_IS_NOT = """\
- **No causal proof.** It shows where the network's features were strong and weighted, not what would change the
  prediction.
- **Of no class.** Two classes in one image get one and the same map.
- **Not to be trusted for being bright.** A map that keeps everything keeps the prediction: before the model's own row
  read the control rows, which know nothing of the model."""

_CLASS_IS = """\
There is a map for each class. In the same forward pass as the prediction a small *weight network* reads layers of the
backbone and estimates what each patch of the image{grid} contributes to the probability of each class. Together the
contributions make up the difference between the whole image and one without any patch. It was trained {when}, by least
squares on coalitions: versions of the image in which some patches are replaced by {background}.

`outputs.interpretation_map`, (batch, 1, height, width) in [0, 1], is the map of the predicted class: 0 is what speaks
most against it. `model.interpretation(pixel_values, target=3)` gives the map of class 3. `outputs.degenerate` tells of
maps that show nothing."""
_CLASS_IS_NOT = """\
- **No causal proof.** It estimates how the prediction changes when patches are replaced by {background}, and of other
  changes, or of causes in the world, it says nothing.
- **Not where the object is.** A patch counts for what the network makes of it, be it background; parts of the object
  that the network does not need count little.
- **Not finer than its patches.** What lies between them is interpolated.
- **Learned, and not to be trusted unseen.** It may be wrong on images unlike those of the training: before the model's
  own row read the control rows, which know nothing of the model."""

_BACKGROUNDS = {"mean": "the image's mean colour", "blur": "a blur", "black": "black"}
_MIXED = "the image's mean colour, a blur or black"


def map_is(card: CardData) -> str:
    """How the map comes about, and what it shows."""
    when = "beside the backbone" if _trains_task(card) else "for the finished backbone, which stayed as it was"
    if not card.class_conditional:
        return _IS.format(when=when)
    patches = card.contribution_grid
    grid = f" ({patches} of them along its shorter side)" if patches else ""
    return _CLASS_IS.format(when=when, grid=grid, background=_background(card))


def map_is_not(card: CardData) -> str:
    """What it does not show, as a list."""
    return _CLASS_IS_NOT.format(background=_background(card)) if card.class_conditional else _IS_NOT


def pass_titles(card: CardData) -> dict[str, str]:
    """Headings of the two passes, by their names in `CardData.passes`."""
    first = "backbone and head learn the task" if _trains_task(card) else "backbone and head stay as they are"
    second = "coalitions of patches" if card.class_conditional else "image ⊙ map"
    return {
        "task": f"First pass: the image; {first}",
        "interpretation": f"Second pass: {second} through the frozen backbone; the weight network learns",
    }


def _trains_task(card: CardData) -> bool:
    return _second_pass(card).get("train_task") is not False


def _background(card: CardData) -> str:
    """What stood in place of missing patches, one of three where nothing else is known."""
    return _BACKGROUNDS.get(str(_second_pass(card).get("coalition_background")), _MIXED)


def _second_pass(card: CardData) -> dict[str, object]:
    return dict(dict(card.passes).get("interpretation", ()))
