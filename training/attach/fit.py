"""The map of a finished classifier by linear regression: what coalitions of patches gain, on responses of the patches.

The game is that of [`CoalitionObjective`]; the additive game nearest to it is found in closed
form (weighted least squares as in Lundberg, Lee, "A unified approach to interpreting model predictions", NeurIPS 2017,
Theorem 2), with coefficients that all images and classes share.
"""

import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from antehoc_hf.modeling.contribution_map import ClosedFormMap
from antehoc_hf.modeling.map_head import Targets
from antehoc_hf.modeling.modeling_antehoc import AnteHocPreTrainedModel
from antehoc_hf.modeling.scaling import patch_grid
from antehoc_hf.training.attach.equations import NormalEquations
from antehoc_hf.training.attach.judge import Judge, Precision, Setting
from antehoc_hf.training.attach.pairs import Against, Pairs
from antehoc_hf.training.objectives.patches import Background, Sampling, black_of

_PENALTIES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
_SIZES = 4  # columns for what the sizes of the two coalitions of a pair explain
_BATCH = 8
_LEAST_IMAGES = 20


@dataclass(frozen=True)
class FitOptions:
    """Options of [`fit_map`].

    Args:
        pairs (`int`): pairs of coalitions of each image; each costs two passes of the network without gradient.
        likely, random (`int`): how many of its likeliest and of the other classes an image is asked about.
        against (`str`): what a coalition is compared with: `"complement"`, the patches that it leaves, or `"drawn"`,
            another of its size.
        sampling, background (`str`): how coalitions are drawn, see [`CoalitionOptions`]; `"ranked"` needs a map first.
        held_out (`int`): every n-th image does not go into the regression but says how good it is.
        batch_size (`int`, *optional*): images a pass; None: found by a short timing, as the next two.
        channels_last (`bool`, *optional*): memory layout; None: the faster one.
        precision (`str`): `"float32"`, `"bfloat16"`, or `"auto"`: bfloat16 where that is faster and as faithful.
        seed (`int`): of the coalitions and the random classes.
        progress (`bool`): whether to show a bar with the time left and the quality so far.

    Raises:
        ValueError: for a value out of range.
    """

    pairs: int = 8
    likely: int = 3
    random: int = 1
    against: Against = "complement"
    sampling: Sampling = "contiguous"
    background: Background = "mixed"
    held_out: int = 8
    batch_size: int | None = None
    channels_last: bool | None = None
    precision: Precision = "auto"
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        for name, least in (("pairs", 1), ("likely", 1), ("random", 0), ("held_out", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1.")
        for name, choices in (
            ("against", get_args(Against)),
            ("sampling", ("contiguous", "shapley")),
            ("background", get_args(Background)),
            ("precision", get_args(Precision)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, choices))}.")


@dataclass
class FitReport:
    """How the fit went.

    Args:
        images, held_out (`int`): how many went into the regression, and how many judged it.
        coalitions (`int`): images with missing patches that the network has seen.
        seconds (`float`): from beginning to end.
        explained (`dict`): of what pairs of coalitions of held-out images differ by for the predicted class, sizes
            set aside, the share that each map explains: no map (0), class evidence (the start) and the fitted map.
        explained_all (`dict`): the same for all classes asked about.
        penalty (`float`, *optional*): of the ridge regression, chosen on held-out images; None: no regression was
            better than the start, which was kept.
        setting: how the network was run.
        curve (`list`): images seen, seconds, and the share (predicted class, all held-out images) that a map fitted to
            these alone explains.
    """

    images: int
    held_out: int
    coalitions: int
    seconds: float
    explained: dict[str, float]
    explained_all: dict[str, float]
    penalty: float | None
    setting: Setting
    curve: list[tuple[int, float, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        return asdict(self)


def fit_map(
    model: AnteHocPreTrainedModel, images: Iterable[object] | Dataset, options: FitOptions | None = None
) -> FitReport:
    """Fits the map of a finished classifier to what it makes of coalitions of patches. No gradient, no labels; nothing
    but the map's own numbers changes, and the images are read once.

    Args:
        model: an ante-hoc classifier with `map_head={"kind": "contributions", "closed_form": True}`.
        images: normalised images (3, H, W) of one size, or rows with such `pixel_values`: a list, a data set, or
            anything that can be iterated over.
        options ([`FitOptions`], *optional*): how.

    Returns:
        [`FitReport`]: with the share of held-out gains that the map explains.

    Raises:
        ValueError: if the model has another kind of map, there are too few images, or one is not like the others.
    """
    options = options or FitOptions()
    if not isinstance(model.map_head, ClosedFormMap):
        raise ValueError(
            "fit_map fits maps in closed form: build the model with "
            "map_head={'kind': 'contributions', 'closed_form': True}."
        )
    with _evaluation(model):
        return _Fit(model, options).run(images)


@contextmanager
def _evaluation(model: AnteHocPreTrainedModel) -> Iterator[None]:
    """Batch norm and dropout as in use, whatever the model is in now; each module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class _Fit:
    """One run: the sums over the images, of those that teach and of those held out."""

    def __init__(self, model: AnteHocPreTrainedModel, options: FitOptions) -> None:
        self.model, self.head, self.options = model, model.map_head, options
        self.device = next(model.parameters()).device
        size = self.head.coefficients.numel()
        self.taught, self.judged, self.judged_first = (NormalEquations(size + _SIZES) for _ in range(3))
        self.pairs = Pairs(
            options.pairs, options.against, options.sampling, options.background, black_of(model.config), options.seed
        )
        self.nothing: list[Tensor] = []
        self.seen = self.coalitions = 0
        self.steps: list[tuple[int, float, Tensor]] = []
        self.start = torch.zeros(size, dtype=torch.float64)
        self.start[self.head.start_index] = 1.0

    def run(self, images: Iterable[object] | Dataset) -> FitReport:
        began = time.perf_counter()
        count = len(images) if isinstance(images, Sized) else None
        rows: Iterable[object] = images  # type: ignore[assignment]  # a map-style data set is iterated by its positions
        stream = _of_one_size(_pixels(row) for row in rows)
        first = list(islice(stream, 4 * _BATCH))
        if len(first) < _LEAST_IMAGES:
            raise ValueError(
                f"A map is fitted to at least {_LEAST_IMAGES} images, better some hundred, but there are "
                f"{len(first) if count is None else count}."
            )
        self._fit_scale(first)
        judge = self._judge(first, 2 * self.options.pairs * (count or 0))
        bar = tqdm(total=count, desc="Fitting the map", unit="image", disable=not self.options.progress)
        with bar:
            for batch in _batches(chain(first, stream)):
                self._add(batch, judge)
                bar.update(len(batch))
                if self.seen % (16 * _BATCH) == 0:
                    so_far = self.taught.without(_SIZES).solve(1e-2)
                    self.steps.append((self.seen, time.perf_counter() - began, so_far))
                    share = self.judged_first.without(_SIZES).explained(so_far)
                    bar.set_postfix_str(f"explains {share:.1%} of held-out gains")
        return self._finish(judge, began)

    def _fit_scale(self, images: list[Tensor]) -> None:
        """Logits over mean evidence: the median over images of the slope over classes."""
        slopes = []
        for batch in _batches(iter(images)):
            values, targets, logits = self._whole(torch.stack(batch).to(self.device))
            evidence = self.head.mean_evidence(values, targets)
            evidence, logits = (rows - rows.mean(dim=1, keepdim=True) for rows in (evidence, logits.float()))
            slopes.append((evidence * logits).sum(dim=1) / evidence.square().sum(dim=1).clamp_min(1e-12))
        slope = float(torch.cat(slopes).median())
        self.head.logit_scale.fill_(slope if slope > 0 else 1.0)

    def _judge(self, images: list[Tensor], passes: int) -> Judge:
        """Timed on coalitions of the first images."""
        grid = self._grid(images[0])
        few = [self.pairs.draw(image.to(self.device), index, grid)[1][:2] for index, image in enumerate(images[:8])]
        options = self.options
        return Judge(self.model, torch.cat(few), options.batch_size, options.channels_last, options.precision, passes)

    def _grid(self, image: Tensor) -> tuple[int, int]:
        return patch_grid((image.shape[-2], image.shape[-1]), self.head.grid)

    def _whole(self, pixels: Tensor) -> tuple[Tensor, Targets, Tensor]:
        """Of whole images: what the head keeps of the taps, the targets and the logits."""
        with torch.inference_mode():
            outputs = self.model(pixels, phase="task")
            targets = self.model._targets(outputs.logits)
            assert targets is not None
            return outputs.tap_values, targets, outputs.logits

    def _add(self, batch: list[Tensor], judge: Judge) -> None:
        """One batch: coalitions, responses, and their products into the sums."""
        indices = list(range(self.seen, self.seen + len(batch)))
        pixels = torch.stack(batch).to(self.device)
        values, targets, _ = self._whole(pixels)
        classes = self._classes(targets.worth, indices)
        contrasts, gains, nothing = self.pairs.play(pixels, indices, self._grid(batch[0]), judge)
        if not bool(torch.isfinite(gains).all()):
            raise ValueError("The network gives numbers that are not finite: check its weights and the normalisation.")
        with torch.inference_mode():
            responses = self.head.responses(values, targets, classes).flatten(3)
            # What all patches have in common is not a map: it goes with the sizes.
            responses = responses - responses.mean(dim=3, keepdim=True)
            rows = torch.einsum("ntfd,npd->nptf", responses, contrasts.flatten(2))
            larger = contrasts.mean(dim=(2, 3))
            powers = torch.stack([larger, larger**3], dim=2)
            powers = powers[:, :, None].expand(-1, -1, classes.shape[1], -1)
            worth = targets.worth.gather(1, classes)[:, None, :, None]
            rows = torch.cat([rows, powers, powers * worth], dim=3)
            wanted = gains.gather(2, classes[:, None].expand(-1, gains.shape[1], -1))
        for position, index in enumerate(indices):
            held_out = index % self.options.held_out == self.options.held_out - 1
            equations = self.judged if held_out else self.taught
            equations.add(rows[position].flatten(0, 1), wanted[position].flatten())
            if held_out:
                self.judged_first.add(rows[position, :, 0], wanted[position, :, 0])
        self.nothing.append(nothing)
        self.seen += len(batch)
        self.coalitions += 2 * self.options.pairs * len(batch) + 1

    def _classes(self, worth: Tensor, indices: list[int]) -> Tensor:
        """(n, T): the likeliest classes of each image, the predicted one first, then some of the others."""
        count = worth.shape[1]
        likely = min(self.options.likely, count)
        order = worth.argsort(dim=1, descending=True, stable=True)
        drawn = min(self.options.random, count - likely)
        places = [
            likely + torch.randperm(count - likely, generator=self.pairs.generator(-1 - index + 2**32))[:drawn]
            for index in indices
        ]
        return torch.cat([order[:, :likely], order.gather(1, torch.stack(places).to(order.device))], dim=1)

    def _finish(self, judge: Judge, began: float) -> FitReport:
        """Solves, chooses on the held-out images, and never takes what explains less of them than the start."""
        taught, judged, first = (sums.without(_SIZES) for sums in (self.taught, self.judged, self.judged_first))
        start = taught.along(self.start)
        solved: list[tuple[float | None, Tensor]] = [(None, start)]
        solved += [(penalty, taught.solve(penalty)) for penalty in _PENALTIES]
        # Worse for the class that is shown is worse, however well the other classes are explained.
        at_most = first.error(start)
        no_worse = [candidate for candidate in solved if first.error(candidate[1]) <= at_most]
        penalty, chosen = min(no_worse, key=lambda candidate: judged.error(candidate[1]))
        # A start that points the wrong way has nothing to say either, but a map must point somewhere.
        chosen = chosen if bool(chosen.abs().sum() > 0) else self.start
        with torch.no_grad():
            self.head.coefficients.copy_(chosen.view_as(self.head.coefficients))
            self.head.baseline_worth.copy_(torch.cat(self.nothing).mean(dim=0))
        held_out = self.seen // self.options.held_out
        maps = {"no map": torch.zeros_like(start), "class evidence": start, "fitted map": chosen}
        return FitReport(
            images=self.seen - held_out,
            held_out=held_out,
            coalitions=self.coalitions,
            seconds=time.perf_counter() - began,
            explained={name: first.explained(values) for name, values in maps.items()},
            explained_all={name: judged.explained(values) for name, values in maps.items()},
            penalty=penalty,
            setting=judge.setting,
            curve=[(seen, seconds, first.explained(fitted)) for seen, seconds, fitted in self.steps],
        )


def _pixels(row: object) -> Tensor:
    """(3, H, W) of an image, or of a row with its `pixel_values`.

    Raises:
        ValueError: if it is neither.
    """
    pixels = row["pixel_values"] if isinstance(row, dict) and "pixel_values" in row else row
    if not isinstance(pixels, Tensor) or pixels.ndim != 3 or len(pixels) != 3:
        found = tuple(pixels.shape) if isinstance(pixels, Tensor) else type(pixels).__name__
        raise ValueError(f"Each image must be a normalised tensor (3, height, width), not {found}.")
    return pixels


def _of_one_size(images: Iterable[Tensor]) -> Iterator[Tensor]:
    first: Tensor | None = None
    for image in images:
        first = image if first is None else first
        if image.shape != first.shape:
            raise ValueError(
                f"All images must have one size, but there are {tuple(first.shape)} and {tuple(image.shape)}."
            )
        yield image


def _batches(images: Iterator[Tensor]) -> Iterator[list[Tensor]]:
    while batch := list(islice(images, _BATCH)):
        yield batch
