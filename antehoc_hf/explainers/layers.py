"""Which layers a method reads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from antehoc_hf.explainers.activations import with_item
from antehoc_hf.explainers.network import Question
from antehoc_hf.modeling.taps import TapPoint, find_layout

Node = Any  # a node of torch's autograd graph

# A grid of a single position shows nothing.
_LEAST = 2
# Class, distillation and register tokens before the grid.
_MOST_PREFIX_TOKENS = 16
# What is left of a sum whose terms cancel, next to their sizes: rounding, and the epsilon of a normalisation.
_NOTHING_LEFT = 1e-3
# Parts of names that wrappers add.
_WRAPPERS = ("_orig_mod", "module", "timm_model", "_checkpoint_wrapped_module")


@dataclass(frozen=True)
class Layer:
    """One grid of positions that a module hands on.

    Attributes:
        point: where it is.
        grid: rows and columns.
        is_block: the module has parts of its own, some with weights, and is not just a norm or an activation.
        is_member: it is an item of a list or sequence of modules.
        is_activation: it is an activation function.
        inside: the modules that were still running when it ended.
        depends: the grid depends on the image.
        carries: all that the outputs know of the image has passed through it: not so a branch beside a shortcut, or a
            part inside a block.
        reaches: the outputs depend on the grid's positions: not so the patches of a last block of which only the class
            token is read.
        by_itself: how long its features are at a position makes no difference to the outputs: each position is
            normalised by itself behind it, so that gradient times features is zero there.
        same_as (`str`, *optional*): the module inside it whose output it hands on as it is.
    """

    point: TapPoint
    grid: tuple[int, int]
    is_block: bool
    is_member: bool
    is_activation: bool
    inside: frozenset[str]
    depends: bool = True
    carries: bool = True
    reaches: bool = True
    by_itself: bool = False
    same_as: str | None = None


def find_layers(question: Question) -> list[Layer]:
    """Every grid of at least 2×2 positions in the network, in the order in which the modules end.

    One forward and backward pass of a single image of noise: the layers do not depend on the images asked about.
    """
    images = question.images
    noise = torch.randn(1, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    watched = _Watched(question.body, (images.shape[-2], images.shape[-1]))
    first = torch.zeros(1, dtype=torch.long, device=images.device)
    with torch.enable_grad():
        leaf = noise.requires_grad_()
        handles = [
            handle for name, module in question.body.named_modules() if name for handle in watched.hooks(name, module)
        ]
        try:
            outputs = question(leaf, first)
        finally:
            for handle in handles:
                handle.remove()
        if not outputs.requires_grad:
            return watched.layers  # nothing can be said of what depends on what
        # Different weights for the outputs: the sum of probabilities, for one, depends on nothing.
        weights = torch.linspace(1, 2, outputs.numel(), device=outputs.device).view(outputs.shape)
        total = (outputs.float() * weights).sum()
        on_the_way = _on_every_path(total.grad_fn, leaf)
        dependent = [tensor for tensor in watched.tensors if tensor.requires_grad]
        found = torch.autograd.grad(total, dependent, allow_unused=True) if dependent else ()
    slopes = {id(tensor): slope for tensor, slope in zip(dependent, found, strict=True)}
    layers, size = [], (images.shape[-2], images.shape[-1])
    for layer, tensor in zip(watched.layers, watched.tensors, strict=True):
        reaches, by_itself = _touched(tensor.detach(), slopes.get(id(tensor)), layer.point, size)
        depends, carries = tensor.requires_grad, tensor.grad_fn in on_the_way
        layers.append(replace(layer, depends=depends, carries=carries, reaches=reaches, by_itself=by_itself))
    return _in_order(layers, question.body)


def _in_order(layers: list[Layer], body: nn.Module) -> list[Layer]:
    """Without the tokens that are not in the order of rows: Hiera's go by mask units until the last pooling."""
    if not any(hasattr(module, "unroll_schedule") or type(module).__name__ == "Unroll" for module in body.modules()):
        return layers
    coarsest = min((layer.grid for layer in layers if layer.depends), default=(0, 0))
    return [layer for layer in layers if layer.point.layout != "NLC" or layer.grid == coarsest]


