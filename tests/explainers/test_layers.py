"""Which layer is read: the last whole block whose grid the outputs depend on, whatever the family and the wrapper."""

from typing import Any

import pytest
import timm
import torch
import transformers
from torch import nn
from torch.utils.checkpoint import checkpoint

from antehoc_hf import AnteHocForImageClassification
from antehoc_hf.explainers import load_explainer

VIT = {
    **{"image_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2},
    **{"intermediate_size": 64, "patch_size": 8},
}
FOUR = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 2, 2]}
HEADS = {**FOUR, "num_attention_heads": [1, 2, 2, 2]}
WINDOWS = {
    **{"image_size": 64, "patch_size": 2, "embed_dim": 8, "depths": [1, 2, 2], "num_heads": [2, 2, 2]},
    "window_size": 4,
}
LEVIT = {
    **{"image_size": 128, "hidden_sizes": [16, 32, 48], "num_attention_heads": [1, 2, 3], "depths": [1, 1, 2]},
    "key_dim": [8, 8, 8],
}
PERCEIVER = {
    **{"image_size": 64, "num_latents": 16, "d_latents": 32, "num_blocks": 1, "num_self_attends_per_block": 2},
    **{"num_self_attention_heads": 2, "num_cross_attention_heads": 1},
}

# model class → options of its configuration, the layer, the first layer of SISE. Where a class token is read the
# patches of the last block lead nowhere.
TRANSFORMERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "ViT": (VIT, "vit.layers.1", "vit.layers.1"),
    "DeiT": (VIT, "deit.layers.1", "deit.layers.1"),
    "DeiT:WithTeacher": (VIT, "deit.layers.1", "deit.layers.1"),
    "Beit": ({**VIT, "use_relative_position_bias": True}, "beit.layers.2", "beit.layers.2"),
    "Data2VecVision": (VIT, "data2vec_vision.encoder.layer.2", "data2vec_vision.encoder.layer.2"),
    "Dinov2": (VIT, "dinov2.encoder.layer.2", "dinov2.encoder.layer.2"),
    "Dinov2WithRegisters": ({**VIT, "num_register_tokens": 4}, *2 * ("dinov2_with_registers.encoder.layer.2",)),
    "ViTMSN": (VIT, "vit.layers.1", "vit.layers.1"),
    "IJepa": (VIT, "ijepa.layers.2", "ijepa.layers.2"),
    "CLIP": ({"vision_config": VIT}, *2 * ("vision_model.encoder.layers.2",)),
    "MetaClip2": ({"vision_config": VIT}, *2 * ("vision_model.encoder.layers.2",)),
    "Siglip": ({"vision_config": VIT}, *2 * ("vision_model.encoder.layers.2",)),
    "Bit": ({"embedding_size": 8, **FOUR, "num_groups": 2}, *("bit.encoder.stages.3", "bit.encoder.stages.0")),
    "ConvNext": (FOUR, "convnext.encoder.stages.3", "convnext.encoder.stages.0"),
    "ConvNextV2": (FOUR, "convnextv2.encoder.stages.3", "convnextv2.encoder.stages.0"),
    "Cvt": (
        {"embed_dim": [16, 16, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3], "drop_path_rate": [0.0] * 3},
        *("cvt.encoder.stages.2.layers.1", "cvt.encoder.stages.0"),
    ),
    "DonutSwin": (WINDOWS, "donut.encoder.layers.2", "donut.encoder.layers.0.blocks.0"),
    "Swin": (WINDOWS, "swin.encoder.layers.2", "swin.encoder.layers.0.blocks.0"),
    "Swinv2": (WINDOWS, "swinv2.encoder.layers.2", "swinv2.encoder.layers.0.blocks.0"),
    "EfficientNet": (
        {"width_coefficient": 0.25, "depth_coefficient": 0.5, "hidden_dim": 320},
        *("efficientnet.encoder.blocks.9", "efficientnet.encoder.blocks.1.expansion"),
    ),
    "FocalNet": (
        {
            **{"image_size": 64, "patch_size": 2, "embed_dim": 8, "hidden_sizes": [8, 16, 16], "depths": [1, 2, 2]},
            **{"focal_levels": [2, 2, 2], "focal_windows": [3, 3, 3]},
        },
        *("focalnet.encoder.stages.2", "focalnet.encoder.stages.0.layers.0"),
    ),
    "HGNetV2": ({}, "encoder.stages.3", "embedder.stem1"),
    "Hiera": (  # its tokens are out of order before the last stage
        {
            **{"image_size": [64, 64], "embed_dim": 8, "depths": [1, 1, 2], "num_heads": [1, 2, 4]},
            **{"num_query_pool": 2, "masked_unit_size": [4, 4]},
        },
        *("hiera.encoder.stages.2", "hiera.encoder.stages.2"),
    ),
    "Levit": (LEVIT, "levit.encoder.stages.2", "levit.patch_embeddings.embedding_layer_1"),
    "Levit:WithTeacher": (LEVIT, "levit.encoder.stages.2", "levit.patch_embeddings.embedding_layer_1"),
    "MobileNetV1": ({"image_size": 64, "depth_multiplier": 0.25}, "mobilenet_v1.layer.25", "mobilenet_v1.layer.1"),
    "MobileNetV2": (
        {"image_size": 64, "depth_multiplier": 0.25},
        *("mobilenet_v2.conv_1x1", "mobilenet_v2.layer.0.expand_1x1"),
    ),
    "MobileViT": (
        {
            **{"image_size": 64, "hidden_sizes": [16, 16, 32], "neck_hidden_sizes": [8, 8, 8, 16, 16, 32, 32]},
            "num_attention_heads": 2,
        },
        *("mobilevit.conv_1x1_exp", "mobilevit.encoder.layer.1.layer.0.expand_1x1"),
    ),
    "MobileViTV2": (
        {"image_size": 64, "width_multiplier": 0.25},
        *("mobilevitv2.encoder.layer.4", "mobilevitv2.encoder.layer.1.layer.0.expand_1x1"),
    ),
    "Perceiver:Learned": (PERCEIVER, *2 * ("perceiver.input_preprocessor",)),  # its latents are not a grid
    "PoolFormer": (
        {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 2]},
        *("poolformer.encoder.block.3.1", "poolformer.encoder.block.0.0"),
    ),
    "PPLCNet": ({"scale": 0.25}, "encoder.blocks.4", "encoder.blocks.0"),
    "Pvt": ({"image_size": 64, **HEADS}, "pvt.encoder.block.3.0", "pvt.encoder.block.0.0"),
    "PvtV2": ({"image_size": 64, **HEADS}, "pvt_v2.encoder.layers.3.blocks.1", "pvt_v2.encoder.layers.0.blocks.0"),
    "RegNet": ({"embedding_size": 8, **FOUR, "groups_width": 8}, "regnet.encoder.stages.3", "regnet.embedder"),
    "ResNet": ({"embedding_size": 8, **FOUR}, "resnet.encoder.stages.3", "resnet.embedder.embedder"),
    "Segformer": (HEADS, "segformer.stages.3", "segformer.stages.0"),
    "SwiftFormer": (
        {"image_size": 64, "depths": [1, 1, 2, 2], "embed_dims": [8, 16, 16, 32]},
        *("swiftformer.encoder.network.6", "swiftformer.patch_embed.patch_embedding.2"),
    ),
    "TextNet": ({}, "textnet.encoder.stages.3", "textnet.encoder.stages.0.stage.0"),
}
QUICK = ["DeiT", "Dinov2WithRegisters", "Swinv2", "Cvt", "PoolFormer", "Pvt", "Hiera", "MobileNetV2"]


