"""What the demo shows of one image, as plain results: answer, map, other methods, and how faithful the map is."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from antehoc_hf.demo.limits import TimeIsUpError
from antehoc_hf.demo.models import DemoModel
from antehoc_hf.evaluation.controls import center_map, random_map
from antehoc_hf.evaluation.insertion_deletion import insertion_deletion
from antehoc_hf.evaluation.maps import binarise_equal_area
from antehoc_hf.explainers import load_explainer
from antehoc_hf.explainers.controls import AnteHoc
from antehoc_hf.explainers.network import Network
from antehoc_hf.modeling.landmark_detection import AnteHocLandmarkOutput
from antehoc_hf.pipelines.images import open_image, without_ends
from antehoc_hf.training.data.images import image_size
from antehoc_hf.visualization.images import Image as Pixels
from antehoc_hf.visualization.images import photo_parts

MOST_PIXELS = 50_000_000
SHORT_SIDE = 512  # of the large picture, in pixels; small photos are enlarged
AREA = 0.2  # of the image is kept when maps are compared
_RANDOM_DRAWS = 8
_STEPS = 10  # of insertion and deletion: seconds on a CPU, where a report takes more
_CHUNK = 16
_NOTHING = "found no evidence"

T = TypeVar("T")


@dataclass(frozen=True)
class Classes:
    """What a classifier says.

    Attributes:
        top (`tuple[tuple[str, float], ...]`): all classes and their probabilities in [0, 1], the most likely first;
            or names and values of a regression.
        are_probabilities (`bool`): false for a regression.
        indices (`tuple[int, ...]`): of these classes.
        explained (`int`): which of these the map explains, 0 being the most likely.
    """

    top: tuple[tuple[str, float], ...]
    are_probabilities: bool = True
    indices: tuple[int, ...] = ()
    explained: int = 0


@dataclass(frozen=True)
class Points:
    """The landmarks that were found.

    Attributes:
        names (`tuple[str, ...]`): K names.
        on_input (`Tensor`): (K, 2), x and y in units of width and height of what the model saw.
        on_photo (`tuple[tuple[float, float], ...]`): x and y in pixels of the visitor's image.
    """

    names: tuple[str, ...]
    on_input: Tensor
    on_photo: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Word:
    """A word of a caption with its probability, given those before it, and its map (1, H, W) in [0, 1]."""

    text: str
    probability: float
    map: Tensor


@dataclass(frozen=True)
class Sentence:
    """A caption, its length-normalised probability, its words, and its token ids (1, T)."""

    text: str
    probability: float
    words: tuple[Word, ...]
    ids: Tensor


@dataclass(frozen=True)
class Analysis:
    """One image as one model sees it.

    Attributes:
        answer: what it says.
        pixel_values (`Tensor`): (1, 3, H, W), its input.
        picture (`np.ndarray`): (H, W, 3) uint8, that part of the photo for people, larger.
        map (`Tensor`): (1, 1, H, W) in [0, 1], where it looked.
        degenerate (`bool`): whether that map shows nothing.
        seconds (`float`): for answer and map.
        strangeness (`float`, *optional*): how far the picture lies from the training images, see
            [`antehoc_hf.evaluation.familiarity.Familiarity`]; above 1 it is unlike them. None: not known.
        verdict (`str`): see [`DemoModel`].
    """

    answer: Classes | Points | Sentence
    pixel_values: Tensor
    picture: Pixels
    map: Tensor
    degenerate: bool
    seconds: float
    strangeness: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Compared:
    """What one method says.

    Attributes:
        name (`str`): of the method.
        map (`Tensor`, *optional*): (1, 1, H, W) in [0, 1]; None if it cannot be computed.
        seconds (`float`): for this map.
        note (`str`): why there is no map, or that it shows nothing; else empty.
    """

    name: str
    map: Tensor | None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Faithfulness:
    """How much of the answer survives where a map says it matters.

    Attributes:
        name (`str`): of the map.
        kept (`float`): confidence in the answer, in [0, 1], when only the largest `AREA` of the map is left.
        insertion_minus_deletion (`float`): in [−1, 1]; 0 is chance.
    """

    name: str
    kept: float
    insertion_minus_deletion: float


@dataclass(frozen=True)
class Measured:
    """Confidence in the answer on the whole image, in [0, 1], and what maps keep of it: the model's own first."""

    whole: float
    rows: tuple[Faithfulness, ...]


