"""The part of a card that machines read: the Hub's YAML, and its files of evaluation results."""

from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from antehoc_hf.model_cards.collect import default_name
from antehoc_hf.model_cards.data import CardData
from antehoc_hf.model_cards.escape import clean, slug
from antehoc_hf.model_cards.measures import TASK_METRICS

EVAL_RESULTS_FILE = ".eval_results/antehoc.yaml"
PIPELINE_TAGS = {
    "image-classification": "image-classification",
    "landmark-detection": "keypoint-detection",
    "image-captioning": "image-to-text",
}
_TAGS = ("vision", "explainability", "interpretability", "saliency-map")
# What the Hub knows as identifiers; any other licence goes by its name.
_LICENSES = frozenset(
    [
        "apache-2.0",
        "mit",
        "openrail",
        "bigscience-openrail-m",
        "creativeml-openrail-m",
        "afl-3.0",
        "artistic-2.0",
        "bsl-1.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "c-uda",
        "cc",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "wtfpl",
        "ecl-2.0",
        "epl-1.0",
        "epl-2.0",
        "eupl-1.1",
        "eupl-1.2",
        "agpl-3.0",
        "gfdl",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl",
        "lgpl-2.1",
        "lgpl-3.0",
        "isc",
        "lppl-1.3c",
        "ms-pl",
        "mpl-2.0",
        "odc-by",
        "odbl",
        "openrail++",
        "osl-3.0",
        "postgresql",
        "ofl-1.1",
        "ncsa",
        "unlicense",
        "zlib",
        "pddl",
        "unknown",
        "other",
    ]
)


def metadata(card: CardData) -> ModelCardData:
    """What the Hub filters and ranks by; nothing that is not known."""
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=PIPELINE_TAGS[card.task],
        tags=["antehoc", *(("timm",) if ":" not in card.backbone else ()), *_TAGS],  # others: torchvision:resnet18
        base_model=card.base_model,
        datasets=[card.data.hub_id] if card.data and card.data.hub_id else None,
        metrics=_metric_names(card) or None,
        **_model_index(card),
        **_license(card.facts.license),
    )


def model_name(card: CardData) -> str:
    """The last part of its name on the Hub, or the one it would have."""
    if card.repo_id:
        return card.repo_id.split("/")[-1]
    return default_name(card.backbone, card.data.name if card.data else None)


def eval_results_file(card: CardData) -> str | None:
    """The Hub's newer form of evaluation results, as YAML; None unless the data set is on the Hub and its task there
    is known (`Facts.benchmark_task`), since the Hub takes results of registered benchmarks only.
    """
    first = next(iter(_told(card)), None)
    if first is None or card.data is None or card.data.hub_id is None or card.facts.benchmark_task is None:
        return None
    entry = EvalResultEntry(
        dataset_id=card.data.hub_id,
        task_id=clean(card.facts.benchmark_task),
        value=first[1],
        dataset_revision=card.data.revision,
        notes=f"{first[0]}, {clean(card.evaluated_on)} split, {card.evaluated_images} images",
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)


def _model_index(card: CardData) -> dict[str, Any]:
    results = _eval_results(card)
    return {"model_name": model_name(card), "eval_results": results} if results else {}


def _license(given: str | None) -> dict[str, Any]:
    if not given or not clean(given):
        return {}
    identifier = clean(given).lower()
    if identifier in _LICENSES:
        return {"license": identifier}
    return {"license": "other", "license_name": slug(given) or "other"}


def _told(card: CardData) -> list[tuple[str, float]]:
    """The task's metrics, the telling one first."""
    values = dict(card.metrics)
    names = [name for name in TASK_METRICS if name in values]
    names.sort(key=lambda name: name != "bleu_4" if card.task == "image-captioning" else False)
    return [(name, values[name]) for name in names]


def _metric_names(card: CardData) -> list[str]:
    known = {"accuracy": "accuracy", "mse": "mse", "mae": "mae", "bleu_4": "bleu"}
    return [known[name] for name, _ in _told(card) if name in known]


def _eval_results(card: CardData) -> list[EvalResult]:
    if card.data is None:
        return []
    kind = {"bleu_4": "bleu"}
    return [
        EvalResult(
            task_type=PIPELINE_TAGS[card.task],
            dataset_type=card.data.hub_id or slug(card.data.name) or "data",
            dataset_name=clean(card.data.name),
            dataset_split=clean(card.evaluated_on) if card.evaluated_on else None,
            dataset_revision=card.data.revision if card.data.hub_id else None,
            metric_type=kind.get(name, name),
            metric_name=TASK_METRICS[name].heading.rstrip(" ↑↓"),
            metric_value=round(value, 6),
        )
        for name, value in _told(card)
    ]
