"""
Captions: how near they come to what people wrote, and how much of their probability survives in the energy map.

Sources: Papineni et al., "BLEU", ACL 2002; Guna R T, Benitez, Sikha, "Ante-Hoc Generation of Task-Agnostic
Interpretation Maps", XAI4CV 2023, Table 4 (Drop and Inc of captions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Regex, normalizers
from torch import Tensor, nn
from tqdm.auto import tqdm

from antehoc_hf.evaluation.bootstrap import bootstrap_means
from antehoc_hf.evaluation.controls import CONTROLS
from antehoc_hf.evaluation.faithfulness import avg_drop_terms, drop_terms, inc_terms, win_terms
from antehoc_hf.evaluation.maps import binarise_equal_area, degenerate_maps, measurable_maps
from antehoc_hf.evaluation.mode import evaluation_mode
from antehoc_hf.evaluation.results import MapRow
from antehoc_hf.evaluation.settings import EvaluationSettings
from antehoc_hf.modeling.configuration_captions import IGNORED

CaptionExplainer = Callable[[Tensor, Tensor], Tensor]
"""(pixel_values (B, 3, H, W), labels (B, T)) → maps (B, 1, H, W) in [0, 1]."""

_MODEL_ROW = "antehoc"
_LONGEST = 4  # BLEU-1 … BLEU-4

# Lower case and no punctuation, as captions of Flickr8k are usually trained on and scored; apostrophes within a word
# stay. The tokenizer of a captioner holds these very steps.
CAPTION_NORMALIZER = normalizers.Sequence(
    [
        normalizers.NFKC(),
        normalizers.Lowercase(),
        normalizers.Replace("’", "'"),
        normalizers.Replace(Regex(r"[^\p{L}\p{M}\p{N}']+"), " "),
        normalizers.Replace(Regex(r"(?<![\p{L}\p{M}\p{N}])'+|'+(?![\p{L}\p{M}\p{N}])"), " "),
    ]
)


def normalise_caption(caption: str) -> str:
    """In lower case, without punctuation, words separated by single spaces."""
    return " ".join(CAPTION_NORMALIZER.normalize_str(caption).split())


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """
    BLEU-1 to BLEU-4 of a corpus, against all references of each image.

    Captions and references are normalised by [`normalise_caption`] and split at spaces; n-grams are clipped by the
    reference that has most of them, the brevity penalty takes the reference nearest in length, and nothing is
    smoothed, as is usual for captions. Computed by sacrebleu.

    Args:
        captions: N of them.
        references: for each, one or more.

    Returns:
        `dict`: `bleu_1` … `bleu_4`, in percent.

    Raises:
        ValueError: if the numbers differ, there is no caption, or an image has no reference.
    """
    from sacrebleu.metrics import BLEU

    if not captions or len(captions) != len(references):
        raise ValueError(
            f"There are {len(captions)} captions and references for {len(references)}: give one for each."
        )
    if not all(references):
        raise ValueError("Every caption needs at least one reference.")
    said = [normalise_caption(caption) for caption in captions]
    most = max(map(len, references))
    # One list for each place among the references; None where an image has fewer of them.
    places: Any = [
        [normalise_caption(own[place]) if place < len(own) else None for own in references] for place in range(most)
    ]
    scores = {}
    for longest in range(1, _LONGEST + 1):
        # Without its own tokenisation; `force` silences a warning about captions that end in " ."
        metric = BLEU(tokenize="none", smooth_method="none", max_ngram_order=longest, force=True)
        scores[f"bleu_{longest}"] = float(metric.corpus_score(said, places).score)
    return scores


def caption_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """
    Length-normalised probability of each caption: exp of the mean of its tokens' log-probabilities.

    Args:
        logits (`Tensor`): (B, T, V), of each token given those before it.
        labels (`Tensor`): (B, T) token ids, -100 where there is none.

    Returns:
        `Tensor`: (B,) float32 in [0, 1]; NaN for a caption without tokens.

    Raises:
        ValueError: if the shapes don't fit.
    """
    if logits.ndim != 3 or labels.shape != logits.shape[:2]:
        raise ValueError(
            f"logits must be (B, T, V) and labels (B, T), but they are {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    counted = labels != IGNORED
    chosen = labels.where(counted, torch.zeros_like(labels))
    said = logits.float().log_softmax(dim=-1).gather(2, chosen[..., None]).squeeze(2)
    return (said.masked_fill(~counted, 0.0).sum(dim=1) / counted.sum(dim=1)).exp()


@dataclass(frozen=True)
class CaptionMapReport:
    """
    How much of the captions' probability the maps keep, beside maps that explain nothing.

    Attributes:
        num_images (`int`): images seen.
        num_invalid (`int`): images on which the model's own probability was not finite; in no mean.
        rows (`list[MapRow]`): the model's own map first, then explainers, then controls.
        settings (`dict`): how it was measured, with the seed.
    """

    num_images: int
    num_invalid: int
    rows: list[MapRow]
    settings: dict[str, Any] = field(default_factory=dict)

    def row(self, name: str) -> MapRow:
        """
        The row of that name.

        Raises:
            KeyError: if there is none.
        """
        found = [row for row in self.rows if row.name == name]
        if not found:
            raise KeyError(f"No row is named {name!r}. There are: {', '.join(row.name for row in self.rows)}.")
        return found[0]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [row.to_dict() for row in self.rows]
        return {
            "num_images": self.num_images, "num_invalid": self.num_invalid, "rows": rows, "settings": self.settings,
        }  # fmt: skip


def evaluate_caption_maps(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    settings: EvaluationSettings | None = None,
    *,
    explainers: Mapping[str, CaptionExplainer] | None = None,
    progress: bool = True,
) -> CaptionMapReport:
    """
    Drop and Inc of the captions' probability under the model's maps, beside controls and other explainers.

    Every map goes through `model.energy_map` and the same network, in evaluation mode without gradients; the words
    are given (teacher forcing). The paper's measures reward bright maps; those of equal area don't.

    Args:
        model (`AnteHocForImageCaptioning`): used on the device it is on, and left in the mode it was in.
        batches: of `{"pixel_values": (B, 3, H, W), "labels": (B, T)}`, -100 after the end.
        settings (`EvaluationSettings`, *optional*): with `target="label"` the labels are the words watched (the
            paper), with `"prediction"` the model's own greedy captions. Of the others `area`, `inc_denominator`,
            `tolerance`, `seed`, `level` and `resamples` are used.
        explainers (`dict[str, Callable]`, *optional*): name → `(pixel_values, labels) -> maps`. They get a row each.
        progress (`bool`): show a bar.

    Raises:
        ValueError: if the model writes no captions, there is no batch, or an explainer has the name of another row.
    """
    settings = settings or EvaluationSettings()
    if not callable(getattr(model, "caption", None)) or not callable(getattr(model, "energy_map", None)):
        raise ValueError(f"evaluate_caption_maps needs a captioner with energy maps, not {type(model).__name__}.")
    taken = sorted({_MODEL_ROW, *CONTROLS} & (explainers or {}).keys())
    if taken:
        raise ValueError(f"The name {taken[0]!r} is taken by a row of the report: give the explainer another one.")
    kinds = {_MODEL_ROW: "model", **dict.fromkeys(explainers or {}, "explainer"), **dict.fromkeys(CONTROLS, "control")}
    found: dict[str, list[dict[str, Tensor]]] = {name: [] for name in kinds}
    p_image: list[Tensor] = []
    seen = 0
    with evaluation_mode(model), torch.no_grad():
        total = len(batches) if isinstance(batches, Sized) else None
        for batch in tqdm(batches, total=total, desc="Evaluating maps", unit="batch", disable=not progress):
            scorer = _CaptionScorer(model, batch, settings, seen)
            p_image.append(scorer.p_image)
            found[_MODEL_ROW].append(scorer.score(scorer.own_map))
            for name, explainer in (explainers or {}).items():
                found[name].append(scorer.score(explainer(scorer.pixel_values, scorer.labels)))
            for name, control in CONTROLS.items():
                found[name].append(scorer.score(control(scorer.pixel_values, settings.seed, seen)))
            seen += len(scorer.pixel_values)
    if not seen:
        raise ValueError("There is nothing to evaluate: the batches held no image.")
    image = torch.cat(p_image)
    rows = [_row(name, kinds[name], image, _joined(parts), settings) for name, parts in found.items()]
    used = ("target", "area", "inc_denominator", "tolerance", "seed", "level", "resamples")
    shown = {name: getattr(settings, name) for name in used}
    return CaptionMapReport(seen, int((~torch.isfinite(image)).sum()), rows, shown)


class _CaptionScorer:
    """One batch: the words watched, their probability, and what is left of it under any map."""

    def __init__(self, model: Any, batch: Mapping[str, Any], settings: EvaluationSettings, first_index: int) -> None:
        for name in ("pixel_values", "labels"):
            if batch.get(name) is None:
                raise ValueError(f'Every batch needs "{name}", but this one holds {", ".join(map(repr, batch))}.')
        self._model, self._settings, self._first_index = model, settings, first_index
        self.pixel_values = batch["pixel_values"].to(device=model.device, dtype=model.dtype)
        encoded = model.encode(self.pixel_values)
        self.own_map: Tensor = encoded.interpretation_map
        if settings.target == "label":
            self.labels = batch["labels"].to(model.device)
        else:
            sequences = model.generate(pixel_values=self.pixel_values, encoder_outputs=encoded)
            self.labels = sequences[:, 1:].masked_fill(sequences[:, 1:] == model.config.pad_token_id, IGNORED)
        outputs = model(labels=self.labels, encoder_outputs=encoded)
        self.p_image = caption_probability(outputs.logits, self.labels).double().cpu()

    def score(self, maps: Tensor) -> dict[str, Tensor]:
        """What a map keeps, (B,) by name."""
        raw, maps = measurable_maps(maps, self.pixel_values)
        values = {
            "degenerate": degenerate_maps(raw),
            "map_mean": maps.mean(dim=(1, 2, 3)),
            "p_energy": self._probability(maps),
        }
        if self._settings.area is not None:
            seed, first = self._settings.seed, self._first_index
            kept = binarise_equal_area(maps, self._settings.area, seed=seed, first_index=first)
            values["equal_area_p_energy"] = self._probability(kept)
        return {name: value.double().cpu() for name, value in values.items()}

    def _probability(self, mask: Tensor) -> Tensor:
        pooled = self._model.backbone(self._model.energy_map(self.pixel_values, mask))
        outputs = self._model(labels=self.labels, encoder_outputs={"last_hidden_state": pooled.unsqueeze(1)})
        return caption_probability(outputs.logits, self.labels)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _row(name: str, kind: str, image: Tensor, row: dict[str, Tensor], settings: EvaluationSettings) -> MapRow:
    columns, invalid = {"map_mean": row["map_mean"]}, torch.zeros_like(image, dtype=torch.bool)
    for key in [key for key in row if key.endswith("p_energy")]:
        prefix, energy = key.removesuffix("p_energy"), row[key]
        usable = torch.isfinite(image) & torch.isfinite(energy)
        invalid |= torch.isfinite(image) & ~usable
        pair = image[usable], energy[usable]
        terms = {
            "drop_cond": drop_terms(*pair, settings.tolerance),
            "inc_cond": inc_terms(*pair, settings.inc_denominator, settings.tolerance),
            "win": win_terms(*pair, settings.tolerance),
            "avg_drop": avg_drop_terms(*pair, settings.tolerance),
        }
        for measure, values in terms.items():
            columns[prefix + measure] = torch.full_like(image, math.nan).masked_scatter(usable, values)
    stacked = torch.stack(list(columns.values()), dim=1)
    included = torch.isfinite(stacked) & torch.isfinite(image)[:, None]
    estimates = bootstrap_means(stacked, included, settings.level, settings.resamples, settings.seed)
    scores = dict(zip(columns, estimates, strict=True))
    return MapRow(name, kind, scores, degenerate=int(row["degenerate"].sum()), invalid=int(invalid.sum()))
