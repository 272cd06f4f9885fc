"""A timm network at home in transformers: what every model of this project shares, whatever it explains."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors import SafetensorError
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import load_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file

from .backbone import (
    check_classifier,
    check_found,
    create_backbone,
    hub_in_one_try,
    reason_of,
    supports_gradient_checkpointing,
)
from .scaling import plain

logger = logging.getLogger(__name__)

_OF_CHECKPOINTS = (".json", ".safetensors", ".txt", ".py", ".md", ".png")  # suffixes of what is read, or pushed


class TimmPreTrainedModel(PreTrainedModel):
    """A timm backbone with its own weights, initial values and head; the rest is added by subclasses."""

    config: Any
    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012  as transformers declares it
    # The loss is a mean over the batch: the Trainer must not scale it for gradient accumulation a second time.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _no_split_modules: list[str] = []  # noqa: RUF012  as transformers declares it

    backbone: Any  # timm's network
    pretrained_source: bool | str = False  # of the weights it started from: timm's on the Hub (True), or a file
    has_new_head: bool = False  # whether these weights left the classifier at its random values

    def _build_backbone(self, num_outputs: int) -> None:
        """The backbone, before anything else that draws random numbers: it starts as timm's network of that seed."""
        self.backbone = create_backbone(self.config, num_outputs)
        check_classifier(self.config, self.backbone)
        self._num_outputs = num_outputs
        self.supports_gradient_checkpointing = supports_gradient_checkpointing(self.backbone)

    def post_init(self) -> None:
        # timm has initialised its network (or loaded its weights): transformers must not do it again.
        for tensor in (*self.parameters(), *self.buffers()):
            if not tensor.is_meta:
                tensor._is_hf_initialized = True  # type: ignore[attr-defined]
        super().post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """What a checkpoint lacks gets the values of a freshly built model, timm's own for the backbone."""
        restore_missing(self, module, lambda: type(self)(self.config))

    def get_input_embeddings(self) -> Any:
        """None: an image has no embeddings."""
        return None

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        self.backbone.set_grad_checkpointing(enable)

    @classmethod
    @torch.inference_mode(False)  # weights that learn later must not be made by a service within inference_mode
    def _from_options(cls, make_config: Any, backbone: str, pretrained: bool | str, options: dict[str, Any]) -> Any:
        """A new model.

        Args:
            make_config, options: the configuration's class, or what makes one of the same options; the options.
            backbone (`str`): any name of `timm.list_models()`, with or without a pretrained tag.
            pretrained (`bool` or `str`): timm's pretrained weights, from the Hub, or the path of a file of them.

        Raises:
            ValueError: for an unknown or unsuitable backbone or a senseless option.
            OSError: if the pretrained weights cannot be had.
        """
        # Of a file of weights: read once, and held until the network has them.
        weights = None if isinstance(pretrained, bool) else _weights_in_file(pretrained)
        if pretrained and not {"num_labels", "id2label"} & set(options):
            options = {**options, **pretrained_labels(backbone, weights)}
            if "id2label" not in options and options.get("num_labels"):
                logger.warning(
                    "The weights of %s do not say what their %d classes are called: name them with id2label, or they "
                    "are LABEL_0, LABEL_1, …", backbone, options["num_labels"],
                )  # fmt: skip
        config = make_config(backbone=backbone, **options)
        fields: dict[str, Any] = cls.config_class.__dataclass_fields__  # type: ignore[union-attr]
        unknown = [name for name in options if name not in fields and name != "num_labels"]
        if unknown:
            near = get_close_matches(unknown[0], fields, n=1)
            hint = f": did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{cls.config_class.__name__} has no option {unknown[0]!r}{hint}")  # type: ignore[union-attr]
        model = cls(config)
        if pretrained:
            load_pretrained_backbone(model.backbone, model.config, model._num_outputs, pretrained, weights)
            model.pretrained_source = pretrained
            there = pretrained_labels(backbone, weights)
            classes = there.get("num_labels") or len(there.get("id2label", ()))
            if model._num_outputs and classes != model._num_outputs:
                model.has_new_head = True
                logger.warning(
                    "The pretrained weights have %d classes, and the model has %d: its classifier is new and random, "
                    "and has to be trained.", classes, model._num_outputs,
                )  # fmt: skip
        return model

    @classmethod
    @torch.inference_mode(False)
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, from safetensors unless `use_safetensors=False` is given (a pickle can run code when it
        is loaded); weights that do not fit are an error, and they end up in aligned memory of their own.

        Weights that stay mapped from the file lie at odd addresses, where the CPU's matrix kernels round otherwise
        (1e-8): a reloaded model would not give the very same numbers.

        Raises:
            ValueError: if the options given do not fit the weights.
            OSError: if the weights are damaged.
        """
        kwargs.setdefault("use_safetensors", True)
        folder = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        with_report, tolerant = kwargs.pop("output_loading_info", False), kwargs.pop("ignore_mismatched_sizes", False)
        where = {key: kwargs[key] for key in ("subfolder", "revision", "cache_dir") if kwargs.get(key)}
        with explained_damage(folder, **where):
            loaded: Any = super().from_pretrained(
                *args, **kwargs, output_loading_info=True, ignore_mismatched_sizes=True
            )
        model, report = loaded
        if report["mismatched_keys"] and not tolerant:
            raise ValueError(mismatch_sentence(str(folder), report["mismatched_keys"]))
        for kept in ("_fresh_values", "_module_names"):  # see `restore_missing`
            model.__dict__.pop(kept, None)
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
                tensor.data = tensor.data.clone()
        return (model, report) if with_report else model

    @property
    def _takes_one_size(self) -> bool:
        """Whether images must have the size that the model was built for."""
        return False

    def _checked_pixels(self, pixel_values: Tensor) -> Tensor:
        """The images as the kind of number that the backbone's weights are.

        Raises:
            ValueError: unless the images are (B, 3, H, W) in floating point, of the model's size if it takes one only.
        """
        if not isinstance(pixel_values, Tensor) or pixel_values.is_nested:
            kind = "a nested tensor" if isinstance(pixel_values, Tensor) else type(pixel_values).__name__
            raise ValueError(f"pixel_values must be a tensor (batch, 3, height, width), not {kind}.")
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"pixel_values must be normalised images in floating point, not {pixel_values.dtype}: use the image "
                "processor."
            )
        shape = tuple(pixel_values.shape)
        if len(shape) != 4 or shape[1] != 3:
            hint = ""
            if len(shape) == 4 and shape[1] == 1:
                hint = ": a grey image has three equal channels, pixel_values.expand(-1, 3, -1, -1)"
            elif len(shape) == 4 and shape[3] == 3:
                hint = ": bring the channels to the front, pixel_values.permute(0, 3, 1, 2)"
            elif shape[:1] == (3,) and len(shape) == 3:
                hint = ": one image is a batch of one, pixel_values[None]"
            raise ValueError(f"pixel_values must be (batch, 3, height, width), not {shape}{hint}.")
        if 0 in shape[2:]:
            raise ValueError(f"pixel_values {shape} hold images without pixels.")
        if self._takes_one_size and list(pixel_values.shape[-2:]) != list(self.config.image_size):
            raise ValueError(
                f"{type(self).__name__} around {self.config.backbone!r} was built for images of "
                f"{self.config.image_size} pixels and takes no other; these have {list(pixel_values.shape[-2:])}."
            )
        weights = next((weight for weight in self.backbone.parameters() if weight.is_floating_point()), pixel_values)
        return plain(pixel_values, "pixel_values", weights).to(weights.dtype)


# -- weights from elsewhere ------------------------------------------------------------------------------------


def load_pretrained_backbone(
    backbone: nn.Module,
    config: Any,
    num_outputs: int,
    source: bool | str | PathLike[str],
    weights: dict[str, Any] | None = None,
) -> None:
    """Puts timm's pretrained weights into `backbone`. A classifier of another size keeps its initial weights.

    Args:
        backbone, config, num_outputs: the network, its configuration, and the size of its classifier.
        source: True for timm's weights from the Hub, or the path of a file of weights.
        weights (`dict`, *optional*): what is in that file, where timm need not read it itself.

    Raises:
        OSError: if the weights cannot be had.
        ValueError: if they do not fit.
    """
    overrides: dict[str, Any] = {"pretrained": True}
    if not isinstance(source, bool):
        classes = _classes_in(weights, config.backbone)
        overlay: dict[str, Any] = {"file": str(source)} if weights is None else {"state_dict": weights, "source": ""}
        if classes is not None:  # timm would keep a classifier only if it has as many classes as the tag's
            overlay |= {"num_classes": classes, **({"label_offset": 0} if classes == num_outputs else {})}
        overrides["pretrained_cfg_overlay"] = overlay
    try:
        # A build of its own, with timm's own care for other sizes of head, position embedding and input.
        with torch.random.fork_rng(), hub_in_one_try(source is True):
            loaded = create_backbone(config, num_outputs, **overrides)
    except ValueError as error:
        raise ValueError(f"The pretrained weights cannot be used: {error}") from error
    except Exception as error:  # huggingface_hub and httpx raise many kinds
        raise _unavailable(f"the pretrained weights of {config.backbone!r}", error) from error
    if weights is not None:
        check_found(loaded, weights, config.backbone)
    backbone.load_state_dict(loaded.state_dict())


def _unavailable(what: str, error: Exception) -> OSError:
    return OSError(
        f"Could not load {what} ({reason_of(error)}). Without a network, download the file beforehand and pass its "
        "path as pretrained=…, or use pretrained=False."
    )


def _weights_in_file(path: str | PathLike[str]) -> dict[str, Any] | None:
    """The tensors in a file of weights; None where timm alone can read it.

    Raises:
        OSError: if the file cannot be read.
    """
    if not isinstance(path, str | PathLike):
        raise ValueError(f"pretrained={path!r} must be True, False or the path of a file of weights.")
    if not Path(path).is_file():
        raise OSError(f"pretrained={str(path)!r} is not a file of weights.")
    if Path(path).suffix == ".npz":
        return None
    try:
        return load_state_dict(str(path))  # type: ignore[no-any-return]
    except Exception as error:  # torch, pickle and safetensors raise many kinds
        if "weights_only" in str(error):  # torch and timm go on to say how to switch the protection off
            raise OSError(
                f"{path} is a pickle that holds more than tensors, and could run any code when it is loaded: save the "
                "weights as safetensors."
            ) from None
        raise _unavailable(str(path), error) from error


def _classes_in(weights: dict[str, Any] | None, backbone: str) -> int | None:
    """How many classes the classifier among these weights has; None where there is none or nothing is known."""
    cfg = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    names = (cfg.classifier if cfg is not None else None) or ()
    for name in (names,) if isinstance(names, str) else names:
        for part in ("bias", "weight"):
            if f"{name}.{part}" in (weights or {}):
                return len((weights or {})[f"{name}.{part}"])
    return None


def pretrained_labels(backbone: str, weights: dict[str, Any] | None = None) -> dict[str, Any]:
    """`id2label` and `label2id` of the data set a timm tag was trained on; the number of classes alone where timm does
    not know their names, or `weights` of a file have another number; empty where nothing is known.
    """
    cfg = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    subset = infer_imagenet_subset(cfg.to_dict()) if cfg is not None else None
    classes = cfg.num_classes if cfg is not None else None
    in_file = _classes_in(weights, backbone)
    subset = subset if in_file in (None, classes) else None
    classes = in_file or classes
    if not subset:
        return {"num_labels": classes} if classes else {}
    info = ImageNetInfo(subset)
    descriptions = info.label_descriptions(as_dict=True)
    names = [descriptions[synset] for synset in info.label_names()]
    unique = len(set(names)) == len(names)
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)} if unique else None,
    }


def check_inside(name: Any, **where: Any) -> None:
    """Raises an OSError if a checkpoint leads out of its folder, by a link or in the index of its weights: who made it
    could have others read and share what is theirs. The Hub's cache, to which downloads link, counts as inside.

    Args:
        name: folder or Hub name of the checkpoint.
        where: `subfolder`, `revision` and `cache_dir`, as of `from_pretrained`.
    """
    folder = Path(str(name), where.get("subfolder", ""))
    if not folder.is_dir():
        index = None
        with suppress(OSError):  # what is missing is said by whoever loads it
            index = cached_file(str(name), SAFE_WEIGHTS_INDEX_NAME, local_files_only=True, **where)
        if index is None:
            return
        folder = Path(index).parent
    root = folder.resolve()
    caches = [Path(HF_HUB_CACHE).resolve(), *(up.parent / "blobs" for up in root.parents if up.name == "snapshots")]
    inside = [path for path in folder.iterdir() if path.suffix in _OF_CHECKPOINTS and path.is_file()]
    for files_of in (lambda path: [path], _files_in):  # the index itself first
        for path in inside:
            for place in map(Path.resolve, files_of(path)):
                if not any(map(place.is_relative_to, (root, *caches))):
                    raise OSError(f"{path.name} in {str(name)!r} leads out of it, to {place}: put the file there.")


def _files_in(index: Path) -> list[Path]:
    """Those that an index of weights names; none of other files, and of a damaged one."""
    try:
        names = json.loads(index.read_bytes())["weight_map"].values() if index.name.endswith(".index.json") else ()
        return [index.parent / name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


@contextmanager
def explained_damage(name: Any, **where: Any) -> Iterator[None]:
    """Turns the failure to read a checkpoint's weights into one sentence.

    Args:
        name, where: as of [`check_inside`].

    Raises:
        OSError: if they are cut short or damaged, or lie elsewhere, or there are none but pickled ones.
    """
    check_inside(name, **where)
    try:
        yield
    except (OSError, UnpicklingError) as error:
        pickled = next((path.name for path in sorted(Path(str(name)).glob("*.bin"))), None)
        if isinstance(error, OSError) and (pickled is None or any(Path(str(name)).glob("*.safetensors"))):
            raise
        raise OSError(
            f"The weights in {str(name)!r} are pickled{f' ({pickled})' if pickled else ''}, and a pickle can run any "
            "code when it is loaded: ask for model.safetensors, or convert them on a machine that holds nothing else."
        ) from None
    except SafetensorError as error:
        raise OSError(
            f"The weights in {str(name)!r} are cut short or damaged ({error}): save the model again, or download it "
            "again with force_download=True."
        ) from error
    check_inside(name, **where)  # of a name on the Hub the index has just been fetched


def mismatch_sentence(name: str, mismatched: Iterable[tuple[str, Iterable[int], Iterable[int]]]) -> str:
    """What to say of weights of another shape: each by its name, its shape in the file and its shape in the model."""
    (weight, there, here), *others = sorted(mismatched)
    more = f" (and {len(others)} more)" if others else ""
    return (
        f"The weights in {name!r} do not fit this configuration: {weight} is {list(there)} in the file and "
        f"{list(here)} in the model{more}. Leave out the options that differ from the checkpoint's (image_size among "
        "them, which not every backbone can change), or begin these weights anew with ignore_mismatched_sizes=True."
    )


def restore_missing(model: nn.Module, module: nn.Module, build: Callable[[], nn.Module]) -> None:
    """Fills the parameters and buffers of `module` that no checkpoint filled from a freshly built model.

    transformers builds on the meta device and leaves non-persistent buffers (blur kernels, position indices) and
    missing parameters without value; a generic initialisation would be wrong for many timm families.

    Args:
        model: the whole model.
        module: one of its modules.
        build: makes a fresh model of the same configuration on the CPU; called at most once a model.
    """
    own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    missing = {name: tensor for name, tensor in own.items() if not getattr(tensor, "_is_hf_initialized", False)}
    if not missing:
        return
    fresh = model.__dict__.get("_fresh_values")
    if fresh is None:
        with torch.random.fork_rng(), torch.device("cpu"):
            source = build()
        fresh = {**dict(source.named_parameters()), **dict(source.named_buffers())}
        prefixes = {id(child): name for name, child in model.named_modules()}
        model.__dict__["_fresh_values"], model.__dict__["_module_names"] = fresh, prefixes
    prefix = model.__dict__["_module_names"][id(module)]
    for name, tensor in missing.items():
        value = fresh[f"{prefix}.{name}" if prefix else name]
        with torch.no_grad():
            tensor.copy_(value.to(device=tensor.device, dtype=tensor.dtype))
        tensor._is_hf_initialized = True  # type: ignore[attr-defined]
