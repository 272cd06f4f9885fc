"""FastSHAP: a network of its own learns to say, from an image alone, what each patch is worth to a finished network.

It is trained on the Shapley values' weighted least squares: coalitions of patches are drawn by the Shapley kernel,
each with the patches that it leaves. What the explainer says of a coalition's patches should sum to what the coalition
gains over nothing, after all values were shifted alike to sum to what the whole image gains. The finished network
itself is the value function; missing patches show the image's mean colour, as they do for every method here. With
1,000 classes and some hundred images the class is the predicted one alone, which is what every method here explains.

Source: Jethani, Sudarshan, Covert, Lee, Ranganath, "FastSHAP: Real-Time Shapley Value Estimation", ICLR 2022, Sec. 3.
Other than there: an 8×8 grid instead of 16×16, as 8 coalitions an image say little enough about 64 patches, and the
measures ask about these; coalitions are drawn once and kept, as the budget is passes of the finished network. An
explainer of pixels alone has to learn what objects look like from the same images, so there is a second one, which
goes on from the finished network's own features. Width and learning rate were chosen on held-out images of `train`.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from antehoc_hf.training.objectives.patches import draw_coalitions, draw_sizes, shown_images
from benchmarks.faithfulness.part_fidelity import GRID, Judge

FASTSHAP = "fastshap"
Sees = Literal["pixels", "features"]
SEES: tuple[Sees, ...] = ("pixels", "features")
COALITIONS = 8
"""Of an image, as long as there are images enough: as many as our map is attached with."""
SIZE, WIDTH = 128, 64
HELD_OUT, BATCH, PATIENCE = 8, 32, 8


class UNet(nn.Module):
    """(B, …) → values (B, GRID²): an entry gives (B, width, GRID, GRID), then down to 2×2 and up again."""

    def __init__(self, entry: nn.Module, width: int = WIDTH) -> None:
        super().__init__()
        self.entry = entry
        self.down = nn.ModuleList([_block(width, width, 2) for _ in range(2)])
        self.up = nn.ModuleList([_block(2 * width, width) for _ in range(2)])
        self.values = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.values.weight)  # the start: all patches are worth the same
        nn.init.zeros_(self.values.bias)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        levels = [self.entry(inputs)]
        for down in self.down:
            levels.append(down(levels[-1]))
        hidden = levels.pop()
        for up in self.up:
            hidden = up(torch.cat([F.interpolate(hidden, scale_factor=2.0), levels.pop()], dim=1))
        return self.values(hidden).flatten(1) / GRID**2


def pixels_entry(size: int = SIZE, width: int = WIDTH) -> nn.Module:
    """From images (B, 3, size, size), size GRID times a power of 2, to patches: each halving doubles the channels."""
    halvings = (size // GRID).bit_length() - 1
    channels = [3, *(width >> (halvings - 1 - level) for level in range(halvings))]
    return nn.Sequential(*(nn.Sequential(_block(i, o, 2), _block(o, o)) for i, o in pairwise(channels)))


def features_entry(channels: int, width: int = WIDTH) -> nn.Module:
    """From features of the finished network (B, channels, GRID, GRID)."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.Dropout2d(0.2), _block(channels, width))


def _block(given: int, wanted: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(given, wanted, 3, stride, 1, bias=False), nn.BatchNorm2d(wanted), nn.ReLU())


@dataclass(frozen=True)
class Games:
    """What a finished network makes of n images and m coalitions of each one's patches.

    Attributes:
        coalitions (`Tensor`): (n, m, GRID²) bool.
        values (`Tensor`): (n, m) probabilities of the class that is predicted for the whole image.
        whole, nothing (`Tensor`): (n,) the same with all patches, and with none.
    """

    coalitions: Tensor
    values: Tensor
    whole: Tensor
    nothing: Tensor

    def off(self, values: Tensor, places: Tensor) -> Tensor:
        """Mean squared error, for the images at these places, of the explainer's values (B, GRID²)."""
        whole, nothing = self.whole[places], self.nothing[places]
        worth = efficient(values, whole - nothing)
        sums = torch.einsum("bmd,bd->bm", self.coalitions[places].to(worth), worth)
        return (sums - (self.values[places] - nothing[:, None])).square().mean()


def efficient(values: Tensor, total: Tensor) -> Tensor:
    """Values (B, d) shifted alike, so that they sum to the total (B,)."""
    return values + ((total - values.sum(dim=1)) / values.shape[1])[:, None]


def paired_coalitions(count: int, generator: torch.Generator) -> Tensor:
    """(count, GRID²) bool, count even: drawn by the Shapley kernel, each followed by the patches that it leaves."""
    sizes = draw_sizes(count // 2, GRID**2, "shapley", generator)
    drawn = draw_coalitions(sizes, (GRID, GRID), "shapley", generator).flatten(1)
    return torch.stack([drawn, ~drawn], dim=1).flatten(0, 1)


def play(rows: Any, judge: Judge, count: int, path: Path | None = None) -> Games:
    """Asks the network about `count` coalitions of every row's `pixel_values`, but for those in the file."""
    drawn = [paired_coalitions(count, torch.Generator().manual_seed(index)) for index in range(len(rows))]
    values = torch.load(path, weights_only=True) if path and path.exists() else torch.empty(0, count + 2)
    ends = torch.tensor([True, False])[:, None].expand(-1, GRID**2)
    for start in tqdm(range(len(values), len(rows), 8), desc="FastSHAP's coalitions", unit="8 images"):
        places = range(start, min(start + 8, len(rows)))
        pixels = torch.stack([rows[index]["pixel_values"] for index in places]).repeat_interleave(count + 2, dim=0)
        shown = torch.cat([torch.cat([ends, drawn[index]]) for index in places]).unflatten(1, (GRID, GRID))
        mean = pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels)
        probabilities = judge(shown_images(pixels, shown, mean)).unflatten(0, (len(places), count + 2))
        predicted = probabilities[:, :1].argmax(dim=2, keepdim=True).expand(-1, count + 2, -1)
        values = torch.cat([values, probabilities.gather(2, predicted)[:, :, 0]])
        if path and (start % 80 == 0 or len(values) == len(rows)):
            torch.save(values, path)
    values = values[: len(rows)]
    return Games(torch.stack(drawn), values[:, 2:], values[:, 0], values[:, 1])


