"""The demo page, with gradio: what stands where, and what happens when."""

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.demo import parts
from antehoc_hf.demo.analysis import Analysis, Classes, Compared, analyse, compare, explain_class, measure, read_photo
from antehoc_hf.demo.examples import example_files
from antehoc_hf.demo.gradio_app import guarded_blocks, launch_options, needed_gradio
from antehoc_hf.demo.limits import MOST_WAITING, limited_time
from antehoc_hf.demo.models import DemoModel, load_demo_models
from antehoc_hf.demo.pictures import view
from antehoc_hf.demo.uploads import read_upload
from antehoc_hf.explainers import EXPLAINERS

_KEPT = 3600  # seconds that visitors' files and results are kept
_FIRST_METHODS = ("antehoc", "grad-cam")
_SLOW = ("score-cam", "sise", "ada-sise", "integrated-gradients", "integrated-grad-cam")
_CONTROLS = ("constant", "random", "center", "sobel")

_NAME_EXAMPLES = """() => document.querySelectorAll("#examples button").forEach(
    (button, index) => button.setAttribute("aria-label", `Example ${index + 1}`))"""

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Looked:
    """What one visitor's page shows, kept by gradio between events; slow methods are computed once an image."""

    analysis: Analysis
    model: DemoModel
    compared: dict[str, Compared] = field(default_factory=dict)

    def compare(self, names: Sequence[str]) -> list[Compared]:
        """What these methods say, in the order of `EXPLAINERS`."""
        ordered = [name for name in EXPLAINERS if name in names]
        for name in ordered:
            if name not in self.compared:
                (self.compared[name],) = compare(self.model, self.analysis, [name])
        return [self.compared[name] for name in ordered]


def build_page(models: Sequence[str] | Mapping[str, DemoModel], examples: Sequence[str | Path] | None = None) -> Any:
    """The page, not yet open: `build_page(["org/name"]).launch()`.

    Args:
        models: folders or Hub names of our models; or models by the name they are chosen by.
        examples (*optional*): image files to choose from; None: drawings of the built-in data set `shapes`.

    Returns:
        `gradio.Blocks`: see [`launch_options`] for how it is meant to be launched.

    Raises:
        ValueError, OSError: if there is no model or one cannot be loaded.
        UsageError: if gradio is not installed.
    """
    gradio = needed_gradio()
    if not models:
        raise UsageError("There is no model for the demo: name at least one.")
    loaded = dict(models) if isinstance(models, Mapping) else load_demo_models(models)
    # Gradio takes copies into its own cache, which it empties.
    with tempfile.TemporaryDirectory(prefix="antehoc-examples-") as folder:
        return _Page(gradio, loaded, example_files(folder, examples)).blocks


def open_page(
    models: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    examples: Sequence[str | Path] | None = None,
    wait: bool = True,
) -> Any:
    """Opens the page.

    Args:
        models: see [`build_page`].
        host (`str`): the address it listens at; "0.0.0.0" for the whole network.
        port (`int`, *optional*): None: the first free one from 7860.
        share (`bool`): through gradio's public tunnel, for 72 hours. Whoever has the address can use it.
        examples: see [`build_page`].
        wait (`bool`): until it is interrupted.

    Returns:
        `gradio.Blocks`: with `local_url`; `close()` ends it.

    Raises:
        ValueError, OSError: if a model cannot be loaded, or the port is taken.
    """
    page = build_page(models, examples)
    try:
        page.launch(server_name=host, server_port=port, share=share, prevent_thread_lock=True, **launch_options())
    except OSError as error:
        raise UsageError(f"The page cannot be opened at {host}, port {port or 'any from 7860'}: {error}") from error
    if wait:
        page.block_thread()
    return page


