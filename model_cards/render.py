"""A card's text: the same data give the same text, and what is not known does not appear."""

from collections.abc import Iterable, Mapping

from antehoc_hf.model_cards.data import ANTEHOC, CardData, Maps, ScoredMap
from antehoc_hf.model_cards.escape import code, fenced, text
from antehoc_hf.model_cards.map_texts import map_is, map_is_not, pass_titles, texts_of, trains_task
from antehoc_hf.model_cards.measures import TASK_METRICS, Measure, all_measures, bright_measures, fair_measures
from antehoc_hf.model_cards.metadata import metadata, model_name
from antehoc_hf.model_cards.snippets import snippet

MARKER = "<!-- Written by antehoc_hf. Without this line the card is yours, and pushing leaves it alone. -->"

_TASKS = {
    "image-classification": "classifies images",
    "landmark-detection": "finds landmarks in images",
    "image-captioning": "describes images in words",
}
_METHOD = """\
@inproceedings{gunart2023antehoc,
  title     = {Ante-Hoc Generation of Task-Agnostic Interpretation Maps},
  author    = {Guna R T and Benitez and Sikha},
  booktitle = {CVPR Workshops (XAI4CV)},
  year      = {2023}
}"""


def render_card(card: CardData) -> str:
    """The whole README.md.

    Args:
        card: what is known.
    """
    parts = [
        f"---\n{metadata(card).to_yaml()}\n---\n\n{MARKER}",
        f"# {text(model_name(card))}",
        _summary(card),
        _figure(card),
        _use(card),
        _map(card),
        _results(card),
        _map_results(card),
        _robustness(card),
        _training(card),
        _ending(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(card: CardData) -> str:
    height, width = card.image_size or (None, None)
    size = f", for images of {height}×{width} pixels" if height else ""
    how = "trained on" if trains_task(card) else "as it was, and a map fitted to images of"
    on = f", {how} {_data_name(card)}" if card.data else ""
    shows = " **and shows what it looked at**, in one forward pass: the"
    if card.method != ANTEHOC:  # a baseline, to compare with
        shows = f" (a baseline of antehoc_hf, {code(card.method)}), with the"
    kind = "network" if ":" in card.backbone else "timm backbone"
    lines = [f"A model that {_TASKS[card.task]}{shows} {kind} {code(card.backbone)}{on}{size}."]
    if card.base_model:
        known = "It started from the pretrained weights" if trains_task(card) else "Its weights are those of"
        lines.append(f"{known} {code(card.base_model)}.")
    if card.classes and card.task == "image-classification" and card.problem_type != "regression":
        shown = ", ".join(code(name, 60) for name in card.classes[:20])
        more = f" and {len(card.classes) - 20} more" if len(card.classes) > 20 else ""
        lines.append(f"It knows {len(card.classes)} classes: {shown}{more}.")
    return "\n".join(lines)


def _data_name(card: CardData) -> str:
    assert card.data is not None
    if card.data.hub_id:
        return f"[{code(card.data.hub_id)}](https://huggingface.co/datasets/{card.data.hub_id})"
    return code(card.data.name)


def _figure(card: CardData) -> str:
    if not card.figures:
        return ""
    about = "Images of the evaluation, what the model makes of them, right or wrong, and where it looked"
    return f"![{about}]({card.figures[0]})"


def _use(card: CardData) -> str:
    pin = (
        "`trust_remote_code=True` runs the code in this repository: read it, and pin what you read with "
        '`revision="<commit>"`. Where the package `antehoc_hf` is installed, `import antehoc_hf` does instead, '
        "and no code of the repository is run."
    )
    code_block = f"## Use\n\n```python\n{snippet(card)}\n```"
    return f"{code_block}\n\n{pin}" if card.method == ANTEHOC else code_block


def _map(card: CardData) -> str:
    if card.method != ANTEHOC:
        return ""
    return f"## What the map is\n\n{map_is(card)}\n\n**What it is not.**\n\n{map_is_not(card)}"


def _results(card: CardData) -> str:
    values, plain = dict(card.metrics), dict(card.plain_metrics)
    names = [name for name in TASK_METRICS if name in values]
    if not names:
        return ""
    headings = ["", "this model", *(["the plain backbone, trained alike"] if plain else [])]
    rows = []
    for name in names:
        measure = TASK_METRICS[name]
        row = [measure.heading, measure.written(values[name])]
        rows.append([*row, *([measure.written(plain[name]) if name in plain else ""] if plain else [])])
    split = f"the {text(card.evaluated_on)} split" if card.evaluated_on else "images it was not trained on"
    return f"## Results\n\nOn {card.evaluated_images} images of {split}.\n\n{_table(headings, rows)}"


def _map_results(card: CardData) -> str:
    maps = card.maps
    heading, verdict = "## How far the map can be trusted", text(card.verdict, 600)
    if maps is None:
        return f"{heading}\n\n{verdict}" if verdict else ""
    about = f"On {maps.num_images} images"
    if maps.area is not None:
        about += f"; equal area: the {100 * maps.area:.0f} % of the image that a map puts first is kept"
    if maps.level is not None:
        about += f"; in brackets {100 * maps.level:.0f} % bootstrap intervals over the images"
    if maps.seed is not None:
        about += f"; seed {maps.seed} of whatever is drawn"
    parts = [heading, *([verdict] if verdict else []), f"{about}."]
    if maps.about:
        parts[-1] += f" {text(maps.about)}"
    if maps.partly:
        parts[-1] += f" Of these, {maps.partly[1]} for {maps.partly[0]}."
    fair, bright = fair_measures(maps), bright_measures(maps)
    if fair:
        intro = "**What brightness can't buy.** A map shows something if it beats every control here."
        parts.append(f"{intro}\n\n{_map_table(maps.rows, fair)}")
    if bright:
        intro = "**On image ⊙ map.** Bright maps are rewarded: read these along with the maps' mean."
        parts.append(f"{intro}\n\n{_map_table(maps.rows, bright)}")
    parts.append(text(maps.controls, 400))
    return "\n\n".join(filter(None, parts)) if fair or bright else ""


def _robustness(card: CardData) -> str:
    return "\n\n".join(_robustness_table(maps) for maps in card.robustness)


def _robustness_table(maps: Maps) -> str:
    return f"**{text(maps.about)}** On {maps.num_images} images.\n\n{_map_table(maps.rows, all_measures(maps))}"


def _map_table(rows: Iterable[ScoredMap], measures: Mapping[str, Measure]) -> str:
    table = []
    for row in rows:
        scores = dict(row.scores)
        name = f"**{text(row.name)}** (this model)" if row.kind == "model" else text(row.name)
        name += " (control)" if row.kind == "control" else ""
        table.append([name, *(_score(scores.get(metric), measure) for metric, measure in measures.items())])
    return _table(["map", *(measure.heading for measure in measures.values())], table)


def _score(score: tuple[float, float | None, float | None] | None, measure: Measure) -> str:
    if score is None:
        return ""
    value, low, high = score
    if low is None or high is None or low == high:
        return measure.written(value)
    return f"{measure.written(value)} [{measure.written(low)}, {measure.written(high)}]"


def _training(card: CardData) -> str:
    parts = []
    if card.data:
        parts.append(_data(card))
    if card.preprocessing:
        parts.append(f"### Preprocessing\n\nBit for bit timm's evaluation transform.\n\n{_values(card.preprocessing)}")
    titles = pass_titles(card)
    for name, values in card.passes:
        parts.append(f"### {titles.get(name, text(name))}\n\n{_values(values)}")
    run = [("time", _duration(value)) if name == "seconds" else (name, value) for name, value in card.training]
    model = [
        ("parameters", card.parameters),
        ("of these, map head", card.map_head_parameters),
        (texts_of(card).layers, card.num_attention_maps),
    ]
    known = [(name, value) for name, value in [*model, *run] if value is not None]
    if known:
        parts.append(f"### Model and run\n\n{_values(known)}")
    if card.versions:
        listed = ", ".join(f"{text(name)} {text(version)}" for name, version in card.versions)
        parts.append(f"Made with {listed}.")
    return "## Training\n\n" + "\n\n".join(parts) if parts else ""


def _data(card: CardData) -> str:
    assert card.data is not None
    data = card.data
    revision = f", revision {code(data.revision)}" if data.revision else ""
    counts = ", ".join(f"{count} {text(role)}" for role, count in data.images)
    lines = [f"{_data_name(card)}{revision}" + (f": {counts} images." if counts else "."), *data.notes]
    return "### Data\n\n" + " ".join(lines)


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return str(seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _ending(card: CardData) -> str:
    parts = []
    if card.facts.license:
        parts.append(f"## Licence\n\n{text(card.facts.license)}")
    if card.facts.author:
        parts.append(f"## Author\n\n{text(card.facts.author)}")
    own = f"{fenced(card.facts.citation, 'bibtex')}\n\n" if card.facts.citation else ""
    about = texts_of(card).method
    method = f"{about}\n\n```bibtex\n{_METHOD}\n```" if card.method == ANTEHOC else ""
    if own or method:
        parts.append(f"## Citation\n\n{own}{method}".rstrip())
    return "\n\n".join(parts)


def _values(pairs: Iterable[tuple[str, object]]) -> str:
    return _table(["", ""], [[text(name.replace("_", " ")), code(_plain(value))] for name, value in pairs])


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(headings: list[str], rows: list[list[str]]) -> str:
    ruler = "|---|" + "---:|" * (len(headings) - 1)
    return "\n".join(["| " + " | ".join(headings) + " |", ruler, *("| " + " | ".join(row) + " |" for row in rows)])