def last_layer(question: Question, times_gradient: bool = False) -> TapPoint:
    """The last whole block whose output is a grid of the image that the network's outputs depend on: the last stage of
    a CNN. In a transformer that reads its class token the patches of the last block lead nowhere, so that the block
    before is taken.

    Args:
        times_gradient: for methods that multiply each position's features by their own gradient: where that is zero
            since a normalisation of each position follows, what comes behind the normalisation is read.

    Raises:
        ValueError: if the network has no layer with a grid of positions.
    """
    layers = find_layers(question)
    last = _blocks(question.body, layers)[-1]
    if times_gradient and last.by_itself:
        behind = layers[[layer.point for layer in layers].index(last.point) + 1 :]
        last = next((layer for layer in behind if layer.depends and layer.reaches and not layer.by_itself), last)
    return last.point


def block_ends(question: Question) -> list[TapPoint]:
    """The last features at each resolution, fine to coarse: timm's stages where it names them (in a ResNet the stem's
    activation and layer1…layer4), else the last whole block before the grid shrinks (SISE, phase 1); before the first
    block there is the stem, whose last activation counts. Nothing that comes after [`last_layer`].

    Raises:
        ValueError: if the network has no layer with a grid of positions.
    """
    layers = find_layers(question)
    blocks = _blocks(question.body, layers)
    until = [layer.point for layer in layers].index(blocks[-1].point) + 1
    before = [layer for layer in layers[:until] if layer.depends and layer.reaches]
    timm_names = _timm_names(question.body)
    named = [layer for layer in before if layer.point.module in timm_names]
    stages = list({layer.point.module: layer.point for layer in named}.values())
    if len(stages) > 1:
        return stages if named[-1].grid == blocks[-1].grid else [*stages, blocks[-1].point]
    activations = {layer.grid: layer for layer in before if layer.is_activation and layer.carries}
    ends = activations | {layer.grid: layer for layer in blocks}
    return [layer.point for layer in sorted(ends.values(), key=layers.index)]


def named_layers(question: Question, names: Sequence[str]) -> list[TapPoint]:
    """Layers by the names of their modules, in the order given; what a wrapper adds to a name may be there or not.

    Raises:
        ValueError: if there is no such module, or its output is not a grid of positions.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"layer={names!r} must be the name of a layer, or a list of names.")
    # Of several grids that a module hands on, the one that the outputs are made of.
    layers = sorted(find_layers(question), key=lambda layer: (layer.reaches, layer.carries))
    usable = {layer.point.module: layer for layer in layers if layer.depends}
    return [_named(name, usable, question.body) for name in names]


def _named(name: str, usable: dict[str, Layer], body: nn.Module) -> TapPoint:
    modules = dict(body.named_modules())
    if name not in modules:
        name = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    if name not in modules or not name:
        near = get_close_matches(name, usable, n=3) or list(usable)[-3:]
        raise ValueError(f"layer={name!r} is not a module of the network: did you mean {', '.join(map(repr, near))}?")
    if name not in usable:
        blocks = [module for module, layer in usable.items() if layer.is_block][-3:]
        raise ValueError(
            f"layer={name!r} gives no grid of at least 2×2 positions that depends on the image: use for example "
            f"{', '.join(blocks or list(usable)[-3:])}."
        )
    return usable[name].point


def _blocks(body: nn.Module, layers: list[Layer]) -> list[Layer]:
    """Whole blocks through which everything passes, or what comes nearest to it where there are none.

    Raises:
        ValueError: if there is no layer with a grid.
    """
    return _named_as_timm_does(body, _candidates(layers))


def _candidates(layers: list[Layer]) -> list[Layer]:
    depending = [layer for layer in layers if layer.depends]
    # A block of which only the class token is read: a part of it is not a whole block, unless it is one of a list.
    dead = {layer.point.module for layer in depending if layer.is_member}
    dead -= {layer.point.module for layer in depending if layer.reaches}
    reaching = [
        layer
        for layer in depending
        if layer.reaches and (dead.isdisjoint(layer.inside) or (layer.is_member and layer.is_block and layer.carries))
    ] or depending
    if not reaching:
        raise ValueError("The network has no layer whose output is a grid of at least 2×2 positions: name one.")
    carrying = [layer for layer in reaching if layer.carries]
    # Of two streams side by side neither carries everything: then the members of the outermost list of blocks.
    members = [layer for layer in reaching if layer.is_block and layer.is_member]
    outermost = min((layer.point.module.count(".") for layer in members), default=0)
    members = [layer for layer in members if layer.point.module.count(".") == outermost]
    choices = ([layer for layer in carrying if layer.is_block], members, carrying)
    chosen = next((choice for choice in choices if choice), reaching)
    return [*chosen, *(layer for layer in members if layers.index(layer) > layers.index(chosen[-1]))]


def _named_as_timm_does(body: nn.Module, candidates: list[Layer]) -> list[Layer]:
    """The same tensors, where a module hands on another's output by the name of the kind that timm has for it."""
    kinds = {_without_number(name) for name in _timm_names(body)}
    by_module = {layer.point.module: layer for layer in candidates}
    renamed = []
    for layer in candidates:
        inner: Layer | None = layer
        while inner is not None and _without_number(inner.point.module) not in kinds:
            inner = by_module.get(inner.same_as or "")
        renamed.append(inner or layer)
    return renamed


