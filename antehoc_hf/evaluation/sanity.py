"""Does the map depend on what the network has learned? If not, it is a picture of the image, not an explanation.

Weights are randomised from the head downwards, one stage after the other, and the maps compared with those of the
trained network; the same comparison (`map_similarity`) serves for two targets, and for networks trained on true and on
random labels.
Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt, Kim, "Sanity Checks for Saliency Maps", NeurIPS 2018.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from antehoc_hf.evaluation.maps import check_maps
from antehoc_hf.evaluation.metric import Metric, given_scores, register_metric
from antehoc_hf.evaluation.networks import evaluation_mode, is_ante_hoc
from antehoc_hf.evaluation.stability import map_similarity

Explain = Callable[[Tensor, Tensor], Tensor]
"""(pixel_values (B, 3, H, W), target (B,)) → maps (B, 1, H, W)."""
MakeExplainer = Callable[[nn.Module], Explain]
"""A model → the explainer of this model, e.g. `lambda model: load_explainer("grad-cam", model)`."""

HEAD = "head"
_NEARLY_ALL = 0.8


def randomisation_steps(model: nn.Module) -> list[tuple[str, tuple[str, ...]]]:
    """The steps of cascading randomisation, from the head down to the input.

    Args:
        model: one of ours (its backbone is meant), a network of timm, or any other (its children are the
            steps; in the place of one that holds nearly all parameters, its children).

    Returns:
        `list`: of (name of the step, names of the parameters that are randomised in it, as `named_parameters` of
            `model` has them). The first step is the classifier alone, named `"head"`, where timm tells which it is.
    """
    prefix, body = _body(model)
    groups = [(name, [prefix + parameter for parameter in group]) for name, group in _groups(body)]
    return [(name, tuple(group)) for name, group in groups if group]


def randomised(model: nn.Module, parameters: Iterable[str], seed: int = 0) -> nn.Module:
    """A copy of the model in which some parameters carry no knowledge any more; the model itself is not touched.

    The entries of each tensor are shuffled. That is a random network whose every tensor has the distribution of the
    trained one, so that numbers stay in range in any architecture (the source draws from the initialiser, which a
    network that is already built does not reveal). What belongs together in a normalisation, scale, shift and running
    statistics of a channel, stays together.

    Args:
        model: any module.
        parameters: names of parameters or of modules, as in `named_parameters` and `named_modules`.
        seed (`int`): of the shuffling.

    Returns:
        `nn.Module`: a deep copy.

    Raises:
        ValueError: if the model has no parameter or module of that name.
    """
    chosen = copy.deepcopy(model)
    _shuffle(chosen, parameters, seed)
    return chosen


def cascade(model: nn.Module, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Cascading randomisation: after each step (its name, the network with this and all earlier steps randomised).

    One copy is used throughout and changes from step to step; the model itself is not touched.

    Args:
        model: see `randomisation_steps`.
        seed (`int`): of the shuffling.
    """
    chosen = copy.deepcopy(model)
    for number, (name, parameters) in enumerate(randomisation_steps(model)):
        _shuffle(chosen, parameters, seed + number)
        yield name, chosen