class _Page:
    """The page's elements, and what is done with them."""

    def __init__(self, gradio: Any, models: dict[str, DemoModel], examples: list[str]) -> None:
        self._gradio, self._models = gradio, models
        first = next(iter(models))
        with guarded_blocks(gradio)(
            title="What did it look at?", analytics_enabled=False, delete_cache=(_KEPT, _KEPT), fill_width=False
        ) as self.blocks:
            gradio.HTML(
                "<h1>What did it look at?</h1><p>A model that predicts and shows where it looked, in one pass.</p>"
            )
            self.state = gradio.State(None, time_to_live=_KEPT)
            self.alert = gradio.HTML(elem_id="alert", visible=False)
            # Image and map stand side by side on a phone as well.
            with gradio.Row(equal_height=False):
                with gradio.Column(scale=3, min_width=140):
                    self._input(examples)
                with gradio.Column(scale=3, min_width=140):
                    self._map()
                with gradio.Column(scale=3, min_width=300):
                    self._answer(first)
            with gradio.Row(equal_height=False):
                with gradio.Column(scale=1, min_width=300):
                    gradio.Examples(
                        [[path] for path in examples], inputs=[self.image], label="Examples", elem_id="examples"
                    )
                with gradio.Column(scale=2, min_width=300):
                    self._sliders()
            self.word_maps = gradio.HTML()
            self._methods()
            gradio.HTML("<h2>How faithful is the map here?</h2>")
            self.faithfulness = gradio.HTML(parts.EMPTY, elem_id="faithfulness")
            self._events()
        # Whatever does not go through the queue would not be counted.
        self.blocks.queue(max_size=MOST_WAITING, api_open=False)

    def _input(self, examples: list[str]) -> None:
        self.image = self._gradio.Image(
            value=examples[0] if examples else None,
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard", "webcam"],
            label="Your image",
            show_label=False,
            height=390,
            elem_id="image",
            buttons=[],
            alt_text="The image that is looked at",
        )
        # Gradio would open the file itself, and answer one that is not an image with an error of Pillow's.
        self.image.preprocess = _path_of

    def _map(self) -> None:
        # The picture's own label would hide a corner of it.
        self.picture = self._gradio.Image(
            label="Where it looked",
            show_label=False,
            interactive=False,
            elem_id="picture",
            format="png",
            buttons=["download", "fullscreen"],
        )
        self._gradio.HTML(parts.COLOURS)

    def _answer(self, first: str) -> None:
        gradio = self._gradio
        self.model = gradio.Dropdown(
            list(self._models), value=first, label="Model", elem_id="model", visible=len(self._models) > 1
        )
        self.answer = gradio.HTML(parts.EMPTY, elem_id="answer")
        self.target = gradio.Dropdown(
            [],
            label="Class to explain",
            info="The model has a map for each class: type to search.",
            elem_id="target",
            visible=False,
        )
        self.described = gradio.HTML(self._description(first), elem_id="described")

    def _sliders(self) -> None:
        gradio = self._gradio
        with gradio.Row():
            self.opacity = gradio.Slider(
                0, 1, value=1, step=0.05, label="Colour", info="0 shows the image without the map.", elem_id="opacity"
            )
            self.threshold = gradio.Slider(
                0,
                1,
                value=0,
                step=0.05,
                label="Threshold",
                info="Blackens what the map rates lower.",
                elem_id="threshold",
            )
        self.regions = gradio.HTML(elem_id="regions")
        self.note = gradio.HTML(parts.note(False))

    def _methods(self) -> None:
        gradio = self._gradio
        gradio.HTML("<h2>What other methods say</h2>")
        with gradio.Accordion("Choose methods", open=False, elem_id="methods"):
            self.methods = gradio.CheckboxGroup(
                [(_labelled(name), name) for name in EXPLAINERS],
                value=list(_FIRST_METHODS),
                label="Methods",
                info="All explain the same answer. Slow ones take many passes through the network.",
            )
        self.comparison = gradio.HTML(parts.EMPTY, elem_id="comparison")

    def _events(self) -> None:
        gradio = self._gradio
        shown = [self.picture, self.regions]
        results = [self.state, self.alert, self.answer, *shown, self.word_maps, self.comparison, self.faithfulness]
        about = [self.described, self.note, self.target]
        compared = {"fn": self._compare, "inputs": [self.state, self.methods], "outputs": [self.comparison]}
        measured = {"fn": self._measure, "inputs": [self.state], "outputs": [self.faithfulness]}
        gradio.on(
            [self.blocks.load, self.image.change, self.model.change],
            self._look,
            inputs=[self.image, self.model, self.threshold, self.opacity],
            outputs=[*results, *about],
            trigger_mode="always_last",
            api_name="look",
        ).then(**compared, api_visibility="private").then(**measured, api_visibility="private")
        # Only what a visitor chooses: the choices are also set with every new image.
        self.target.input(
            self._choose,
            inputs=[self.state, self.target, self.threshold, self.opacity],
            outputs=[self.state, self.answer, *shown],
            trigger_mode="always_last",
            api_visibility="private",
        ).then(**compared, api_visibility="private").then(**measured, api_visibility="private")
        gradio.on(
            [self.threshold.change, self.opacity.change],
            self._redrawn,
            inputs=[self.state, self.threshold, self.opacity],
            outputs=shown,
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
        )
        # Gradio leaves the examples without a name for those who do not see them.
        self.blocks.load(None, js=_NAME_EXAMPLES)
        self.methods.change(**compared, trigger_mode="always_last", api_visibility="private")

    def _look(self, path: str | None, model: str, threshold: float, opacity: float) -> list[Any]:
        """Everything anew for another image or model; a mistake is explained in place of the results."""
        loaded = self._models[model]
        about = [self._description(model), parts.note(loaded.map_per_target), self._targets(None)]
        if path is None:
            return [None, self._alert(), parts.EMPTY, *self._nothing(), "", parts.EMPTY, parts.EMPTY, *about]

        def look() -> list[Any]:
            analysis = analyse(loaded, read_photo(read_upload(path)))
            answer = parts.answer(analysis), *self._shown(analysis, threshold, opacity), parts.words(analysis)
            looked = Looked(analysis, loaded)
            return [looked, self._alert(), *answer, parts.WAITING, parts.WAITING, *about[:2], self._targets(looked)]

        return _tried(look, lambda text: [None, self._alert(text), "", *self._nothing(), "", "", "", *about])

    def _choose(self, looked: Looked | None, rank: int, threshold: float, opacity: float) -> list[Any]:
        """The map of another class."""
        if looked is None:
            return [None, "", *self._nothing()]

        def chosen() -> list[Any]:
            other = Looked(explain_class(looked.model, looked.analysis, rank), looked.model)
            return [other, parts.answer(other.analysis), *self._shown(other.analysis, threshold, opacity)]

        return _tried(chosen, lambda text: [looked, *[self._gradio.skip()] * 2, parts.alert(text)])

    def _targets(self, looked: Looked | None) -> Any:
        """The classes to choose from, where the model tells them apart."""
        if looked is None or not looked.model.map_per_target or not isinstance(looked.analysis.answer, Classes):
            return self._gradio.update(choices=[], value=None, visible=False)
        top = enumerate(looked.analysis.answer.top)
        names = [(f"{name} · {parts.percent(value)}", rank) for rank, (name, value) in top]
        return self._gradio.update(choices=names, value=0, visible=True)

    def _redrawn(self, looked: Looked | None, threshold: float, opacity: float) -> list[Any]:
        if looked is None:
            return self._nothing()
        return _tried(
            lambda: self._shown(looked.analysis, threshold, opacity),
            lambda text: [self._gradio.skip(), parts.alert(text)],
        )

    def _compare(self, looked: Looked | None, names: list[str]) -> str:
        if looked is None:
            return parts.EMPTY
        return _tried(lambda: parts.comparison(looked.analysis, looked.compare(names)), parts.alert)

    def _measure(self, looked: Looked | None) -> str:
        if looked is None:
            return parts.EMPTY
        return _tried(lambda: parts.faithfulness(looked.analysis, measure(looked.model, looked.analysis)), parts.alert)

    def _shown(self, analysis: Analysis, threshold: float, opacity: float) -> list[Any]:
        seen = view(analysis, threshold, opacity)
        described = parts.description_of_picture(analysis, threshold)
        picture = self._gradio.update(value=seen.picture, alt_text=described)
        return [picture, parts.regions(analysis, seen, threshold)]

    def _alert(self, text: str = "") -> Any:
        return self._gradio.update(value=parts.alert(text), visible=bool(text))

    def _nothing(self) -> list[Any]:
        return [self._gradio.update(value=None), ""]

    def _description(self, model: str) -> str:
        name = f"{model}: " if len(self._models) == 1 else ""
        return f'<p class="quiet">{escape(name + self._models[model].description)}</p>'


def _labelled(name: str) -> str:
    if name in _SLOW:
        return f"{name} (slow)"
    return f"{name} (control)" if name in _CONTROLS else name


def _path_of(payload: Any) -> str | None:
    return None if payload is None else payload.path


def _tried(work: Callable[[], T], otherwise: Callable[[str], T]) -> T:
    """What the work gives, within the time a request may take, or a user's mistake as one sentence; a bug is logged
    for whoever runs the page.
    """
    try:
        with limited_time():
            return work()
    except (ValueError, ImportError) as error:
        return otherwise(" ".join(str(error).split()))
    except Exception:
        logger.exception("The demo failed.")
        return otherwise("Something went wrong here, which is not your fault: the server's log tells more.")