def read_photo(source: str | Path | bytes) -> Image.Image:
    """An image, upright.

    Args:
        source: what a visitor sent, or the path of a file of whoever runs the page.

    Raises:
        ValueError: if it is not an image, damaged, or larger than `MOST_PIXELS`.
    """
    size = image_size(source)
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        raise ValueError(
            f"The image is too large: {size[1]} × {size[0]} pixels, where at most {MOST_PIXELS // 10**6} million are "
            "taken. Make it smaller first."
        )
    photo: Image.Image = open_image(source)
    return photo


@torch.no_grad()
def analyse(loaded: DemoModel, photo: Image.Image) -> Analysis:
    """The model's answer and its map, timed as in [`compare`].

    Args:
        loaded: the model.
        photo: any image.
    """
    model, processor = loaded.model, loaded.processor
    pixel_values = processor(without_ends(photo, processor), return_tensors="pt")["pixel_values"]
    pixel_values = pixel_values.to(device=model.device, dtype=model.dtype)
    with loaded.lock:
        if loaded.kind == "captions":
            outputs, seconds = _timed(lambda: model.caption(pixel_values, output_word_maps=True))
        else:
            outputs, seconds = _timed(lambda: model(pixel_values))
        known = loaded.familiarity
        strangeness = None if known is None else known.times_the_limit(model, pixel_values)
    answer: Classes | Points | Sentence
    if loaded.kind == "captions":
        answer = _sentence(outputs, loaded.tokenizer)
    elif loaded.kind == "landmarks":
        answer = _points(outputs.landmarks, loaded, photo)
    else:
        answer = _classes(outputs.logits[0].float().cpu(), model.config)
    return Analysis(
        answer=answer,
        pixel_values=pixel_values,
        picture=photo_parts([photo], processor, SHORT_SIDE)[0],
        map=outputs.interpretation_map.float().cpu(),
        degenerate=bool(outputs.degenerate[0]),
        seconds=seconds,
        strangeness=strangeness,
        verdict=loaded.verdict,
    )


@torch.no_grad()
def explain_class(loaded: DemoModel, analysis: Analysis, rank: int) -> Analysis:
    """The same image, with the map of another class; everything measured from it is of that class too.

    Args:
        loaded: a model with a map for each class, see [`DemoModel.map_per_target`].
        analysis: what it made of the image.
        rank (`int`): 0 for the most likely class, 1 for the next.

    Raises:
        ValueError: if the model's map depends on no class, or there is no such rank.
    """
    answer = analysis.answer
    if not isinstance(answer, Classes) or not loaded.map_per_target:
        raise ValueError(f"{loaded.name} has one map an image, whatever the class.")
    if not 0 <= rank < len(answer.indices):
        raise ValueError(f"rank={rank!r} must be in 0 … {len(answer.indices) - 1}.")
    with loaded.lock:
        explained = loaded.model.interpretation(analysis.pixel_values, answer.indices[rank])
    return replace(
        analysis,
        answer=replace(answer, explained=rank),
        map=explained.interpretation_map.float().cpu(),
        degenerate=bool(explained.degenerate[0]),
    )


def compare(loaded: DemoModel, analysis: Analysis, names: Sequence[str]) -> list[Compared]:
    """What several methods say the model looked at, one at a time, for its own answer.

    A method that needs a package or cannot explain this model says so in its note. What takes less than a second is
    computed twice and the shorter time reported: the first time pays for what is set up once. The model's own map is
    the one that came with its answer, with the time for both.

    Args:
        loaded, analysis: the model, and what it made of the image.
        names: of `EXPLAINERS`.
    """
    found = []
    for name in names:
        if name == AnteHoc.name:
            found.append(_own_map(analysis))
            continue
        try:
            with loaded.lock:
                explainer = load_explainer(name, loaded.model)
                explained, seconds = _timed(partial(explainer.explain, analysis.pixel_values, _target(analysis)))
        except TimeIsUpError:
            raise
        except (ImportError, ValueError) as error:
            found.append(Compared(name, None, note=str(error)))
            continue
        found.append(Compared(name, explained.maps.cpu(), seconds, _NOTHING if explained.degenerate[0] else ""))
    return found


def _own_map(analysis: Analysis) -> Compared:
    shown = torch.zeros_like(analysis.map) if analysis.degenerate else analysis.map
    return Compared(AnteHoc.name, shown, analysis.seconds, _NOTHING if analysis.degenerate else "")


