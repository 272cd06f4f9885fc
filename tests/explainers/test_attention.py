"""Attention rollout and gradient-weighted attention, by hand, on every kind of vision transformer."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from helpers import ATTENTION, assert_as_it_was, state_of
from timm.models.vision_transformer import ParallelThingsBlock
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from antehoc_hf import AnteHocForImageClassification
from antehoc_hf.evaluation.maps import minmax_maps
from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocForLandmarkDetection

TWO_LAYERS: dict[str, Any] = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3}


def images(count: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """In evaluation mode, with weights so large that attention and outputs differ from token to token."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def by_hand(model: Any, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What leaves the last block of one of timm's transformers, and each block's attention, matrix by matrix."""
    tokens = model.patch_embed(pixels)
    prefix = [
        token.expand(len(pixels), -1, -1)
        for token in (model.cls_token, getattr(model, "dist_token", None))
        if token is not None
    ]
    tokens, attention = torch.cat([*prefix, tokens], dim=1) + model.pos_embed, []
    for block in model.blocks:
        qkv = block.norm1(tokens) @ block.attn.qkv.weight.T + block.attn.qkv.bias
        query, key, value = (part.unflatten(2, (3, 4)).transpose(1, 2) for part in qkv.split(12, dim=2))
        attention.append((query @ key.transpose(2, 3) / 2).softmax(dim=3))
        tokens = tokens + block.attn.proj((attention[-1] @ value).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.norm2(tokens))
    return tokens, attention


