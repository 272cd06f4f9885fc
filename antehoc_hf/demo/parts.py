"""Parts of the demo page as HTML: answers, regions, other methods, faithfulness. No names from outside unescaped."""

from collections.abc import Sequence
from html import escape

from antehoc_hf.demo.analysis import AREA, Analysis, Classes, Compared, Measured, Points, Sentence
from antehoc_hf.demo.pictures import View, colour_bar, data_url, small_overlay

WAITING = '<p class="quiet" aria-live="polite">Working …</p>'
EMPTY = '<p class="quiet">Drop an image, or choose an example.</p>'

COLOURS = (
    '<div class="colours"><span>nothing</span>'
    f'<img src="{colour_bar()}" alt="Colours of the map, from dark to bright"><span>most</span></div>'
)

_MOST_CLASSES = 3  # that are named beside the one that is explained
_LEAD = 0.01  # a smaller difference is none
# Named after what the model is asked for.
_ANSWERS = {Classes: "Prediction", Points: "Landmarks", Sentence: "Caption"}
_CONTROLS = {"this map": "this map", "centre": "a blob in the centre", "random": "random pixels"}


def note(map_per_target: bool) -> str:
    """What the map is not, in a few words."""
    one = "" if map_per_target else ", and it is one map for the whole answer: two things in an image get the same map"
    return (
        f'<p class="note"><strong>What the map is not.</strong> It does not prove a cause{one}. Bright is not better. '
        "Compare it with the controls below, which know no model.</p>"
    )


def alert(text: str) -> str:
    """One sentence that something is wrong, which screen readers say at once; nothing for no text."""
    return f'<p class="alert" role="alert">{escape(text)}</p>' if text else ""


def answer(analysis: Analysis) -> str:
    """What the model says, by task."""
    said = analysis.answer
    if isinstance(said, Classes):
        body = _classes(said)
    elif isinstance(said, Points):
        body = _points(said)
    else:
        mean = f"Probability, a mean over its words: {percent(said.probability)}"
        body = f'<p class="caption">{escape(said.text) or "(no words)"}</p><p class="quiet">{mean}</p>'
    time = f'<p class="quiet">One pass gives answer and map, here in {_time(analysis.seconds)}.</p>'
    return f"<h2>{_ANSWERS[type(said)]}</h2>{_strange(analysis)}{body}{time}{_held_out(analysis)}"


def description_of_picture(analysis: Analysis, threshold: float) -> str:
    """Of the large picture, for those who do not see it."""
    said = analysis.answer
    if isinstance(said, Classes):
        name = said.top[said.explained][0]
    else:
        name = said.text if isinstance(said, Sentence) else f"{len(said.names)} landmarks"
    if threshold == 0:
        return f"Where the model looked for “{name}”: the map in colour over the image."
    return f"What is left of the image where the map for “{name}” reaches {threshold:g}."


def regions(analysis: Analysis, view: View, threshold: float) -> str:
    """The dominant regions as a table, or why there is none."""
    if analysis.degenerate:
        return '<p class="quiet">The map shows nothing for this image.</p>'
    if threshold == 0:
        return '<p class="quiet">Raise the threshold to cut the map into its dominant regions.</p>'
    left = f"<p>{percent(view.shown)} of the image is left.</p>"
    if not view.regions:
        return left + '<p class="quiet">None of it hangs together in a part large enough to tell.</p>'
    rows = [
        [str(number), percent(region.area / region.mask.size), f"{region.strength:.2f}"]
        for number, region in enumerate(view.regions, 1)
    ]
    return left + _table(["Dominant region", "Share of the image", "Mean of the map"], rows)


def words(analysis: Analysis) -> str:
    """A map for each word of a caption; nothing for other answers."""
    if not isinstance(analysis.answer, Sentence) or not analysis.answer.words:
        return ""
    figures = [
        _figure(
            data_url(small_overlay(analysis.picture, word.map)),
            f"Where the model found “{word.text}”",
            word.text,
            percent(word.probability),
        )
        for word in analysis.answer.words
    ]
    note = '<p class="quiet">The paper has one map an image; a map for each word is an extension of this project.</p>'
    return f"<h2>Word by word</h2>{note}{_grid(figures)}"


def comparison(analysis: Analysis, compared: Sequence[Compared]) -> str:
    """The methods side by side, each with its time."""
    if not compared:
        return '<p class="quiet">Choose at least one method.</p>'
    figures = []
    for one in compared:
        if one.map is None:
            figures.append(f'<figure class="missing"><p>{escape(one.note)}</p>{_caption(one.name, "")}</figure>')
            continue
        url = data_url(small_overlay(analysis.picture, one.map[0]))
        note = _time(one.seconds) + (f" · {one.note}" if one.note else "")
        figures.append(_figure(url, f"Map by {one.name}", one.name, note))
    timed = (
        "The time for one map of this image by each, once everything is set up; the shorter of two tries. "
        "antehoc: the pass that also made the answer."
    )
    return f'{_grid(figures)}<p class="quiet">{timed}</p>'