@torch.no_grad()
def measure(loaded: DemoModel, analysis: Analysis, area: float = AREA) -> Measured | None:
    """What is left of the model's answer on this image where its map, a blob in the centre, or chance says it matters.

    The answer is the predicted class, the caption, or the points (their confidence falls with the distance they move,
    see [`antehoc_hf.explainers.targets.PointTarget`]). Insertion and deletion put the image's pixels in, or take them
    out, in the order of the map. What chance keeps is a mean over several random maps.

    Args:
        loaded, analysis: the model, and what it made of the image.
        area (`float`): share of the image that is kept, in (0, 1).

    Returns:
        `Measured`: or None for a regression, which has no confidence.
    """
    if isinstance(analysis.answer, Classes) and not analysis.answer.are_probabilities:
        return None
    pixels = analysis.pixel_values
    own = {"this map": analysis.map.to(pixels.device), "centre": center_map(pixels)}
    chance = [random_map(pixels, seed) for seed in range(_RANDOM_DRAWS)]
    confidence = _Confidence(loaded, analysis)
    masks = torch.cat([binarise_equal_area(map_, area) for map_ in [*own.values(), *chance]])
    images = loaded.model.energy_map(pixels.expand(len(masks), -1, -1, -1), masks.to(pixels))
    kept = torch.cat([confidence(chunk) for chunk in images.split(_CHUNK)])
    ranked = torch.cat([*own.values(), chance[0]]).float()  # more of them would say 0 once more, and take their time
    differences = insertion_deletion(
        lambda versions: confidence(versions)[:, None],
        pixels.expand(len(ranked), -1, -1, -1),
        ranked,
        torch.zeros(len(ranked), dtype=torch.long, device=pixels.device),
        steps=_STEPS,
        chunk_size=_CHUNK,
    ).difference
    shares = [*kept[: len(own)].tolist(), float(kept[len(own) :].mean())]
    rows = zip([*own, "random"], shares, differences.tolist(), strict=True)
    return Measured(float(confidence(pixels)), tuple(Faithfulness(*row) for row in rows))


class _Confidence:
    """The model's confidence in the answer it gave to one image, on versions of that image: (N, 3, H, W) → (N,).

    The model is free between two calls, so that another visitor need not wait for all of them.
    """

    def __init__(self, loaded: DemoModel, analysis: Analysis) -> None:
        self._lock = loaded.lock
        with self._lock:
            network = Network(loaded.model)
            self._question = network.question(network.checked(analysis.pixel_values), _target(analysis))
            self._target = self._question.target(self._question(self._question.images))

    def __call__(self, images: Tensor) -> Tensor:
        same = torch.zeros(len(images), dtype=torch.long, device=images.device)
        with self._lock:
            return self._target.select(same).confidence(self._question(images, same))


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What the work gives, and the seconds it takes once everything is set up: twice, unless it takes a second."""
    times: list[float] = []
    while len(times) < 2 and sum(times) < 1:
        begun = time.perf_counter()
        found = work()
        times.append(time.perf_counter() - begun)
    return found, min(times)


def _target(analysis: Analysis) -> Any:
    """What explainers are asked about: the caption, a class that was chosen, or (None) the model's own answer."""
    answer = analysis.answer
    if isinstance(answer, Classes) and answer.explained:
        return answer.indices[answer.explained]
    return answer.ids if isinstance(answer, Sentence) else None


def _classes(logits: Tensor, config: Any) -> Classes:
    if config.problem_type == "regression":
        return Classes(tuple((config.id2label[k], value) for k, value in enumerate(logits.tolist())), False)
    several = config.problem_type == "multi_label_classification"
    probabilities, order = (logits.sigmoid() if several else logits.softmax(dim=0)).sort(descending=True)
    indices = tuple(order.tolist())
    top = zip(indices, probabilities.tolist(), strict=True)
    return Classes(tuple((config.id2label[index], value) for index, value in top), indices=indices)


def _points(landmarks: Tensor, loaded: DemoModel, photo: Image.Image) -> Points:
    outputs = AnteHocLandmarkOutput(landmarks=landmarks)
    placed = loaded.processor.post_process_keypoint_detection(outputs, [[photo.height, photo.width]])
    on_photo = tuple((x, y) for x, y in placed[0]["keypoints"].tolist())
    names = loaded.model.config.landmark_names or [str(point) for point in range(len(on_photo))]
    return Points(tuple(names), landmarks[0].float().cpu(), on_photo)


def _sentence(outputs: Any, tokenizer: Any) -> Sentence:
    ids = outputs.sequences[0, 1:].tolist()
    words = tuple(
        Word(text, float(said.exp()), map_.float().cpu())
        for text, index, said, map_ in zip(
            tokenizer.convert_ids_to_tokens(ids), ids, outputs.log_probabilities[0], outputs.word_maps[0], strict=True
        )
        if index not in (tokenizer.pad_token_id, tokenizer.eos_token_id)
    )
    text = tokenizer.decode(outputs.sequences[0], skip_special_tokens=True)
    return Sentence(text, float(outputs.probability[0]), words, outputs.sequences)
