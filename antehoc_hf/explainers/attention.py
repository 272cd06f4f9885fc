"""Attention rollout and gradient-weighted attention: which patches the tokens that a transformer reads are made of."""

from abc import abstractmethod
from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from types import MethodType
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from antehoc_hf.evaluation.networks import is_ante_hoc
from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.layers import find_layers
from antehoc_hf.explainers.network import ModelOptions, Question
from antehoc_hf.explainers.options import at_least_one
from antehoc_hf.passes import images_a_pass

Score = Callable[[Tensor], Tensor]  # outputs of the network → (B,)

_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__)
_ROUNDING = 1e-3  # how far from 1 the attention of a token may sum up to


@dataclass(frozen=True)
class Tokens:
    """How a network's attention is laid out.

    Attributes:
        calls: which products with weights are its attention, counted from 0 in the order of a forward pass.
        grid: rows and columns of patches.
        prefix: class, distillation and register tokens in front of the grid.
        read (`Tensor`): (Q,) the share of each query of the last attention in what the head reads; they sum to 1, or
            to 0 if it reads nothing.
    """

    calls: tuple[int, ...]
    grid: tuple[int, int]
    prefix: int
    read: Tensor


class AttentionExplainer(Explainer):
    """A method that multiplies the attention of all layers, from the tokens that the head reads back to the patches.

    The gradient behind the last attention tells what is read: the class token; class and distillation token; the
    patches, which together count as one token; or the query of an attention that pools them.

    Args:
        batch_size (`int`): images a pass at most; fewer of large images on a CPU. Every layer's attention is kept.

    Raises:
        ValueError: if the model is not one that can be explained; if its attention is not global over one grid of
            patches, which is found out when called where the size of images is not known before.
    """

    float32 = True  # many small weights, multiplied
    scale: ClassVar[float]
    """What the sum of a token and what it attends to is multiplied by in each layer."""

    def __init__(self, model: nn.Module, batch_size: int = 16, **options: Unpack[ModelOptions]) -> None:
        super().__init__(model, **options)
        self.batch_size = at_least_one(batch_size=batch_size)
        self._found: dict[tuple[int, ...], Tokens] = {}
        # Ours know the size of their images: refused at once, not after hours of other measures. Captions need images.
        if is_ante_hoc(self.network.model) and self.network.kind != "captions":
            self.explain(torch.zeros(1, 3, *self.network.config.image_size))

    def raw_maps(self, question: Question) -> RawMaps:
        _make_readable(question.model)
        images, size = question.images, tuple(question.images.shape[1:])
        tokens = self._found.get(size) or _find_tokens(question, self.name)
        if tokens.read.any():  # a head that reads nothing yet may still be trained
            self._found[size] = tokens
        every = torch.arange(len(images), device=images.device)
        parts = every.split(images_a_pass(images, self.batch_size))
        scores: list[Score] = [question.own_score]
        if len(parts) > 1 or self.network.kind == "captions":  # a caption is written before attention is read
            target = question.target(question(images))
            scores = [target.select(at).score for at in parts]
        rows = [
            _followed_back(tokens, self._matrices(question, tokens, at, score), self.scale)
            for at, score in zip(parts, scores, strict=True)
        ]
        return RawMaps(torch.cat(rows)[:, tokens.prefix :].unflatten(1, tokens.grid))

    @abstractmethod
    def _matrices(self, question: Question, tokens: Tokens, at: Tensor, score: Score) -> list[Tensor]:
        """(n, Q, N) of each layer: how much each token takes of each other one, besides being itself."""


class AttentionRollout(AttentionExplainer):
    """Attention rollout (Abnar, Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, Section 3): the
    product over layers of (A + I) / 2, where A is the mean over heads. It is the same for every target.
    """

    name = "attention-rollout"
    scale = 0.5

    def _matrices(self, question: Question, tokens: Tokens, at: Tensor, score: Score) -> list[Tensor]:
        with _Attention(tokens.calls, mean=True) as attention:
            score(question(question.images[at], at))  # for its errors alone
        return list(attention.seen.values())