def built(family: str) -> nn.Module:
    torch.manual_seed(0)
    name, _, kind = family.partition(":")
    options = TRANSFORMERS[family][0]
    config = getattr(transformers, f"{name}Config")(**options)
    config.num_labels = 3
    model = getattr(transformers, f"{name}ForImageClassification{kind}")(config).eval()
    for weight in model.parameters():
        if weight.ndim in (
            2,
            4,
        ):  # small ones, repeated, leave nothing of the image where running statistics are 0 and 1
            nn.init.kaiming_normal_(weight)
    return model


def images(side: int = 64, count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "family", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TRANSFORMERS]
)
def test_every_image_classifier_of_transformers(family: str) -> None:
    model = built(family)
    options, last, first = TRANSFORMERS[family]
    side = options.get("image_size", 64)
    explained = load_explainer("grad-cam", model).explain(images(side if isinstance(side, int) else 64, 4))
    assert explained.layers == (last,)
    assert not explained.degenerate.all()
    explained = load_explainer("ada-sise", model).explain(images(side if isinstance(side, int) else 64))
    assert (explained.layers[0], explained.layers[-1]) == (first, last)


# name → side of the images, the layer. Tiny ones stand for their families, and for what timm wraps.
TIMM = {
    "test_resnet": (64, "layer4"),
    "test_vit": (160, "blocks.4"),
    "test_vit2": (160, "blocks.7"),
    "test_vit3": (160, "blocks.8"),
    "test_convnext": (64, "stages.3"),
    "test_efficientnet": (64, "blocks.4"),
    "test_mambaout": (64, "stages.3"),
    "test_nfnet": (64, "stages.3"),
    "test_byobnet": (64, "stages.3"),
    "crossvit_tiny_240": (240, "blocks.1"),
    "cait_xxs24_224": (224, "blocks.23"),
}
MORE_OF_TIMM = {
    "resnet18": (64, "layer4"),
    "vgg11": (64, "features"),
    "densenet121": (64, "features"),
    "inception_v4": (160, "features.21"),
    "mobilenetv2_035": (64, "blocks.6"),
    "mobilenetv3_small_050": (64, "blocks.5"),
    "mobilenetv4_conv_small_035": (64, "blocks.4"),
    "efficientnet_b0": (64, "blocks.6"),
    "regnety_002": (64, "s4"),
    "ghostnet_050": (64, "blocks.9"),
    "hrnet_w18_small": (64, "final_layer"),
    "dla34": (64, "level5"),
    "res2net50_14w_8s": (64, "layer4"),
    "repvgg_a0": (64, "stages.3"),
    "mobileone_s0": (64, "stages.3"),
    "fastvit_t8": (64, "final_conv"),
    "edgenext_xx_small": (64, "stages.3"),
    "convmixer_768_32": (56, "blocks.31"),
    "mixer_s32_224": (224, "blocks.7"),
    "resmlp_12_224": (224, "blocks.11"),
    "xcit_nano_12_p16_224": (224, "cls_attn_blocks.0"),
    "levit_128s": (224, "stages.2"),
    "coat_tiny": (224, "parallel_blocks.4"),
    "coat_lite_tiny": (224, "serial_blocks4.0"),
    "pit_ti_224": (224, "transformers.2.blocks.2"),
    "tnt_s_legacy_patch16_224": (224, "blocks.10"),
    "swin_tiny_patch4_window7_224": (224, "layers.3"),
    "swinv2_cr_tiny_ns_224": (224, "stages.3"),
    "maxvit_rmlp_pico_rw_256": (256, "stages.3"),
    "coatnet_pico_rw_224": (224, "stages.3"),
    "pvt_v2_b0": (64, "stages.3"),
    "poolformer_s12": (64, "stages.3"),
    "hiera_tiny_224": (224, "blocks.11"),
    "deit_tiny_distilled_patch16_224": (224, "blocks.10"),
    "visformer_tiny": (224, "stage3"),
    "twins_svt_small": (224, "blocks.3.3"),
    "efficientformer_l1": (224, "stages.3"),
    "efficientvit_b0": (64, "head.in_conv"),
    "efficientvim_m1": (224, "stages.2"),
    "repvit_m0_9": (64, "stages.3"),
    "focalnet_tiny_srf": (224, "layers.3"),
    "gcvit_xxtiny": (224, "stages.3"),
    "convit_tiny": (224, "blocks.10"),
    "mobilevitv2_050": (64, "stages.4"),
    "nf_resnet26": (64, "stages.3"),
    "selecsls42b": (64, "head.1"),
    "legacy_xception": (96, "conv4"),
    "tresnet_m": (64, "body.layer4"),
    "lambda_resnet26t": (128, "stages.3"),
    "starnet_s1": (64, "stages.3"),
}


