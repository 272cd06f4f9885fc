"""Building timm backbones and deciding, once, how a backbone is tapped."""

import copy
import inspect
import json
import threading
import traceback
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, TypeVar, cast

import timm
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import get_session
from torch import nn
from torch.nn.modules import module as registration

from .configuration_antehoc import DEFAULT_NUM_ATTENTION_MAPS, AnteHocConfig, backbone_defaults
from .map_head import check_channels
from .other_network import build_other_network, is_other_network
from .tap_search import (
    LayerCall,
    at_fixed_intervals,
    at_the_classifier,
    class_token_taps,
    convolution_taps,
    elongated,
    named_taps,
    reaches_last_stage,
    stage_taps,
    watch,
)
from .taps import TapPoint, forward_with_taps

# The largest networks of timm have 7e9 weights, and 4,300 modules, parameters and buffers.
MOST_WEIGHTS = 2 * 10**10
MOST_PARTS = 6_000

Seen = TypeVar("Seen")


@contextmanager
def hub_in_one_try(asked: bool = True) -> Iterator[None]:
    """Where the Hub cannot be reached, what is in its cache is read at once: huggingface_hub would try each file for
    23 seconds, and timm asks for two. One request says whether it can.

    Args:
        asked (`bool`): whether anything within asks the Hub; if not, nothing is sent.

    Raises:
        Exception: why the Hub cannot be reached, if what is asked for is not in its cache; the class is that of the
            library that sent the request.
    """
    reason = None
    if asked and not constants.is_offline_mode():
        try:
            get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except Exception as error:  # of whatever library sends the request
            reason = error
    if reason is None:
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise reason from None
    finally:
        constants.HF_HUB_OFFLINE = False


