"""The small network that the paper's landmark models build on, as an architecture of timm: eight convolutions, then
dense layers. It is `antehoc_landmark_cnn` there, made for images of 128 pixels.
"""

from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

NAME = "antehoc_landmark_cnn"
# Channels of each convolution, and the stride of the 2×2 maximum after it (None: none).
_LAYERS = ((32, 2), (64, None), (64, 2), (64, None), (64, 2), (128, None), (128, 1), (256, None))
_HIDDEN = 1024
_SMALLEST = 90


class LandmarkCNN(nn.Module):
    """Eight 3×3 convolutions without padding, each followed by ReLU and batch norm, and two dense layers.

    Args:
        num_classes (`int`): size of the output, twice the number of points; 0 for the dense features.
        img_size (`int` or `tuple`): height and width of the images; the dense layers take no other.
        in_chans (`int`): channels of the images.
        drop_rate (`float`): dropout before the output.
        width (`float`): all layers are so many times as wide; 1 is the paper's network, less is faster.

    Raises:
        ValueError: if nothing is left of an image so small, or of layers so narrow.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        img_size: int | tuple[int, int] = 128,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        rows, columns = (img_size, img_size) if isinstance(img_size, int) else img_size
        widths = [int(channels * width) for channels, _ in _LAYERS]
        if widths[0] < 1:
            raise ValueError(f"width={width!r} leaves nothing of {NAME}'s layers: 0.25 or more makes sense.")
        self.num_features = widths[-1]
        self.head_hidden_size = int(_HIDDEN * width)
        self.feature_info: list[dict[str, Any]] = []
        layers: list[nn.Module] = []
        reduction, channels = 1, in_chans
        for index, (_, stride) in enumerate(_LAYERS):
            block = _Block(channels, widths[index], stride)
            rows, columns = block.output_side(rows), block.output_side(columns)
            reduction *= stride or 1
            layers.append(block)
            channels = widths[index]
            self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": f"features.{index}"})
        if min(rows, columns) < 1:
            raise ValueError(f"{NAME} needs images of at least {_SMALLEST} pixels, not {img_size}.")
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(channels * rows * columns, self.head_hidden_size)
        self.hidden_act = nn.ReLU()
        self.hidden_norm = nn.BatchNorm1d(self.head_hidden_size)
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The last dense layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last dense layer. `global_pool` is timm's and has no meaning here: nothing is pooled."""
        self.num_classes = num_classes
        self.classifier = nn.Linear(self.head_hidden_size, num_classes) if num_classes > 0 else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 256, h, w); 5×5 of 128 pixels."""
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, 256, h, w) → (B, num_classes), or (B, 1024) with `pre_logits`."""
        x = self.drop(self.hidden_norm(self.hidden_act(self.hidden(x.flatten(1)))))
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


class _Block(nn.Module):
    """Convolution, ReLU, batch norm (in this order, as in the paper's network), and a maximum where there is one."""

    def __init__(self, channels: int, width: int, stride: int | None) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(channels, width, kernel_size=3)
        self.act = nn.ReLU()
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(2, stride) if stride else nn.Identity()

    def output_side(self, side: int) -> int:
        """Height or width after the block."""
        side -= 2
        return side if self.stride is None else (side - 2) // self.stride + 1

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.norm(self.act(self.conv(x))))


def _cfg(**values: Any) -> dict[str, Any]:
    return {
        "input_size": (3, 128, 128),
        "fixed_input_size": True,
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        # Pixels in [0, 1], nothing subtracted.
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "first_conv": "features.0.conv",
        "classifier": "classifier",
        **values,
    }


default_cfgs = generate_default_cfgs({f"{NAME}.untrained": _cfg()})


def antehoc_landmark_cnn(pretrained: bool = False, **kwargs: Any) -> LandmarkCNN:
    """The network of https://github.com/leopoldmaillard/cnn-landmarks-aflw2000, which fits the paper's footnote."""
    return build_model_with_cfg(LandmarkCNN, NAME, pretrained, **kwargs)


# In one process the installed package and a checkpoint's own code may both come here.
if not timm.is_model(NAME):
    register_model(antehoc_landmark_cnn)