def as_map(row: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    return minmax_maps(F.interpolate(row.reshape(-1, 1, *grid), size=size, mode="bilinear")).float()


def rolled_out(attention: list[Tensor]) -> Tensor:
    """(B, N, N)."""
    product = torch.eye(attention[0].shape[-1]).to(attention[0])
    for one in attention:
        mixed = one.mean(dim=1) + torch.eye(one.shape[-1])
        product = (mixed / mixed.sum(dim=2, keepdim=True)) @ product
    return product


def relevance(score: Tensor, attention: list[Tensor]) -> Tensor:
    """(B, N, N)."""
    product = torch.eye(attention[0].shape[-1]).to(attention[0])
    for one, slope in zip(attention, torch.autograd.grad(score.sum(), attention), strict=True):
        product = product + (slope * one.detach()).clamp(min=0).mean(dim=1) @ product
    return product


def read_rows(matrix: Tensor, pool: str) -> Tensor:
    """The patches of what is read: of the class token, of it and the distillation token, or of the mean patch."""
    return {
        "token": matrix[:, 0, 1:],
        "distilled": matrix[:, :2, 2:].mean(dim=1),
        "avg": matrix[:, 1:, 1:].mean(dim=1),
        "no class token": matrix.mean(dim=1),
    }[pool]


TIMM = {
    "token": lambda: timm.models.VisionTransformer(**TWO_LAYERS, num_classes=4),
    "avg": lambda: timm.models.VisionTransformer(**TWO_LAYERS, num_classes=4, global_pool="avg"),
    "no class token": lambda: timm.models.VisionTransformer(
        **TWO_LAYERS, num_classes=4, global_pool="avg", class_token=False
    ),
    "distilled": lambda: timm.models.deit.VisionTransformerDistilled(**TWO_LAYERS, num_classes=4),
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("pool", TIMM)
def test_the_values_of_two_layers(pool: str, fused: bool) -> None:
    model: Any = seeded(TIMM[pool])
    for block in model.blocks:
        block.attn.fused_attn = fused
    pixels = images(2, 32, 48)
    exact = copy.deepcopy(model).double()
    tokens, attention = by_hand(exact, pixels.double())
    logits = exact.forward_head(exact.norm(tokens))
    assert torch.allclose(logits.float(), model(pixels), atol=1e-5)
    rollout = as_map(read_rows(rolled_out(attention), pool).detach(), (32, 48), (4, 6))
    assert torch.allclose(load_explainer("attention-rollout", model)(pixels), rollout, atol=1e-4)
    expected = as_map(read_rows(relevance(logits[[0, 1], [3, 1]], attention), pool), (32, 48), (4, 6))
    explainer = load_explainer("gradient-attention", model)
    assert torch.allclose(explainer(pixels, [3, 1]), expected, atol=1e-4)
    assert not torch.allclose(explainer(pixels, [2, 0]), expected, atol=0.1)
    assert torch.equal(
        load_explainer("attention-rollout", model)(pixels, 0), load_explainer("attention-rollout", model)(pixels, 3)
    )
    assert all(block.attn.fused_attn is fused for block in model.blocks)


def test_an_attention_that_pools_is_followed_to_the_patches() -> None:
    """As in SigLIP: of its query there is no identity, and what it takes of a token is what that is made of."""
    model: Any = seeded(
        lambda: timm.models.VisionTransformer(**TWO_LAYERS, num_classes=4, global_pool="map", class_token=False)
    )
    pixels = images(2, 32, 48)
    tokens, attention = by_hand(model, pixels)
    pool, tokens = model.attn_pool, model.norm(tokens)
    query = pool.q(pool.latent.expand(2, -1, -1)).unflatten(2, (3, 4)).transpose(1, 2)
    key = pool.kv(tokens)[..., :12].unflatten(2, (3, 4)).transpose(1, 2)
    pooled = (query @ key.transpose(2, 3) / 2).softmax(dim=3).mean(dim=1)
    expected = as_map((pooled @ rolled_out(attention)).detach(), (32, 48), (4, 6))
    assert torch.allclose(load_explainer("attention-rollout", model)(pixels), expected, atol=1e-4)
    assert not load_explainer("gradient-attention", model).explain(pixels).degenerate.any()


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 5}
TRANSFORMERS = {
    "vit": (lambda: ViTForImageClassification(ViTConfig(**SMALL, image_size=64)), lambda R: R[:, 0, 1:]),
    "deit": (lambda: DeiTForImageClassification(DeiTConfig(**SMALL, image_size=64)), lambda R: R[:, 0, 2:]),
    "deit, two heads": (
        lambda: DeiTForImageClassificationWithTeacher(DeiTConfig(**SMALL, image_size=64)),
        lambda R: R[:, :2, 2:].mean(dim=1),
    ),
    "dinov2": (
        lambda: Dinov2WithRegistersForImageClassification(
            Dinov2WithRegistersConfig(**SMALL, image_size=64, patch_size=16)
        ),
        lambda R: (R[:, 0, 5:] + R[:, 5:, 5:].mean(dim=1)) / 2,
    ),
}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_the_values_are_those_of_transformers_own_attention(kind: str) -> None:
    make, read = TRANSFORMERS[kind]
    model: Any = seeded(make)
    assert model.config._attn_implementation == "sdpa"
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    outputs = eager(images(), output_attentions=True)
    rollout = as_map(read(rolled_out(list(outputs.attentions))).detach(), (64, 64), (4, 4))
    expected = as_map(read(relevance(outputs.logits[:, 2], list(outputs.attentions))), (64, 64), (4, 4))
    for one in (model, eager):
        assert torch.allclose(load_explainer("attention-rollout", one)(images()), rollout, atol=1e-4)
        assert torch.allclose(load_explainer("gradient-attention", one)(images(), 2), expected, atol=1e-3)


def test_torchvisions_transformers() -> None:
    model: Any = seeded(lambda: torchvision.models.VisionTransformer(64, 16, 2, 2, 16, 32, num_classes=5))
    given: list[Tensor] = []
    norms = [layer.ln_1 for layer in model.encoder.layers]
    handles = [norm.register_forward_hook(lambda module, inputs, output: given.append(output)) for norm in norms]
    with torch.no_grad():
        model(images())
        attention = [
            layer.self_attention(tokens, tokens, tokens, average_attn_weights=False)[1]
            for layer, tokens in zip(model.encoder.layers, given, strict=True)
        ]
    for handle in handles:
        handle.remove()
    expected = as_map(rolled_out(attention)[:, 0, 1:], (64, 64), (4, 4))
    assert torch.allclose(load_explainer("attention-rollout", model)(images()), expected, atol=1e-4)
    assert not load_explainer("gradient-attention", model).explain(images()).degenerate.any()


# -- any model, as it was ---------------------------------------------------------------------------------------


def tiny_vit() -> nn.Module:
    return timm.create_model("test_vit", num_classes=5, img_size=64)


def wrapped() -> nn.Module:
    config = TimmWrapperConfig(architecture="test_vit", num_labels=5, model_args={"img_size": 64})
    return TimmWrapperForImageClassification(config)


def ours(backbone: str = "test_vit", **options: Any) -> AnteHocForImageClassification:
    return AnteHocForImageClassification.from_backbone(backbone, num_labels=5, image_size=64, **options)


MODELS = {
    "timm": tiny_vit,
    "timm, registers, a pooling query": lambda: timm.create_model("test_vit3", num_classes=5, img_size=64),
    "timm in transformers": wrapped,
    "ours": ours,
    "ours, registers, mean": lambda: ours("test_vit2"),
    "transformers": TRANSFORMERS["vit"][0],
}


@pytest.mark.parametrize("method", ATTENTION)
@pytest.mark.parametrize("kind", MODELS)
def test_each_image_by_itself_and_the_model_as_it_was(kind: str, method: str) -> None:
    model = seeded(MODELS[kind]).train()
    next(model.children()).eval()
    next(model.parameters()).requires_grad_(False)
    before = state_of(model)
    flags = [(getattr(module, "fused_attn", None), vars(module).copy()) for module in model.modules()]
    explainer = load_explainer(method, model)
    explained = explainer.explain(images(3), [0, 3, 1])
    assert explained.maps.shape == (3, 1, 64, 64)
    assert torch.allclose(explained.maps.amax(dim=(1, 2, 3)), torch.ones(3))
    alone = torch.cat([explainer(images(3)[at : at + 1], target) for at, target in enumerate([0, 3, 1])])
    assert torch.allclose(explained.maps, alone, atol=1e-3)
    by_twos = load_explainer(method, model, batch_size=2)(images(3), [0, 3, 1])
    assert torch.allclose(explained.maps, by_twos, atol=1e-3)
    assert_as_it_was(model, before)
    assert flags == [(getattr(module, "fused_attn", None), vars(module)) for module in model.modules()]
    if (config := getattr(model, "config", None)) is not None:
        assert config._attn_implementation in ("sdpa", "eager", None)


@pytest.mark.parametrize("method", ATTENTION)
def test_an_attention_that_torch_does_not_know_gives_way_in_a_copy(method: str) -> None:
    """As flash attention's kernels, which hand out no weights."""

    def foreign(module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        weights = (torch.einsum("bhqd,bhkd->bhqk", query, key) * module.scaling).softmax(dim=-1)
        return torch.einsum("bhqk,bhkd->bqhd", weights, value).contiguous(), None

    AttentionInterface.register("foreign", foreign)
    model: Any = seeded(TRANSFORMERS["vit"][0])
    expected = load_explainer(method, model)(images(), 1)
    model.set_attn_implementation("foreign")
    assert torch.allclose(load_explainer(method, model)(images(), 1), expected, atol=1e-4)
    assert {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")} == {
        "foreign"
    }


@pytest.mark.parametrize("method", ATTENTION)
def test_only_the_weights_of_a_transformer_in_half_precision_are_rounded(method: str) -> None:
    half = seeded(tiny_vit).bfloat16()
    expected = load_explainer(method, copy.deepcopy(half).float())(images().bfloat16().float(), 1)
    assert torch.equal(load_explainer(method, half)(images().bfloat16(), 1), expected)
    assert next(half.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("method", ATTENTION)
def test_a_reloaded_model_has_the_same_map(method: str, tmp_path: Path) -> None:
    model = seeded(ours)
    expected = load_explainer(method, model)(images(), 2)
    model.save_pretrained(tmp_path)
    reloaded = AnteHocForImageClassification.from_pretrained(tmp_path).eval()
    assert torch.allclose(load_explainer(method, reloaded)(images(), 2), expected, atol=1e-5)


@pytest.mark.parametrize("method", ATTENTION)
def test_threads_images_of_several_sizes_and_inference_mode(method: str) -> None:
    model = seeded(lambda: timm.create_model("test_vit", num_classes=5, img_size=64, dynamic_img_size=True))
    explainer = load_explainer(method, model)
    sizes = [(64, 64), (64, 96), (32, 48)] * 4
    expected = [load_explainer(method, model)(images(1, *size), 1) for size in sizes]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda size: explainer(images(1, *size), 1), sizes))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected, strict=True))
    with torch.inference_mode():
        assert torch.allclose(explainer(images(1, 64, 96), 1), expected[1], atol=1e-5)