def reason_of(error: Exception) -> str:
    """Kind and text of an error, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def create_backbone(config: AnteHocConfig, num_outputs: int, **overrides: Any) -> nn.Module:
    """The timm network of a configuration, with timm's own initialisation.

    Args:
        config: names the architecture, its options and the image size.
        num_outputs: size of the network's own classifier; 0 for none.
        overrides: further keyword arguments of `timm.create_model`, e.g. `pretrained=True`.

    Raises:
        ValueError: if timm refuses the combination; timm's reason is repeated.
    """
    options, other = {**(config.backbone_kwargs or {}), **overrides}, is_other_network(config.backbone)
    with _no_larger_than_any(config):
        try:
            if other:
                return build_other_network(config.backbone, num_outputs, options)
            return _sized(config, num_outputs, options)
        except _TooLargeError:
            raise
        except _REFUSALS as error:
            if other and isinstance(error, ValueError):  # one sentence already
                raise
            raise ValueError(_refusal(config, error)) from error


def _sized(config: AnteHocConfig, num_outputs: int, options: dict[str, Any]) -> nn.Module:
    """A network of timm, told the size of its images where it takes one."""
    default_size = list(backbone_defaults(config.backbone)["input_size"][1:])
    # A recipe or a user may have set the size through backbone_kwargs; ours is config.image_size.
    if config.image_size != default_size and "img_size" not in options:
        try:
            height, width = config.image_size  # type: ignore[misc]
            return _create(config.backbone, num_outputs, {**options, "img_size": (height, width)})
        except TypeError as error:
            if "img_size" not in str(error):
                raise
    return _create(config.backbone, num_outputs, options)


def check_classifier(config: AnteHocConfig, backbone: nn.Module) -> None:
    """Raises a ValueError if the timm network gives features and no prediction."""
    if not hasattr(backbone, "get_classifier"):
        raise ValueError(
            f"The backbone {config.backbone!r} is an encoder without a classifier: it gives features and no "
            "prediction that could be explained. Take an architecture of timm.list_models() that has one, such as "
            "'resnet50'."
        )


def check_found(network: nn.Module, weights: dict[str, Any], name: str) -> None:
    """Warns if some of the network is not in a file, and raises a ValueError if much is not: timm says neither where
    heads differ. timm renames and reshapes: where a name is not there, values count.
    """
    heads = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or "(no classifier)"
    own = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}

    def start(value: Any) -> tuple[float, ...]:
        return value.numel(), *value.float().flatten()[:4].tolist()

    there = {start(value) for value in weights.values() if isinstance(value, torch.Tensor)}
    absent = [key for key in own if not key.startswith(heads) and key not in weights and start(own[key]) not in there]
    said = (
        f"{len(absent)} of {len(own)} tensors of {name!r}, such as {absent[0]}, are not in the file" if absent else ""
    )
    if len(absent) > len(own) // 20:
        raise ValueError(
            f"The pretrained weights are not its own: {said}. Name the architecture they are of as backbone."
        )
    if absent:
        warnings.warn(f"Pretrained weights: {said}, and stay random.", stacklevel=4)


# What timm and torch raise for arguments that make no sense; what a download raises is not among them.
_REFUSALS = (TypeError, AssertionError, RuntimeError, ValueError, LookupError, AttributeError, ArithmeticError)


def _create(name: str, num_outputs: int, options: dict[str, Any]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name, num_classes=num_outputs, **options)


def _refusal(config: AnteHocConfig, error: Exception) -> str:
    # An assertion often says nothing: then the line of code that it stands on does.
    said = str(error) or traceback.extract_tb(error.__traceback__)[-1].line or type(error).__name__
    reason = " ".join(said.split())[:300]
    options = f" with backbone_kwargs={str(config.backbone_kwargs)[:200]}" if config.backbone_kwargs else ""
    return f"timm cannot build {config.backbone!r} for images of {config.image_size} pixels{options}: {reason}"


def resolve_taps(config: AnteHocConfig) -> None:
    """Decides where the backbone is read and writes it into `config` (`tap_points`, `num_attention_maps`,
    `fixed_image_size`; where needed `tap_channels`, `class_token_taps`); does nothing if it is written there already.

    Raises:
        ValueError: if the backbone has no classifier, no layer with a grid of positions, or fewer layers than maps
            were asked for, or if the image is too small for its layers.
    """
    known = config.tap_points is not None
    if not known:
        config.tap_channels = config.class_token_taps = None
        _find_taps(config)
    for values in config.all_taps:
        TapPoint.from_dict(values)
    if not config.map_head.per_target:
        return
    if config.tap_channels is None:
        config.tap_channels = list(_channels(config))
    elif known and not torch.empty(0).is_meta:  # where weights are loaded, their shapes say it
        check_channels(_channels(config), config.tap_channels)


def _find_taps(config: AnteHocConfig) -> None:
    calls, points, attentions, config.fixed_image_size = _search(config)
    chosen = at_fixed_intervals(points, _wanted(config, points))
    named = config.num_attention_maps is not None or isinstance(config.taps, list)
    needed = points[-1:] if config.map_head.reads_classifier else []  # the layer that the classifier pools
    if not named and not _too_small(calls, needed) and _too_small(calls, chosen):
        # Nobody asked for these layers by name or number: a small image is read where it has positions.
        large = [point for point in points if not _too_small(calls, [point])]
        chosen = at_fixed_intervals(large, min(DEFAULT_NUM_ATTENTION_MAPS, len(large))) if large else chosen
    points = chosen
    _check_grids(config, calls, points)
    config.tap_points = copy.deepcopy([point.to_dict() for point in points])
    config.num_attention_maps = len(points)
    if attentions:
        config.class_token_taps = [point.to_dict() for point in attentions]


_SEEN: dict[Hashable, Any] = {}


def _seen_once(look: Callable[[AnteHocConfig], Seen]) -> Callable[[AnteHocConfig], Seen]:
    """Keeps what a look at the configuration's network found, for this process; an error is not kept."""

    @wraps(look)
    def remembered(config: AnteHocConfig) -> Seen:
        known = (config.backbone_kwargs, config.image_size, config.taps, config.tap_point, config.include_shortcuts)
        try:
            said = json.dumps([config.backbone, *known, config.tap_points, config.map_head.reads_classifier])
            builder = None if is_other_network(config.backbone) else timm.models.model_entrypoint(config.backbone)
        except (TypeError, ValueError, LookupError):  # options that are not JSON, an unknown name
            return look(config)
        key = look, said, builder
        found = cast(Seen | None, _SEEN.get(key))
        if found is None:
            found = look(config)
            if len(_SEEN) >= 64:
                _SEEN.clear()
            _SEEN[key] = found
        return found

    return remembered


@_seen_once
def _channels(config: AnteHocConfig) -> list[int]:
    """Channels of each tap, seen on a copy of the backbone as in [`_search`]."""
    height, width = config.image_size  # type: ignore[misc]
    points = [TapPoint.from_dict(values) for values in config.tap_points or []]
    for device in ("meta", "cpu"):
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
                backbone = create_backbone(config, num_outputs=2).eval()
                check_taps(config, backbone)
                image = torch.zeros(1, 3, height, width)
                _, taps = forward_with_taps(
                    backbone, points, lambda tap, _: tap, partial(backbone, image), (height, width)
                )
            return [tap.shape[1] for tap in taps]
        except Exception:  # some backbones cannot run without numbers
            if device == "cpu":
                raise
    raise AssertionError


@_seen_once
def _search(config: AnteHocConfig) -> tuple[list[LayerCall], list[TapPoint], list[TapPoint], bool]:
    """The layers' calls, those that may be tapped, the attentions of a class token that the map needs, and whether the
    backbone takes images of one size alone. Watches a copy of the backbone: on the meta device (no weights, no
    arithmetic) where that works, else on the CPU; on a non-square image where the backbone takes one, so that height,
    width and channels can't be confused.
    """
    height, width = config.image_size  # type: ignore[misc]
    problem: Exception | None = None
    for device in ("meta", "cpu"):
        for size in (elongated(height, width), (height, width)):
            # A pass that failed may leave a module half way: build anew for each try.
            try:
                with torch.random.fork_rng(devices=[]), torch.device(device):
                    backbone = create_backbone(config, num_outputs=2).eval()
                    calls = watch(backbone, torch.zeros(1, 3, *size))
            except _TooLargeError:
                raise
            except Exception as error:  # whatever the backbone raises is reported below
                problem = error
                continue
            check_classifier(config, backbone)
            points = _layers(config, backbone, calls)
            if config.map_head.reads_classifier and config.taps == "auto":
                points = at_the_classifier(backbone, calls, points)
            if points:
                attentions = class_token_taps(backbone, calls) if config.map_head.reads_classifier else []
                return calls, points, attentions, size == (height, width)
            problem = problem or _no_grid(config)
        if "meta" not in str(problem).lower():
            break  # with numbers it would be the same
    if isinstance(problem, ValueError) and config.backbone in str(problem):
        raise problem
    reason = " ".join(str(problem).split())[:300]
    where = f"on images of {height}×{width} pixels"
    raise ValueError(f"The backbone {config.backbone!r} cannot run {where}: {reason}") from problem