def _timm_names(body: nn.Module) -> list[str]:
    """The modules at which timm's stages end, in order, also of a network inside another module."""
    known = ((name, getattr(part, "feature_info", None)) for name, part in body.named_modules())
    prefix, info = next(((name, info) for name, info in known if info), ("", []))
    entries = info if isinstance(info, list) else [dict(entry) for entry in info.get_dicts()]
    names = [entry["module"] for entry in entries if isinstance(entry, dict) and "module" in entry]
    return [f"{prefix}.{name}" if prefix else name for name in names]


def _without_number(name: str) -> str:
    """`stages` of `stages.3`."""
    return name.rstrip("0123456789")


class _Watched:
    """Hooks that list the grids a network's modules hand on, with the tensors that were handed on."""

    def __init__(self, body: nn.Module, size: tuple[int, int]) -> None:
        self.layers: list[Layer] = []
        self.tensors: list[Tensor] = []
        self._size = size
        self._prefix = int(getattr(body, "num_prefix_tokens", 0) or 0)
        self._grids: list[tuple[int, int]] = []
        self._calls: dict[str, int] = {}
        self._given: dict[int, str] = {}
        self._running: list[str] = []
        lists = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        self._members = {
            child for module in body.modules() if isinstance(module, lists) for child in module.children()
        }

    def hooks(self, name: str, module: nn.Module) -> list[RemovableHandle]:
        """Hooks a module that is called so."""

        def begin(module: nn.Module, inputs: object) -> None:
            self._running.append(name)

        def end(module: nn.Module, inputs: object, output: object) -> object:
            self._running.pop()
            call = self._calls.get(name, 0)
            self._calls[name] = call + 1
            items = range(len(output)) if isinstance(output, tuple | list) else (None,)
            for item in items:
                tensor = output if item is None else output[item]  # type: ignore[index]
                if isinstance(tensor, Tensor) and (layout := self._layout(tensor)):
                    output = with_item(output, item, self._listed(name, call, item, module, tensor, layout))
            return output

        return [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]

    def _listed(
        self, name: str, call: int, item: int | None, module: nn.Module, tensor: Tensor, layout: dict[str, Any]
    ) -> Tensor:
        placed = {key: layout[key] for key in ("layout", "prefix_tokens", "stride")}
        has_parts = next(module.children(), None) is not None
        handed_on = tensor.clone()
        self.layers.append(
            Layer(
                TapPoint(module=name, call=call, item=item, **placed),
                layout["grid"],
                is_block=has_parts and any(weight.ndim > 1 for weight in module.parameters()),
                is_member=module in self._members,
                is_activation=_is_activation(module),
                inside=frozenset(self._running),
                same_as=self._given.get(id(tensor)),
            )
        )
        self.tensors.append(handed_on)
        self._given[id(handed_on)] = name
        return handed_on

    def _layout(self, tensor: Tensor) -> dict[str, Any] | None:
        """Where the positions are, or None."""
        found = find_layout(tensor, self._size, None, self._prefix)
        if tensor.ndim == 3 and tensor.is_floating_point() and len(tensor) == 1 and self._grids:
            # timm says how many tokens are not positions; then a grid of any proportions that fit is one.
            found = self._layout_of_tokens(tensor.shape[1]) or (found if self._prefix else None)
        if found is None or min(found["grid"]) < _LEAST:
            return None
        # A grid that does not depend on the image, such as a table of position biases, is not one of the image.
        if tensor.requires_grad and found["grid"] not in self._grids:
            self._grids.append(found["grid"])
        return found

    def _layout_of_tokens(self, count: int) -> dict[str, Any] | None:
        """Tokens are the latest grid that fits: one that was seen before, or was halved by merging neighbours, or one
        behind tokens that are not positions. Other tokens, such as learned queries, are not a grid.
        """
        latest = self._grids[::-1]
        halves = [(-(-rows // 2), -(-columns // 2)) for rows, columns in latest]
        halves += [(rows // 2, columns // 2) for rows, columns in latest]
        for prefix in range(_MOST_PREFIX_TOKENS + 1):
            for rows, columns in [*latest, *halves] if prefix == 0 else latest:
                if rows * columns == count - prefix:
                    stride = (self._size[0] / rows, self._size[1] / columns)
                    return {"layout": "NLC", "prefix_tokens": prefix, "stride": stride, "grid": (rows, columns)}
        return None


def _touched(features: Tensor, slope: Tensor | None, point: TapPoint, size: tuple[int, int]) -> tuple[bool, bool]:
    """Whether a gradient with respect to a layer's output differs from zero at any position, and whether nonetheless
    its product with the features is zero at all.
    """
    if slope is None:
        return False, False
    placed = replace(point, item=None)
    slope, features = placed.features(slope, size), placed.features(features, size)
    return bool(slope.ne(0).any()), bool(cancels(slope * features).all())


def cancels(terms: Tensor) -> Tensor:
    """Whether the sums over channels of (B, C, h, w) are next to nothing at all positions of an image, (B,) bool, and
    what is left of them is rounding.
    """
    sums, sizes = terms.sum(dim=1).abs(), terms.abs().sum(dim=1)
    return sums.flatten(1).amax(dim=1) <= _NOTHING_LEFT * sizes.flatten(1).amax(dim=1)


def _is_activation(module: nn.Module) -> bool:
    home = type(module).__module__
    own = home == "torch.nn.modules.activation" and not isinstance(module, nn.MultiheadAttention)
    return own or "activations" in home


def _on_every_path(root: Node, leaf: Tensor) -> set[Node]:
    """The nodes of the autograd graph that lie on every path from the root to a leaf.

    In topological order a node lies on every path exactly if no edge jumps over it.
    """
    order = _topological_order(root)
    reaching: set[Node] = set()
    for node in reversed(order):
        if getattr(node, "variable", None) is leaf or any(following in reaching for following in _next(node)):
            reaching.add(node)
    path = [node for node in order if node in reaching]
    place = {node: index for index, node in enumerate(path)}
    found, furthest = set(), 0
    for index, node in enumerate(path):
        if furthest <= index:
            found.add(node)
        furthest = max([furthest, *(place[following] for following in _next(node) if following in reaching)])
    return found


def _topological_order(root: Node) -> list[Node]:
    """Depth first, without recursion: graphs are thousands of nodes deep."""
    finished: list[Node] = []
    seen = {root}
    stack = [(root, iter(_next(root)))]
    while stack:
        node, following = stack[-1]
        child = next((child for child in following if child not in seen), None)
        if child is None:
            finished.append(node)
            stack.pop()
        else:
            seen.add(child)
            stack.append((child, iter(_next(child))))
    return finished[::-1]


def _next(node: Node) -> Iterable[Node]:
    return [following for following, _ in node.next_functions if following is not None]