@pytest.mark.parametrize("name", [*TIMM, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_OF_TIMM)])
def test_families_of_timm(name: str) -> None:
    torch.manual_seed(0)
    side, layer = {**TIMM, **MORE_OF_TIMM}[name]
    network = timm.create_model(name, num_classes=3)
    explained = load_explainer("grad-cam", network).explain(images(side, 2))
    assert explained.layers == (layer,)
    assert bool(explained.maps.any()) == (not bool(explained.degenerate.all()))


def compiled(network: nn.Module) -> nn.Module:
    return torch.compile(network, backend="eager")  # type: ignore[return-value]


def checkpointed(network: nn.Module) -> nn.Module:
    network.set_grad_checkpointing(True)
    return network


def wrapped_by_transformers(network: nn.Module) -> nn.Module:
    config = transformers.TimmWrapperConfig(architecture="test_resnet", num_labels=4)
    wrapper = transformers.TimmWrapperForImageClassification(config).eval()
    wrapper.timm_model.load_state_dict(network.state_dict())
    return wrapper


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, compiled, checkpointed, wrapped_by_transformers, lambda net: nn.DataParallel(compiled(net))],
    ids=["DataParallel", "compile", "checkpointing", "TimmWrapper", "both"],
)
@pytest.mark.parametrize("method", ["grad-cam", "sise", "integrated-gradients", "integrated-grad-cam"])
def test_wrapping_changes_nothing(wrap: Any, method: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=4).eval()
    options = {"steps": 3} if method.startswith("integrated") else {}
    expected = load_explainer(method, network, **options).explain(images(), 1)
    found = load_explainer(method, wrap(network), **options).explain(images(), 1)
    assert found.layers == expected.layers
    assert torch.allclose(found.maps, expected.maps, atol=1e-6)


