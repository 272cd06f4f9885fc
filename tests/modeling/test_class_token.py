"""What the class token of a vision transformer takes from each position: exactly what its attention adds to it."""

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

from antehoc_hf.modeling import AnteHocConfig, AnteHocForImageClassification
from antehoc_hf.modeling.taps import read_of_attention, taken_by_class_token

CLOSED_FORM = {"kind": "contributions", "closed_form": True}
NORMALISATION = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 5}


def networks():
    """Of timm (as they are, and with layer scale and normalised queries), torchvision and transformers."""
    options = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5}
    scaled = {**options, "init_values": 0.3, "qk_norm": True}
    sizes = {**SMALL, "image_size": 64, "patch_size": 16}
    yield "timm", timm.create_model("vit_tiny_patch16_224", **options)
    yield "scaled", timm.create_model("vit_tiny_patch16_224", **scaled)
    yield "torchvision", torchvision.models.VisionTransformer(64, 16, 2, 4, 32, 64, num_classes=5)
    yield "ViT", transformers.ViTForImageClassification(transformers.ViTConfig(**sizes))
    yield "DeiT", transformers.DeiTForImageClassification(transformers.DeiTConfig(**sizes))
    yield "Dinov2", transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**sizes, layerscale_value=0.3))


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    found = dict(networks())
    for network in found.values():
        network.eval().requires_grad_(False)
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return found


ATTENTIONS = {
    "timm": "blocks.{}.attn",
    "scaled": "blocks.{}.attn",
    "torchvision": "encoder.layers.encoder_layer_{}.self_attention",
    "ViT": "vit.layers.{}.attention",
    "DeiT": "deit.layers.{}.attention",
    "Dinov2": "dinov2.encoder.layer.{}.attention",
}


def shares_of(network, name, pixels):
    """(B, N, C), what the class token takes from each token in the attention of that name, and the logits."""
    part, found = read_of_attention(network.get_submodule(name)), []
    module = network.get_submodule(f"{name}.{part}" if part else f"{name.rpartition('.')[0]}.ln_1")
    handle = module.register_forward_hook(lambda module, inputs, output: found.extend([inputs, output]))
    output = network(pixels)
    handle.remove()
    weighted, finish = taken_by_class_token(network, name, *found)
    shares = finish(weighted.mT[..., None])[..., 0].mT / weighted.shape[1]
    return shares, getattr(output, "logits", output)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_shares_of_all_positions_add_up_to_what_the_attention_adds(made, name):
    network, pixels = made[name], torch.randn(3, 3, 64, 64)
    norm = [module for module in network.modules() if isinstance(module, nn.LayerNorm)][-1]
    for layer in range(2):
        attention = network.get_submodule(ATTENTIONS[name].format(layer))
        seen = []
        handle = attention.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output))
        shares, _ = shares_of(network, ATTENTIONS[name].format(layer), pixels)
        handle.remove()
        added = (seen[0][0] if isinstance(seen[0], tuple) else seen[0])[:, 0]
        biases = {part: bias for part, bias in attention.named_parameters() if part.endswith(".bias")}
        added = added - next(biases[f"{p}.bias"] for p in ("proj", "out_proj", "o_proj") if f"{p}.bias" in biases)
        if name == "scaled":
            added = added * network.blocks[layer].ls1.gamma
        if name == "Dinov2":
            added = added * network.dinov2.encoder.layer[layer].layer_scale1.lambda1
        expected = (added - added.mean(dim=1, keepdim=True)) * norm.weight
        torch.testing.assert_close(shares.sum(dim=1), expected, rtol=1e-4, atol=1e-6)


def test_shares_are_those_of_the_logits_where_nothing_comes_in_between():
    """One layer without an MLP, a class token that begins with nothing: all that it knows, it has taken."""
    torch.manual_seed(1)
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, embed_dim=32, depth=1, num_heads=4, num_classes=5, qkv_bias=False
    ).eval()
    network.requires_grad_(False)
    for parameter in (network.cls_token, network.pos_embed[:, :1], network.blocks[0].attn.proj.bias):
        parameter.zero_()
    for part in (network.blocks[0].mlp.fc2, network.norm):
        part.bias.zero_()
    network.blocks[0].mlp.fc2.weight.zero_()
    network.norm.weight.uniform_(0.5, 2)
    seen = []
    network.norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0][:, 0]))
    shares, logits = shares_of(network, "blocks.0.attn", torch.randn(4, 3, 64, 64))
    spread = (seen[0].var(dim=1, unbiased=False) + network.norm.eps).sqrt()[:, None]
    read = shares.sum(dim=1) @ network.head.weight.T
    torch.testing.assert_close(read, (logits - network.head.bias) * spread, rtol=1e-4, atol=1e-6)


def model(backbone, **options):
    options = {"num_labels": 5, "image_size": 64, "map_head": CLOSED_FORM, **options}
    return AnteHocForImageClassification.from_backbone(backbone, **options).eval()


SMALL_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 4}


