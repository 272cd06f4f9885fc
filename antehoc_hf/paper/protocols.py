"""What is trained and measured for each table: at the paper's scale, or so that a CPU can do it."""

import json
from dataclasses import dataclass
from typing import Literal

from antehoc_hf.commands.errors import UsageError

Role = Literal["classifier", "comparison", "captioner", "landmarks"]
"""What a network is for: Tables 1, 2 and 5; Table 3; Table 4; Figure 4."""


@dataclass(frozen=True)
class DataSource:
    """A data set of the paper, or one of ours.

    Args:
        title (`str`): as tables call it.
        name (`str`, *optional*): where it is by default: on the Hub, or `"shapes"`; None: the user must say.
        recipe (`str`, *optional*): for training on it at the paper's scale.
        mask_column (`str`, *optional*): with masks of the true evidence.
    """

    title: str
    name: str | None
    recipe: str | None = None
    mask_column: str | None = None


CLASSIFICATION = {
    "cifar10": DataSource("CIFAR-10", "uoft-cs/cifar10", "paper-cifar10"),
    "animals10": DataSource("Animals-10", None, "paper-animals10"),
    "food11": DataSource("Food-11", None, "paper-food11"),
    "tiny-imagenet": DataSource("Tiny-ImageNet", "zh-plus/tiny-imagenet", "paper-tinyimagenet"),
    "shapes": DataSource("shapes", "shapes", "paper", mask_column="mask"),
}
CAPTIONS = {"flickr8k": DataSource("Flickr8k", "jxie/flickr8k"), "shapes": DataSource("shapes", "shapes")}
LANDMARKS = {"faces": DataSource("faces with 68 points", None), "shapes": DataSource("shapes", "shapes")}
DATA_SETS = {**LANDMARKS, **CAPTIONS, **CLASSIFICATION}


@dataclass(frozen=True)
class Protocol:
    """How much is done.

    Args:
        name (`str`): of the recipe.
        flags (`dict`): role → flags of `antehoc train`; `{recipe}` stands for the data set's own recipe.
        shapes (`dict`): role → the same for the built-in data set.
        seeds (`tuple[int]`): trainings of each network.
        images (`int`): test images on which maps are measured.
        slow_images (`int`): of these, how many for insertion, deletion, ROAD and noise.
        ours (`tuple[str]`): further flags for the ante-hoc networks, which a baseline would not take.
        noise (`tuple[float]`): shares of noisy pixels of Table 5.
    """

    name: str
    flags: dict[Role, tuple[str, ...]]
    shapes: dict[Role, tuple[str, ...]]
    seeds: tuple[int, ...]
    images: int
    slow_images: int
    ours: tuple[str, ...] = ()
    noise: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)

    def training_flags(self, role: Role, source: DataSource) -> list[str]:
        """The flags of `antehoc train` for a network of this role on this data set."""
        chosen = self.shapes if source.name == "shapes" else self.flags
        return [str(source.recipe) if flag == "{recipe}" else flag for flag in chosen[role]]


# A ResNet-10-T that a CPU trains in minutes, with a last grid of 4 × 4 positions at 64 pixels.
_SMALL = (
    *("--backbone", "resnet10t", "--image_size", "64"),
    *("--backbone_kwargs", json.dumps({"channels": [32, 64, 96, 128], "stem_width": 16, "output_stride": 16})),
)


def _shapes(**counts: int) -> tuple[str, ...]:
    return ("--dataset_options", json.dumps({"image_size": 64, "seed": 0, **counts}))


# Table 3 compares networks of one size on equal terms: every network the same images, augmentation and epochs.
_COMPARISON = (
    *("--recipe", "cpu", "--backbone", "resnet18", "--backbone_kwargs", json.dumps({"output_stride": 16})),
    *("--image_size", "32", "--num_train_epochs", "3"),
)

# Not in the paper, whose objective alone gives landmarks a nearly constant map.
_AREA = ("--area_weight", "0.01")
# The recipes for small machines learn another map, and later.
_FROM_THE_START = (
    *("--interpretation_start", "0", "--interpretation_batch_share", "0.25"),
    *("--interpretation_learning_rate", "0.001"),
)

PROTOCOLS = {
    "cpu": Protocol(
        name="cpu",
        flags={
            "classifier": ("--recipe", "cpu", *_SMALL, "--max_train_samples", "12000", "--num_train_epochs", "5"),
            "comparison": (*_COMPARISON, "--max_train_samples", "4000", "--max_eval_samples", "1000"),
            "captioner": ("--recipe", "captions", "--num_train_epochs", "5"),
            "landmarks": ("--recipe", "landmarks", "--num_train_epochs", "10", *_AREA),
        },
        shapes={
            "classifier": (
                *("--recipe", "demo", "--num_train_epochs", "5", *_shapes(train=4000, validation=300, test=600)),
            ),
            "comparison": (*_COMPARISON, *_shapes(train=4000, validation=200, test=600)),
            "captioner": ("--recipe", "demo-captions", *_shapes(train=1800, validation=150, test=300)),
            "landmarks": ("--recipe", "demo-landmarks", *_AREA, *_shapes(train=3000, validation=150, test=300)),
        },
        seeds=(0, 1),
        images=300,
        slow_images=100,
        ours=_FROM_THE_START,
    ),
    "paper": Protocol(
        name="paper",
        flags={
            "classifier": ("--recipe", "{recipe}"),
            "comparison": ("--recipe", "{recipe}", "--backbone", "resnet18"),
            "captioner": ("--recipe", "captions", "--backbone", "resnet50", "--image_size", "128"),
            "landmarks": (
                *("--recipe", "landmarks", "--image_size", "128", "--num_train_epochs", "80"),
                *(*_AREA, *_FROM_THE_START),
            ),
        },
        shapes={
            "classifier": ("--recipe", "paper", *_shapes(train=20000, validation=1000, test=2000)),
            "comparison": ("--recipe", "paper", "--backbone", "resnet18", *_shapes(train=20000, test=2000)),
            "captioner": ("--recipe", "demo-captions", "--backbone", "resnet50"),
            "landmarks": ("--recipe", "demo-landmarks", *_AREA, *_FROM_THE_START),
        },
        seeds=(0, 1, 2),
        images=10_000,
        slow_images=500,
    ),
}


def protocol_named(name: str) -> Protocol:
    """The protocol of a recipe.

    Raises:
        UsageError: if there is none.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"recipe={name!r} must be one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