class _TooLargeError(ValueError):
    """The network is larger than any."""


@contextmanager
def _no_larger_than_any(config: AnteHocConfig) -> Iterator[None]:
    """Raises a ValueError from within the building of a network that is larger than any, before it takes memory."""
    thread, parts, weights = threading.get_ident(), 0, 0

    def count(module: nn.Module, name: str, part: object) -> None:
        nonlocal parts, weights
        if part is None or threading.get_ident() != thread:
            return
        parts += 1
        weights += part.numel() if isinstance(part, nn.Parameter) else 0
        if parts > MOST_PARTS or weights > MOST_WEIGHTS:
            raise _TooLargeError(
                f"The backbone {config.backbone!r} with backbone_kwargs={str(config.backbone_kwargs)[:200]} has more "
                "layers or weights than any network."
            )

    handles = [
        registration.register_module_module_registration_hook(count),
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_taps(config: AnteHocConfig, backbone: nn.Module) -> None:
    """Raises a ValueError if the configuration names layers that the backbone does not have."""
    modules = dict(backbone.named_modules())
    for point in config.all_taps:
        missing = [name for name in (point["module"], point.get("attention")) if name and name not in modules]
        if missing:
            raise ValueError(
                f"tap_points of the configuration names {missing[0]!r}, which {config.backbone!r} does not have: "
                "remove tap_points from the configuration to have them found anew."
            )


def _no_grid(config: AnteHocConfig) -> ValueError:
    return ValueError(
        f"The backbone {config.backbone!r} has no layer whose output is a grid of positions, so there is nothing to "
        "make a map from."
    )


def _layers(config: AnteHocConfig, backbone: nn.Module, calls: list[LayerCall]) -> list[TapPoint]:
    """All layers that may be tapped, in the order in which they run."""
    if isinstance(config.taps, list):
        return named_taps(calls, config.taps)
    convolutions = convolution_taps(calls, config.tap_point, config.include_shortcuts)
    convolutional = len(convolutions) > 2 and reaches_last_stage(backbone, calls, convolutions)
    if config.taps == "convolutions" or (config.taps == "auto" and convolutional):
        return convolutions
    return stage_taps(backbone, calls) or convolutions


def _wanted(config: AnteHocConfig, points: list[TapPoint]) -> int:
    """How many of them."""
    if isinstance(config.taps, list):
        wanted = config.num_attention_maps or len(points)
    else:
        wanted = config.num_attention_maps or min(DEFAULT_NUM_ATTENTION_MAPS, len(points))
    if wanted > len(points):
        found = f"{len(points)} layers"
        there = (
            f"taps names only {found}"
            if isinstance(config.taps, list)
            else f"the backbone {config.backbone!r} has only {found} to tap"
        )
        raise ValueError(f"num_attention_maps={wanted}, but {there}: ask for at most {len(points)}, or leave it out.")
    return wanted


def _too_small(calls: list[LayerCall], points: list[TapPoint]) -> list[TapPoint]:
    """Those with a single position along a side: a softmax over it is the constant 1, and such a map says nothing."""
    grids = {(call.module, call.call): call.grid for call in calls}
    found = [(point, grids[point.module, point.call]) for point in points]
    return [point for point, grid in found if grid is not None and min(grid) < 2]


def _check_grids(config: AnteHocConfig, calls: list[LayerCall], points: list[TapPoint]) -> None:
    for point in _too_small(calls, points):
        raise ValueError(
            f"image_size={config.image_size} is too small for the backbone {config.backbone!r}: its layer "
            f"{point.module!r} has only 1 position along a side, and a map needs at least 2×2. Use larger images, "
            "backbone_kwargs={'output_stride': …} where the backbone has it, or other taps."
        )


def supports_gradient_checkpointing(backbone: Any) -> bool:
    """Whether timm can checkpoint this backbone (some have the method only to refuse)."""
    if not hasattr(backbone, "set_grad_checkpointing"):
        return False
    try:
        backbone.set_grad_checkpointing(True)
        backbone.set_grad_checkpointing(False)
    except Exception:  # assertion errors and others alike mean "no"
        return False
    return "enable" in inspect.signature(backbone.set_grad_checkpointing).parameters