def faithfulness(analysis: Analysis, measured: Measured | None) -> str:
    """What is left of the answer on this image, by map, with one sentence that says what to make of it."""
    if measured is None:
        return '<p class="quiet">A regression has no probability that could be watched.</p>'
    said = analysis.answer
    if isinstance(said, Classes):
        what = f"Probability of “{escape(said.top[said.explained][0])}”"
    else:
        what = "Probability of the caption" if isinstance(said, Sentence) else _NEARNESS
    rows = [
        [_CONTROLS[row.name], _share(row.kept, analysis), _signed(row.insertion_minus_deletion)]
        for row in measured.rows
    ]
    head = f"<p>{what} on the whole image: <strong>{_share(measured.whole, analysis)}</strong></p>"
    columns = ["Pixels chosen by", f"Left with the best {100 * AREA:.0f} % of the pixels", "Insertion − deletion"]
    table = _table(columns, rows)
    verdict = _verdict(measured)
    if is_strange(analysis):
        verdict = (
            "The picture is unlike the training images: these numbers say nothing of whether the answer is right."
        )
    return f"{head}{table}<p>{verdict}</p>{_EXPLAINED}"


_NEARNESS = "How near the points stay (1: where they were)"
_EXPLAINED = (
    '<p class="quiet">Higher is better in both columns; insertion − deletion is 0 by chance. One image proves '
    "nothing: <code>antehoc evaluate</code> measures many.</p>"
)


def is_strange(analysis: Analysis) -> bool:
    """Whether the picture is known to be unlike the training images."""
    return analysis.strangeness is not None and analysis.strangeness > 1


def _held_out(analysis: Analysis) -> str:
    if not analysis.verdict:
        return ""
    return f'<p>{escape(analysis.verdict)} <span class="quiet">Measured on held-out images.</span></p>'


def _strange(analysis: Analysis) -> str:
    if not is_strange(analysis):
        return ""
    return (
        '<p class="alert"><strong>Unlike anything it was trained on.</strong> The features of this picture lie '
        f"{analysis.strangeness:.1f} times as far from those of the training images as 99 in 100 held-out images "
        "do at most. Don't rely on answer or map.</p>"
    )


def _verdict(measured: Measured) -> str:
    own, *controls = measured.rows
    wins = [
        (own.kept - row.kept > _LEAD, own.insertion_minus_deletion - row.insertion_minus_deletion > _LEAD)
        for row in controls
    ]
    if all(all(won) for won in wins):
        return "On this image the map chooses better than either control, by both measures."
    if any(any(won) for won in wins):
        return "On this image the map does not beat both controls by both measures: read little into it."
    return "On this image the map chooses no better than maps that know no model: do not rely on it."


def _classes(said: Classes) -> str:
    if not said.are_probabilities:
        return _table(["Name", "Value"], [[name, f"{value:.4g}"] for name, value in said.top])
    shown = list(said.top[:_MOST_CLASSES])
    if said.explained >= _MOST_CLASSES:
        shown.append(said.top[said.explained])
    items = [
        f'<li><span class="name">{escape(name)}</span><span class="number">{percent(value)}</span>'
        f'<span class="bar" aria-hidden="true"><span style="width:{100 * value:.1f}%"></span></span></li>'
        for name, value in shown
    ]
    return f'<ol class="classes">{"".join(items)}</ol>'


def _points(said: Points) -> str:
    rows = [
        [str(number), name, f"{x:.0f}", f"{y:.0f}"]
        for number, (name, (x, y)) in enumerate(zip(said.names, said.on_photo, strict=True), 1)
    ]
    table = _table(["#", "Landmark", "x", "y"], rows)
    # It scrolls where there are many; the focus lets the keyboard do it.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Landmarks">{table}</div>'
        + '<p class="quiet">In pixels of your image.</p>'
    )


def _figure(url: str, alternative: str, name: str, note: str) -> str:
    return f'<figure><img src="{url}" alt="{escape(alternative)}">{_caption(name, note)}</figure>'


def _caption(name: str, note: str) -> str:
    return f"<figcaption><strong>{escape(name)}</strong><span>{escape(note)}</span></figcaption>"


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="maps">{"".join(figures)}</div>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _share(value: float, analysis: Analysis) -> str:
    return f"{value:.2f}" if isinstance(analysis.answer, Points) else percent(value)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if abs(value) >= 0.005 else "0.00"


def percent(value: float) -> str:
    """Of a share in [0, 1]."""
    # A space that does not break: the sign belongs to its number.
    return "< 0.1\u00a0%" if 0 < value < 0.0005 else f"{100 * value:.1f}\u00a0%"


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.0f}\u00a0ms" if seconds < 1 else f"{seconds:.1f}\u00a0s"