# -- other tasks, and what cannot be explained -----------------------------------------------------------------


@pytest.mark.parametrize("method", ATTENTION)
def test_landmarks_and_captions(method: str) -> None:
    points = seeded(lambda: AnteHocForLandmarkDetection.from_backbone("test_vit", image_size=64, num_landmarks=4))
    words = {"vocab_size": 12, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_caption_length": 6}
    writer = seeded(lambda: AnteHocForImageCaptioning.from_backbone("test_vit", image_size=64, **words))
    sentence = torch.tensor([1, 5, 7, 9, 2])
    for model, targets in ((points, (0, [1, 2])), (writer, ((sentence, 0), (sentence, 3)))):
        explainer = load_explainer(method, model)
        own = explainer.explain(images())
        assert not own.degenerate.all()
        assert torch.allclose(explainer(images()), own.maps, atol=1e-4)
        first, second = (explainer(images(), target) for target in targets)
        assert first.shape == (2, 1, 64, 64)
        assert torch.allclose(first, second, atol=1e-3) == (method == "attention-rollout")


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm.create_model("test_resnet"),
        lambda: timm.models.MlpMixer(img_size=32, patch_size=8, num_blocks=1, embed_dim=8),
        lambda: timm.models.SwinTransformer(32, 2, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4),
        lambda: timm.models.Cait(32, 8, embed_dim=8, depth=1, num_heads=2),
        lambda: timm.models.Xcit(32, 8, embed_dim=8, depth=1, num_heads=2),
        lambda: timm.models.VisionTransformer(32, 8, embed_dim=8, depth=2, num_heads=2, block_fn=ParallelThingsBlock),
        lambda: timm.models.VisionTransformer(32, 8, embed_dim=8, depth=2, num_heads=2, attn_layer="diff"),
    ],
    ids=["convolutions", "mixer", "windows", "class attention", "channels", "branches", "differences"],
)
def test_networks_without_global_attention(make: Callable[[], nn.Module]) -> None:
    for method in ATTENTION:
        with pytest.raises(ValueError, match=f"has no global self-attention .*{method}.* use a method .*'grad-cam'"):
            load_explainer(method, make().eval())(images(1, 32, 32))