class GradientAttention(AttentionExplainer):
    """Gradient-weighted attention (Chefer, Gur, Wolf, "Generic Attention-model Explainability for Interpreting
    Bi-Modal and Encoder-Decoder Transformers", ICCV 2021, Eq. 5 and 6): R ← R + E R, layer by layer, where E is the
    mean over heads of the positive part of the attention times its gradient of the score.
    """

    name = "gradient-attention"
    scale = 1.0

    def _matrices(self, question: Question, tokens: Tokens, at: Tensor, score: Score) -> list[Tensor]:
        with torch.enable_grad():
            with _Attention(tokens.calls) as attention:
                total = score(question(question.images[at], at)).sum()
            weights = list(attention.seen.values())
            slopes = torch.autograd.grad(total, weights, allow_unused=True, materialize_grads=True)
        return [(slope * one.detach()).relu().mean(dim=1) for slope, one in zip(slopes, weights, strict=True)]


def _followed_back(tokens: Tokens, matrices: list[Tensor], scale: float) -> Tensor:
    """How much of each token is in what is read, (n, N), by way of other tokens: what of the patches is read directly
    is the same of each.
    """
    direct = tokens.read.expand(len(matrices[0]), 1, -1)
    gained = torch.zeros_like(direct)
    for matrix in reversed(matrices):
        taken = (direct + gained) @ matrix
        if matrix.shape[1] == matrix.shape[2]:
            direct, gained = scale * direct, scale * (gained + taken)
        else:  # a query that pools is no token itself, and need not pool those in front of the grid
            gained = F.pad(taken, (matrices[0].shape[2] - taken.shape[2], 0))
            direct = torch.zeros_like(gained)
    return gained.squeeze(1)


class _Attention(TorchFunctionMode):
    """Keeps the attention that values are multiplied by, in this thread, and writes out what is fused.

    Args:
        calls: the products that are attention; None: those whose rows sum to 1.
        mean: whether the mean over heads is kept.
    """

    def __init__(self, calls: Collection[int] | None = None, mean: bool = False) -> None:
        super().__init__()
        self.seen: dict[int, Tensor] = {}  # call → (B, heads, Q, N), or (B, Q, N)
        self._calls, self._mean, self._count = calls, mean, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._product(*_written_out(*args, **(kwargs or {})))
        if func in _PRODUCTS and len(args) == 2 and all(isinstance(one, Tensor) and one.ndim == 4 for one in args):
            return self._product(*args)
        return func(*args, **(kwargs or {}))

    def _product(self, weights: Tensor, values: Tensor) -> Tensor:
        call, self._count = self._count, self._count + 1
        if _is_attention(weights) if self._calls is None else call in self._calls:
            if torch.is_grad_enabled() and not weights.requires_grad:
                weights = weights.detach().requires_grad_()  # the graph begins at the first attention
            self.seen[call] = weights.mean(dim=1) if self._mean else weights
        return weights @ values


def _is_attention(weights: Tensor) -> bool:
    rows = weights.detach().float()
    return bool((rows >= 0).all() and ((rows.sum(dim=-1) - 1).abs() < _ROUNDING).all()) and rows.shape[-1] > 1


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """The weights and values of `F.scaled_dot_product_attention`, whose arguments these are."""
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], dim=-3) for part in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(dim=-1), value


def _make_readable(model: nn.Module) -> None:
    """Lets a private copy of a model attend by functions of torch, which [`_Attention`] sees."""
    copies: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.forward = MethodType(_self_attention, module)  # type: ignore[method-assign]
        config: Any = getattr(module, "config", None)
        if getattr(config, "_attn_implementation", "eager") not in ("eager", "sdpa", None):
            config = deepcopy(config, copies)  # so far the copy of the module has the user's own
            module.config, config._attn_implementation = config, "eager"


