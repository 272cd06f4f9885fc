"""Finished classifiers of several libraries and families, small and with values of their own."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from torch import nn

NORMALISATION: dict[str, Any] = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}
_TOKENS = {"image_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8}
_STAGES = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1]}
CLASSES = ["ant", "bee", "cat", "dog", "elk"]

TIMM = ("test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_byobnet")
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "ViT": {**_TOKENS, "intermediate_size": 64},
    "DeiT": {**_TOKENS, "intermediate_size": 64},
    "Dinov2": _TOKENS,
    "Swin": {
        **{"image_size": 64, "embed_dim": 16, "depths": [1, 1, 2], "num_heads": [1, 2, 2]},
        **{"window_size": 4, "patch_size": 4},
    },
    "ResNet": {**_STAGES, "embedding_size": 16},
    "ConvNext": {**_STAGES, "image_size": 64},
}
TORCHVISION = ("mobilenet_v3_small", "resnet18")
NAMES = (*TIMM, *TRANSFORMERS, TORCHVISION[0])
# Those whose head is linear on the last layer.
CLOSED_FORM = tuple(name for name in NAMES if name != "mobilenet_v3_small")


def network(name: str) -> nn.Module:
    """A classifier of five classes in evaluation mode, with batch statistics that are not the initial ones."""
    torch.manual_seed(len(name))
    made: Any
    if name in TIMM:
        made = timm.create_model(name, num_classes=5)
    elif name in TORCHVISION:
        made = torchvision.models.get_model(name, num_classes=5)
    else:
        config = getattr(transformers, f"{name}Config")(**TRANSFORMERS[name], id2label=dict(enumerate(CLASSES)))
        made = getattr(transformers, f"{name}ForImageClassification")(config)
    for buffer_name, buffer in made.named_buffers():
        if buffer_name.endswith(("running_mean", "running_var")):
            buffer.add_(torch.rand_like(buffer) / 4)
    return made.eval()


@torch.no_grad()
def logits_of(made: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """What it predicts."""
    output = made(pixels)
    return getattr(output, "logits", output)


def pixels_for(name: str, count: int = 2) -> torch.Tensor:
    """Images of a size that the network takes."""
    side = 160 if name in TIMM else 64
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def image_of_noise(side: int, seed: int) -> torch.Tensor:
    """Noise of a few pixels' width, (3, side, side)."""
    coarse = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")[0]


def save_folders(place: Path, weights: dict[str, torch.Tensor]) -> Path:
    """Checkpoints as the Hub has them: weights of `test_resnet` in timm's formats, a ViT in transformers'."""
    cfg = {"mean": [0.4] * 3, "std": [0.2] * 3, "input_size": [3, 96, 96], "classifier": "fc"}
    cfg |= {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"}
    common = {"architecture": "test_resnet", "num_classes": 5, "label_names": CLASSES, "pretrained_cfg": cfg}
    wrapper = {**common, "model_type": "timm_wrapper", "architectures": ["TimmWrapperForImageClassification"]}
    for kind, prefix, config in (("timm", "", common), ("wrapper", "timm_model.", wrapper)):
        (place / kind).mkdir()
        named = {prefix + name: value for name, value in weights.items()}
        save_file(named, place / kind / "model.safetensors", metadata={"format": "pt"})
        (place / kind / "config.json").write_text(json.dumps(config))
    network("ViT").save_pretrained(place / "transformers")
    size = {"height": 64, "width": 64}
    values = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": size, "resample": 3}
    named_processor = {**values, "do_resize": True, "image_processor_type": "ViTImageProcessor"}
    (place / "transformers" / "preprocessor_config.json").write_text(json.dumps(named_processor))
    return place