class Inside(nn.Module):
    """As adapters wrap a network: under a name of their own, with its attributes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.base_model = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.base_model(x)
        return out


@pytest.mark.parametrize(
    ("wrap", "layer"),
    [
        (lambda net: nn.Sequential(nn.Identity(), net), "1.layer4"),
        (Inside, "base_model.layer4"),
        (lambda net: nn.DataParallel(Inside(compiled(net))), "base_model.layer4"),
        (lambda net: compiled(nn.DataParallel(net)), "layer4"),
        (lambda net: nn.DataParallel(nn.DataParallel(net)), "layer4"),
        (torch.optim.swa_utils.AveragedModel, "layer4"),
        (timm.utils.ModelEmaV3, "layer4"),
    ],
)
@pytest.mark.parametrize("method", ["grad-cam", "layer-cam", "hires-cam", "sise"])
def test_the_same_layer_inside_other_modules(wrap: Any, layer: str, method: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=4).eval()
    expected = load_explainer(method, network).explain(images(), 1)
    found = load_explainer(method, wrap(network)).explain(images(), 1)
    assert found.layers[-1] == layer
    assert torch.allclose(found.maps, expected.maps, atol=1e-6)


def test_our_own_models_and_names_with_and_without_wrappers() -> None:
    torch.manual_seed(0)
    model = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=4, image_size=64).eval()
    expected = load_explainer("grad-cam", model, layer="layer3").explain(images(), 1)
    for wrapped, name in ((nn.DataParallel(model), "layer3"), (model, "module.layer3"), (model, "_orig_mod.layer3")):
        found = load_explainer("grad-cam", wrapped, layer=name).explain(images(), 1)
        assert found.layers == ("layer3",)
        assert torch.equal(found.maps, expected.maps)


def test_blocks_that_a_network_recomputes_by_itself() -> None:
    class Recomputing(nn.Module):
        def __init__(self, recompute: bool) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU()) for _ in range(3))
            self.head, self.recompute = nn.Linear(3, 2), recompute

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
            return self.head(x.mean(dim=(2, 3)))

    plain, recomputing = Recomputing(False), Recomputing(True)
    recomputing.load_state_dict(plain.state_dict())
    for method in ("grad-cam", "sise"):
        expected = load_explainer(method, plain).explain(images(), 1)
        found = load_explainer(method, recomputing).explain(images(), 1)
        assert found.layers == expected.layers
        assert found.layers[-1] == "blocks.2"
        assert torch.allclose(found.maps, expected.maps, atol=1e-6)


def test_a_block_that_returns_a_tuple_and_a_branch_that_does_not_see_the_image() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
            self.bias = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU())

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
            return x + self.branch(x) + self.bias(x.new_ones(1, 1, *x.shape[2:])), "something else"

    class Tuples(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 4, 8, 8), nn.Linear(4, 2)
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            x = self.stem(x)
            for block in self.blocks:
                x, _ = block(x)
            return {"logits": self.head(x.mean(dim=(2, 3)))}

    torch.manual_seed(0)
    network = Tuples()
    for method in ("grad-cam", "grad-cam++", "score-cam", "sise"):
        assert load_explainer(method, network).explain(images(), 1).layers[-1] == "blocks.1"
    with pytest.raises(ValueError, match=r"layer='blocks.0.bias' gives no grid .* that depends on the image"):
        load_explainer("grad-cam", network, layer="blocks.0.bias")(images())


def test_the_layer_does_not_depend_on_the_images() -> None:
    """Black images, for which many gradients are zero, are read at the same layer as any others."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=4).eval()
    assert load_explainer("grad-cam", network).explain(torch.zeros(1, 3, 64, 64)).layers == ("layer4",)


def test_the_grid_of_images_that_are_not_square() -> None:
    model = built("Dinov2WithRegisters")
    maps = load_explainer("grad-cam", model)(torch.randn(1, 3, 64, 96), 1)
    assert maps.shape == (1, 1, 64, 96)