def fit(network: UNet, inputs: Tensor, games: Games, lr: float = 2e-4, epochs: int = 100) -> dict[str, Any]:
    """Trains until the error on held-out images, every eighth, no longer falls, and keeps the best state. Images are
    mirrored together with their coalitions, half of the time.

    Returns:
        A report; `explained`: the share of the held-out error of no map (all patches worth the same) that is gone.
    """
    torch.manual_seed(0)
    began, places = time.perf_counter(), torch.arange(len(inputs))
    held_out = places % HELD_OUT == HELD_OUT - 1
    taught, judged = places[~held_out], places[held_out]
    coalitions = games.coalitions.unflatten(2, (GRID, GRID)).flip(3).flatten(2)
    mirrored = Games(coalitions, games.values, games.whole, games.nothing)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    start = best = held_out_error(network, inputs, games, judged)
    state, best_epoch, errors = copy.deepcopy(network.state_dict()), 0, [start]
    for epoch in (bar := tqdm(range(1, epochs + 1), desc="Training FastSHAP", unit="epoch")):
        network.train()
        # A last batch of one image has no spread to normalise by.
        for batch in [part for part in taught[torch.randperm(len(taught))].split(BATCH) if len(part) > 1]:
            mirror = bool(torch.rand(()) < 0.5)
            images = inputs[batch].float()
            loss = (mirrored if mirror else games).off(network(images.flip(3) if mirror else images), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors.append(held_out_error(network, inputs, games, judged))
        schedule.step(errors[-1])
        bar.set_postfix_str(f"explains {1 - errors[-1] / start:.1%} of held-out coalitions")
        if errors[-1] < best:
            best, best_epoch, state = errors[-1], epoch, copy.deepcopy(network.state_dict())
        if epoch - best_epoch >= PATIENCE:
            break
    network.load_state_dict(state)
    network.eval()
    return {
        "images": len(taught), "held_out": len(judged), "coalitions": games.values.numel(), "epochs": best_epoch,
        "explained": 1 - best / start, "errors": errors, "seconds": time.perf_counter() - began,
    }  # fmt: skip


@torch.no_grad()
def held_out_error(network: UNet, inputs: Tensor, games: Games, places: Tensor) -> float:
    """Mean over the images at these places."""
    network.eval()
    errors = [float(games.off(network(inputs[part].float()), part)) * len(part) for part in places.split(BATCH)]
    return sum(errors) / len(places)


class FastShap:
    """The explainer of one network.

    Args:
        model: the ante-hoc classifier around the finished network.
        sees: what the explainer is given of an image. `"pixels"`: the image, at 128 pixels. `"features"`: what the
            finished network's own stages make of it, averaged over patches; these stay as they are.
    """

    def __init__(self, model: Any, sees: Sees) -> None:
        self.model, self.sees = model, sees
        self.network: UNet | None = None

    def load(self, path: Path, rows: Any, play: Callable[[], Games]) -> "FastShap":
        """The explainer in the file, or one trained on the images, and written there."""
        if not path.exists():
            bar = tqdm(range(len(rows)), desc=f"FastSHAP's {self.sees}", unit="image")
            inputs = torch.cat([self.inputs(rows[index]["pixel_values"][None]).half() for index in bar])
            network = self._network(inputs.shape[1])
            report = fit(network, inputs, play())
            torch.save({"channels": inputs.shape[1], "network": network.state_dict(), "report": report}, path)
        kept = torch.load(path, weights_only=True)
        self.network = self._network(kept["channels"])
        self.network.load_state_dict(kept["network"])
        self.network.eval()
        return self

    def _network(self, channels: int) -> UNet:
        torch.manual_seed(0)
        return UNet(pixels_entry() if self.sees == "pixels" else features_entry(channels))

    @torch.no_grad()
    def inputs(self, images: Tensor) -> Tensor:
        """Of images (B, 3, H, W), what the explainer is given."""
        if self.sees == "pixels":
            return F.interpolate(images, size=(SIZE, SIZE), mode="bilinear", antialias=True)
        stages = self.model.backbone.forward_intermediates(images, intermediates_only=True)
        return torch.cat([F.adaptive_avg_pool2d(stage, GRID) for stage in stages], dim=1)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Maps (B, 1, H, W): bilinear between patches, as ours. No measure would notice the shift to efficiency."""
        assert self.network is not None
        values = self.network(self.inputs(images).half().float()).view(-1, 1, GRID, GRID)
        return F.interpolate(values, size=images.shape[-2:], mode="bilinear", align_corners=False)