@pytest.mark.parametrize("method", ATTENTION)
def test_a_model_of_ours_without_attention_is_refused_before_there_are_images(method: str) -> None:
    with pytest.raises(ValueError, match="AnteHocForImageClassification has no global self-attention"):
        load_explainer(method, ours("test_resnet"))


@pytest.mark.parametrize("method", ATTENTION)
def test_wrong_targets_and_options(method: str) -> None:
    with pytest.raises(ValueError, match="target 5 is none of the model's 5 classes"):
        load_explainer(method, tiny_vit())(images(), 5)
    with pytest.raises(ValueError, match="batch_size=0 must be a whole number"):
        load_explainer(method, tiny_vit(), batch_size=0)
    with pytest.raises(ValueError, match="has no option 'layer'"):
        load_explainer(method, tiny_vit(), layer="blocks.1")


@pytest.mark.parametrize("method", ATTENTION)
def test_a_head_that_reads_nothing_until_it_is_trained(method: str) -> None:
    model: Any = seeded(tiny_vit)
    head = copy.deepcopy(model.head)
    nn.init.zeros_(model.head.weight)
    explainer = load_explainer(method, model)
    explained = explainer.explain(images(), 1)
    assert explained.degenerate.all()
    assert not explained.maps.any()
    model.head.load_state_dict(head.state_dict())
    assert not explainer.explain(images(), 1).degenerate.any()


@pytest.mark.parametrize("method", ATTENTION)
def test_an_image_that_is_not_a_number_spoils_no_other(method: str) -> None:
    model, pixels = seeded(tiny_vit), images(3)
    expected = load_explainer(method, model)(pixels[1:], 1)
    pixels[0] = torch.nan
    explained = load_explainer(method, model).explain(pixels, 1)
    assert explained.degenerate.tolist() == [True, False, False]
    assert torch.allclose(explained.maps[1:], expected, atol=1e-4)