@pytest.mark.parametrize(
    ("backbone", "kwargs", "attentions"),
    [
        ("vit_tiny_patch16_224", SMALL_VIT, 2),
        ("vit_tiny_r_s16_p8_224", {**SMALL_VIT, "patch_size": 1}, 2),  # convolutions first
        ("vit_tiny_patch16_224", {**SMALL_VIT, "global_pool": "avg"}, 0),  # the head reads the patches' tokens
        ("vit_tiny_patch16_224", {**SMALL_VIT, "attn_layer": "diff"}, 0),  # attention less another attention
        ("test_resnet", None, 0),
    ],
)
def test_networks_whose_class_token_is_read(backbone, kwargs, attentions):
    made = model(backbone, backbone_kwargs=kwargs)
    assert len(made.config.class_token_taps or []) == attentions
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outputs = made(pixels, output_hidden_states=True)
        assert torch.equal(outputs.logits, made.backbone(pixels))
    assert len(outputs.hidden_states) == made.config.num_attention_maps  # of the layers alone
    assert outputs.interpretation_map.shape == (2, 1, 64, 64)
    trained = model(backbone, backbone_kwargs=kwargs, map_head="contributions")
    assert trained.config.class_token_taps is None


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters"])
def test_a_head_that_reads_the_mean_of_the_patches_beside_the_class_token(kind):
    torch.manual_seed(2)
    config = getattr(transformers, f"{kind}Config")(**SMALL, image_size=64, patch_size=16)
    network = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    made = AnteHocForImageClassification.from_classifier(network, **NORMALISATION, map_head=CLOSED_FORM).eval()
    assert made.config.tap_points[-1]["module"].endswith("layernorm")
    assert len(made.config.class_token_taps) == 2
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        outputs = made(pixels, phase="task")
        tokens = network.base_model(pixels).last_hidden_state
        targets = made._targets(outputs.logits)
        of_patches = made.map_head.mean_evidence(outputs.tap_values, targets)
        of_token = tokens[:, 0] @ network.classifier.weight[:, :32].T
    expected = network(pixels).logits - network.classifier.bias
    torch.testing.assert_close(of_token + of_patches, expected, rtol=1e-4, atol=1e-5)
    assert made(pixels).interpretation_map.flatten(1).std(dim=1).min() > 0


def test_the_map_shows_the_patch_that_the_class_token_looks_at():
    """Values that are the token itself, attention that is all on one bright patch: before any fit the map is there."""
    made = model("vit_tiny_patch16_224", backbone_kwargs={**SMALL_VIT, "depth": 1}, num_labels=2)
    network = made.backbone.requires_grad_(False)
    for parameter in network.parameters():
        parameter.zero_()
    bright = torch.zeros(32)
    bright[0] = 1.0
    network.patch_embed.proj.weight[0] = 1 / (3 * 16 * 16)  # channel 0: the patch's mean
    network.patch_embed.proj.weight[1] = -1 / (3 * 16 * 16)
    for norm in (network.norm, network.blocks[0].norm1):
        norm.weight.fill_(1)
    network.cls_token[..., 2], network.cls_token[..., 3] = 1.0, -1.0
    network.blocks[0].attn.qkv.weight[:32] = 4 * torch.ones(32, 1) * torch.eye(32)[2]  # the class token's query is 4
    network.blocks[0].attn.qkv.weight[32:64] = torch.ones(32, 1) * bright  # keys: how bright
    network.blocks[0].attn.qkv.weight[64:] = torch.eye(32)
    network.blocks[0].attn.proj.weight.copy_(torch.eye(32))
    network.head.weight[1] = bright
    pixels = torch.full((1, 3, 64, 64), -0.1)
    pixels[:, :, 32:48, 16:32] = 2.0
    with torch.no_grad():
        map_ = made(pixels).interpretation_map[0, 0]
    assert made(pixels).logits.argmax() == 1
    assert divmod(int(map_.argmax()), 64) in [(row, column) for row in range(32, 48) for column in range(16, 32)]


def test_a_model_saved_before_there_were_any_is_as_it_was(tmp_path):
    values = model("test_vit", image_size=160).config.to_dict()
    older = AnteHocForImageClassification(AnteHocConfig.from_dict({**values, "class_token_taps": None})).eval()
    assert older.map_head.coefficients.shape[1] == 2 + 7 + 2 * older.config.num_attention_maps + 1
    older.save_pretrained(tmp_path)
    again = AnteHocForImageClassification.from_pretrained(tmp_path).eval()
    assert again.config.class_token_taps is None
    pixels = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(older(pixels).interpretation_map, again(pixels).interpretation_map)


@pytest.mark.parametrize("kind", ["contributions", "energy"])
def test_another_map_on_the_same_configuration_reads_layers_alone(kind):
    values = model("test_vit", image_size=160).config.to_dict()
    other = AnteHocForImageClassification(AnteHocConfig.from_dict({**values, "map_head": kind})).eval()
    with torch.no_grad():
        assert other(torch.randn(2, 3, 160, 160)).interpretation_map.shape == (2, 1, 160, 160)


TAP = {"module": "blocks.0.attn.qkv", "layout": "NLC", "prefix_tokens": 1}


@pytest.mark.parametrize(
    ("taps", "sentence"),
    [
        (5, "class_token_taps=5 must be a list"),
        ("x", "class_token_taps=x must be a list"),
        ([3], "tap_points of the configuration holds 3, which does not describe a tap"),
        ([{**TAP, "attention": 5}], "which does not describe a tap"),
        ([{**TAP, "attention": "nope"}], "names 'nope', which 'test_vit' does not have"),
        ([{**TAP, "module": "nope", "attention": "blocks.0.attn"}], "names 'nope', which 'test_vit' does not have"),
        ([{**TAP, "attention": "blocks.0.mlp"}], "names 'blocks.0.mlp', which is no attention that can be read"),
        ([{**TAP, "module": "blocks.0.mlp.fc2", "attention": "blocks.0.attn"}], "no attention that can be read"),
        (
            [{**TAP, "attention": "blocks.0.attn", "prefix_tokens": 0}],
            "101 tokens of 'blocks.0.attn.qkv' are no grid on images of 160×160 pixels",
        ),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_configurations_that_make_no_sense(taps, sentence):
    values = model("test_vit", image_size=160).config.to_dict()
    with pytest.raises(ValueError, match=sentence):
        AnteHocForImageClassification(AnteHocConfig.from_dict({**values, "class_token_taps": taps})).eval()(
            torch.zeros(1, 3, 160, 160)
        )