def randomisation_similarity(
    model: nn.Module, make_explainer: MakeExplainer, pixel_values: Tensor, target: Tensor | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """How much the maps of increasingly randomised networks resemble those of the trained one.

    Args:
        model: see `randomisation_steps`; it is not touched.
        make_explainer: gives the explainer of a model, since explainers hold one.
        pixel_values (`Tensor`): (B, 3, H, W).
        target (`Tensor`, *optional*): (B,) int64. None: what the trained network predicts, also for the others.
        seed (`int`): of the randomisation.

    Returns:
        `dict[str, Tensor]`: by step, the head first: rank correlation (`map_similarity`) of each image, (B,). It
            should fall to 0; a method that ignores the network stays at 1.

    Raises:
        ValueError: if the model gives no logits (B, K) to take the target from, or maps are not finite.
    """
    target = logits_of(model, pixel_values).argmax(dim=1) if target is None else target
    trained = check_maps(make_explainer(model)(pixel_values, target))
    return {
        name: map_similarity(trained, make_explainer(network)(pixel_values, target))
        for name, network in cascade(model, seed)
    }


def target_similarity(explain: Explain, pixel_values: Tensor, target: Tensor, other_target: Tensor) -> Tensor:
    """How much the maps of two classes in one image resemble each other.

    Args:
        explain: `(pixel_values, target) -> maps`.
        pixel_values (`Tensor`): (B, 3, H, W).
        target, other_target (`Tensor`): (B,) int64, different for each image.

    Returns:
        `Tensor`: (B,) rank correlation, see `map_similarity`; 1 for maps that depend on no class.

    Raises:
        ValueError: if the targets are the same for an image, or maps are not finite.
    """
    same = int((target == other_target).sum())
    if same:
        raise ValueError(f"target and other_target are the same class for {same} of {len(target)} images.")
    return map_similarity(explain(pixel_values, target), explain(pixel_values, other_target))


@torch.no_grad()
def logits_of(model: nn.Module, pixel_values: Tensor) -> Tensor:
    """Scores of the classes, (B, K); the model comes back in the mode it was in.

    Raises:
        ValueError: if the model gives no logits (B, K).
    """
    with evaluation_mode(model):
        outputs = model(pixel_values)
    logits = getattr(outputs, "logits", outputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ValueError(f"{type(model).__name__} gives no logits (B, K): pass the target.")
    return logits


def _body(model: nn.Module) -> tuple[str, nn.Module]:
    """The network that predicts, and what its names begin with."""
    return ("backbone.", model.backbone) if is_ante_hoc(model) else ("", model)  # type: ignore[return-value]


def _groups(body: nn.Module) -> list[tuple[str, list[str]]]:
    """Names of parameters, the head's first, in groups that depend on each other in this order."""
    matcher = getattr(body, "group_matcher", None)
    if not callable(matcher):
        children = _children(body, "", _size(body))
        return [(name, [f"{name}.{p}" for p, _ in child.named_parameters()]) for name, child in children[::-1]]
    # timm's own order of depth, from the stem to the head.
    depths = group_parameters(body, matcher(coarse=True))
    head = _head_parameters(body)
    groups = [[name for name in names if name not in head] for _, names in sorted(depths.items(), reverse=True)]
    groups = [group for group in groups if group]
    return [(HEAD, head), *zip(_step_names(groups), groups, strict=True)]


def _children(module: nn.Module, prefix: str, whole: int) -> list[tuple[str, nn.Module]]:
    """Children with parameters; in the place of one that holds nearly the `whole` network, its own."""
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        inner = _children(child, f"{prefix}{name}.", whole) if _size(child) > _NEARLY_ALL * whole else []
        found += inner or ([(prefix + name, child)] if _size(child) else [])
    return found


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _head_parameters(body: nn.Module) -> list[str]:
    names = (getattr(body, "pretrained_cfg", None) or {}).get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    return [name for name, _ in body.named_parameters() if name.startswith(tuple(f"{head}." for head in names))]


def _step_names(groups: list[list[str]]) -> list[str]:
    """For each group the module that most of its parameters are in, by the shortest path that tells it from others."""
    tops = [_most_common_path(group, 1) for group in groups]
    seen = Counter([HEAD, *tops])
    names = [top if seen[top] == 1 else _most_common_path(group, 2) for top, group in zip(tops, groups, strict=True)]
    again = Counter(names)
    return [name if again[name] == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]


def _most_common_path(parameters: list[str], depth: int) -> str:
    return Counter(".".join(name.split(".")[:depth]) for name in parameters).most_common(1)[0][0]


def _shuffle(model: nn.Module, names: Iterable[str], seed: int) -> None:
    """Shuffles parameters in place, and running statistics along with the scale they belong to."""
    generator = torch.Generator().manual_seed(seed)
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    wanted: dict[str, None] = {}
    for name in names:
        if name not in parameters and (name not in modules or not name):
            raise ValueError(f"{type(model).__name__} has no parameter or module {name!r} to randomise.")
        inner = [name] if name in parameters else [f"{name}.{p}" for p, _ in modules[name].named_parameters()]
        wanted.update(dict.fromkeys(inner))
    owners: dict[str, list[str]] = {}
    for name in wanted:
        owner, _, own = name.rpartition(".")
        owners.setdefault(owner, []).append(own)
    for owner, own_names in owners.items():
        module = modules[owner]
        is_norm = getattr(module, "running_mean", None) is not None
        buffers = [buffer for buffer in module.buffers(recurse=False) if buffer.is_floating_point()]
        tensors = [getattr(module, own) for own in own_names] + (buffers if is_norm else [])
        _shuffle_together(tensors, generator)


@torch.no_grad()
def _shuffle_together(tensors: list[Tensor], generator: torch.Generator) -> None:
    """Vectors of one length get one order."""
    orders: dict[tuple[int, bool], Tensor] = {}
    for tensor in tensors:
        kind = (tensor.numel(), tensor.ndim == 1)
        if kind not in orders:
            orders[kind] = torch.randperm(tensor.numel(), generator=generator)
        order = orders[kind].to(tensor.device)
        tensor.copy_(tensor.flatten()[order].view_as(tensor))


_STEP, _CLASS = "One step of `randomisation_similarity(…)`.", "`target_similarity(…)`; 1: maps depend on no class."
register_metric(
    Metric("randomisation_similarity", given_scores, "similarity after randomisation", "lower", _STEP),
    Metric("target_similarity", given_scores, "another class", "lower", _CLASS),
)