def _self_attention(
    attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, *given: Any, **named: Any
) -> Any:
    """What torch's own module computes in a single function: here of a batch that attends to itself without masks, as
    in torchvision's transformers.
    """
    masked = any(isinstance(one, Tensor) for one in (*given, *named.values(), attention.bias_k))
    if masked or not (query is key is value and attention.batch_first) or attention.add_zero_attn:
        return type(attention).forward(attention, query, key, value, *given, **named)
    projected = F.linear(query, attention.in_proj_weight, attention.in_proj_bias)
    heads = projected.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(*heads)
    return attention.out_proj(attended.transpose(1, 2).flatten(2)), None


def _find_tokens(question: Question, name: str) -> Tokens:
    """How a network's attention is laid out, from passes of a single image of noise.

    Raises:
        ValueError: if it has none that is global over one grid of patches, or its outputs have no gradient.
    """
    layers, images = find_layers(question), question.images
    noise = torch.randn(1, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    with torch.enable_grad():
        with _Attention() as attention:
            outputs = question(noise, torch.zeros(1, dtype=torch.long, device=images.device))
        slopes = _slopes(attention.seen, outputs)
    shapes = [tuple(slope.shape) for slope in slopes.values()]
    count = shapes[0][-1] if shapes else 0
    grids = [(layer.grid, layer.point.prefix_tokens) for layer in layers if layer.depends]
    fitting = [(grid, prefix) for grid, prefix in grids if grid[0] * grid[1] + prefix == count]
    if not fitting or not _is_global(shapes, count, fitting[-1][1]):
        raise ValueError(
            f"{type(question.network.model).__name__} has no global self-attention over one grid of patches, layer "
            f"after layer, of which {name!r} is made: use a method for any network, such as 'grad-cam' or 'rise'."
        )
    (grid, prefix), last = fitting[-1], list(slopes.values())[-1]
    read = last.ne(0).any(dim=3).flatten(0, 1).any(dim=0).float()
    if len(read) == count and read[prefix:].any():
        read[prefix:] = 1 / (count - prefix)  # the patches together as much as one token
    return Tokens(tuple(slopes), grid, prefix, read / read.sum().clamp_min(1))


def _slopes(seen: dict[int, Tensor], outputs: Tensor) -> dict[int, Tensor]:
    """The gradient of the outputs with respect to the attention that they depend on; none where a layer's attention
    does not depend on that of the layer before, as in branches.

    Raises:
        ValueError: if the outputs have no gradient.
    """
    if not seen:
        return {}
    if not outputs.requires_grad:
        raise ValueError(
            "The network's outputs have no gradient with respect to its attention (torch.no_grad in its forward "
            "pass?): use a method without gradients such as 'rise'."
        )
    # Different weights for the outputs: the sum of probabilities, for one, depends on nothing.
    total = (outputs.float().flatten() * torch.linspace(1, 2, outputs.numel(), device=outputs.device)).sum()
    slopes = torch.autograd.grad(total, list(seen.values()), retain_graph=True, allow_unused=True)
    found = {call: slope for call, slope in zip(seen, slopes, strict=True) if slope is not None}
    for before, after in pairwise(found):
        if torch.autograd.grad(seen[after].sum(), seen[before], retain_graph=True, allow_unused=True)[0] is None:
            return {}
    return found


def _is_global(shapes: list[tuple[int, ...]], count: int, prefix: int) -> bool:
    """Whether each layer's weights (1, heads, Q, N) are of all tokens for all tokens, except the last, if it pools all
    tokens or all behind those in front of the grid.
    """
    *layers, last = ((shape[0], *shape[2:]) if len(shape) == 4 else () for shape in shapes)
    pooling = [(1, queries, keys) for queries in range(1, count - prefix) for keys in (count, count - prefix)]
    every = (1, count, count)
    return all(shape == every for shape in layers) and (last == every or (bool(layers) and last in pooling))
