"""One report: do the maps depend on what the network has learned, and on the class that is asked about?"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from antehoc_hf.evaluation.bootstrap import bootstrap_mean
from antehoc_hf.evaluation.controls import center_map, random_map, sobel_map
from antehoc_hf.evaluation.maps import degenerate_maps
from antehoc_hf.evaluation.metric import metric_named
from antehoc_hf.evaluation.results import MapReport, MapRow
from antehoc_hf.evaluation.sanity import MakeExplainer, logits_of, randomisation_similarity, target_similarity
from antehoc_hf.evaluation.stability import max_sensitivity
from antehoc_hf.evaluation.views import Column, column_of

_CONTROLS: dict[str, MakeExplainer] = {
    "random": lambda model: lambda images, target: random_map(images),
    "center": lambda model: lambda images, target: center_map(images),
    "sobel": lambda model: lambda images, target: sobel_map(images),
}


def evaluate_sanity(
    model: nn.Module,
    pixel_values: Tensor,
    make_explainers: Mapping[str, MakeExplainer],
    *,
    seed: int = 0,
    progress: bool = True,
) -> MapReport:
    """Rank correlation of maps before and after each step of randomising the network from the head down, and of the
    maps of the likeliest and the second likeliest class; and the largest relative change of a map in a small box
    around the image.

    A map that explains this network's prediction changes when the network forgets; a map of the image alone (edges)
    does not. A map that depends on no class scores 1 for another class: that is its design, and must be known.

    Args:
        model (`nn.Module`): a classifier; it is not touched.
        pixel_values (`Tensor`): (B, 3, H, W), one batch: some dozens of images tell enough.
        make_explainers (`dict[str, Callable]`): name → function that gives the explainer of a model.
        seed (`int`): of randomisation, draws and intervals.
        progress (`bool`): show a bar.

    Returns:
        `MapReport`: columns `"after head"`, …, `"another class"`, `"max. sensitivity"`; controls in the last rows.

    Raises:
        ValueError: if there is no image or explainer, or the model gives no logits.
    """
    if not len(pixel_values) or not make_explainers:
        raise ValueError("Sanity needs at least one image and one explainer.")
    device = next((parameter.device for parameter in model.parameters()), pixel_values.device)
    pixel_values = pixel_values.to(device)
    target, other = logits_of(model, pixel_values).topk(2, dim=1).indices.unbind(dim=1)
    makers = {**make_explainers, **{name: make for name, make in _CONTROLS.items() if name not in make_explainers}}
    rows, columns = [], dict[str, Column]()
    for name, make in tqdm(makers.items(), desc="Evaluating sanity", unit="method", disable=not progress):
        explain = make(model)
        steps = randomisation_similarity(model, make, pixel_values, target, seed)
        found = {f"after {step}": values for step, values in steps.items()}
        columns |= {f"after {step}": Column(f"after {step} ↓", better="lower") for step in steps}
        for metric, values in (
            ("target_similarity", target_similarity(explain, pixel_values, target, other)),
            ("max_sensitivity", max_sensitivity(lambda x, to=explain: to(x, target), pixel_values, seed=seed)),  # type: ignore[misc]
        ):
            heading = metric_named(metric).heading
            found[heading], columns[heading] = values, column_of(metric_named(metric))
        scores = {
            column: bootstrap_mean(values.double().cpu()[torch.isfinite(values).cpu()], seed=seed)
            for column, values in found.items()
        }
        kind = "explainer" if name in make_explainers else "control"
        empty = int(degenerate_maps(explain(pixel_values, target)).sum())
        rows.append(MapRow(name, kind, scores, degenerate=empty))
    about = "Rank correlation with the trained network's maps, and the largest relative change in a box of ±0.02."
    settings = {"seed": seed, "controls": list(_CONTROLS)}
    count = len(pixel_values)
    return MapReport(count, count, 0, rows, columns, settings, about, in_one_table=True)
