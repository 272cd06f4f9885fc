"""Loading a model for a command or the page: weights that are not the model's are an error, not a warning."""

import json
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import EntryNotFoundError
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoImageProcessor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, logging

from antehoc_hf.commands.errors import UsageError, check_model, in_a_sentence
from antehoc_hf.model_cards.card import weights_digest
from antehoc_hf.model_cards.travel import FolderError, read_json
from antehoc_hf.modeling.backbone import hub_in_one_try, reason_of
from antehoc_hf.modeling.timm_model import TimmPreTrainedModel, check_inside, explained_damage

logger = logging.get_logger(__name__)


def fetch_backbone(name: str) -> None:
    """Brings timm's pretrained weights into the Hub's cache, if they are not there.

    Raises:
        UsageError: if they cannot be had.
    """
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if cfg is None or not cfg.hf_hub_id:
        return  # whoever builds the network says what is wrong
    try:
        with hub_in_one_try():
            try:
                hf_hub_download(cfg.hf_hub_id, cfg.hf_hub_filename or "model.safetensors")
            except EntryNotFoundError:
                hf_hub_download(cfg.hf_hub_id, "pytorch_model.bin")
    except Exception as error:  # huggingface_hub and httpx raise many kinds
        raise UsageError(
            f"The pretrained weights of {name!r} cannot be had from the Hub ({reason_of(error)}): download the file "
            "beforehand and name it with --pretrained_file, or leave out --pretrained."
        ) from error


def model_config(name: str | Path) -> Any:
    """The configuration of a model, by its folder or its name on the Hub.

    Raises:
        UsageError: if there is no such folder, or it holds no model, as that of a training that has not ended.
        OSError: if the Hub does not give it.
    """
    folder = Path(name)
    check_model(name)
    if folder.is_dir() and not (folder / "config.json").exists():
        steps = sorted(folder.glob("checkpoint-*/config.json"), key=lambda path: path.stat().st_mtime)
        hint = f"its training has not ended; {steps[-1].parent} is its last checkpoint" if steps else "name another"
        raise UsageError(f"{name} holds no model (there is no config.json): {hint}.")
    if folder.is_file():
        raise UsageError(f"{name} is a file: name the folder of a model.")
    check_inside(name)
    try:
        with hub_in_one_try(not folder.is_dir()):
            if not folder.is_dir():
                return AutoConfig.from_pretrained(name)
            with in_a_sentence(f"{name} cannot be loaded: its config.json is damaged or of no known model"):
                return AutoConfig.from_pretrained(name)
    except OSError as error:
        if folder.is_dir():
            raise UsageError(f"{name} cannot be loaded: {' '.join(str(error).split())}") from None
        if HF_HUB_OFFLINE:
            raise UsageError(
                f"There is no model {str(name)!r}: it is not a folder here and not among the downloaded ones, and "
                "offline mode is on (HF_HUB_OFFLINE)."
            ) from None
        raise


def load_processor(name: str) -> Any:
    """A model's image processor; raises a UsageError if its file is damaged."""
    with in_a_sentence(
        f"The image processor of {name} cannot be loaded, its preprocessor_config.json is missing or damaged"
    ):
        return AutoImageProcessor.from_pretrained(name)


def load_weights(model_class: Any, name: str | Path) -> Any:
    """`model_class.from_pretrained(name)`, from safetensors alone.

    Warns if a `results.json` beside them was measured on other weights.

    Raises:
        UsageError: if tensors of the model are missing in its files or have another shape there, are integers, or are
            not finite, or if what the model predicts is not.
        OSError: if the files cannot be loaded.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what is missing is said below, in one sentence
    try:
        with explained_damage(name), _of_folder(name):
            model, found = model_class.from_pretrained(
                name, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
            )
    finally:
        logging.set_verbosity(verbosity)
    mismatched = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
    absent = sorted({*found["missing_keys"], *mismatched})
    if absent:
        raise UsageError(
            f"The weights in {str(name)!r} are not those of this model: {len(absent)} of {len(model.state_dict())} "
            f"tensors are missing or have another shape, such as {absent[0]}: save the whole model again, or name "
            "another."
        )
    whole = _stored_as_integers(model, name)
    if whole:
        raise UsageError(
            f"{len(whole)} of {len(model.state_dict())} tensors in {str(name)!r} are stored as integers, such as "
            f"{whole[0]}, where this model has floating-point numbers: save it again as float32, float16 or bfloat16."
        )
    check_finite(model, name)
    check_predicts(model, name)
    with suppress(FolderError):  # damaged results are no reason not to load a model
        measured = ((read_json(Path(name) / "results.json") or {}).get("training") or {}).get("weights_sha256")
        if measured is not None and measured != weights_digest(Path(name)):
            logger.warning(
                f"{Path(name) / 'results.json'} was measured on other weights than those that lie there now: they "
                "were replaced, or the file is damaged."
            )
    return model


@torch.no_grad()
def check_predicts(model: Any, name: str | Path) -> None:
    """Raises a UsageError if what a model predicts is not finite: its numbers may overflow, or be a negative variance.
    A network of others that does not take an image of its configured size (or 224) is passed over.
    """
    config: Any = model.config
    ours = isinstance(model, TimmPreTrainedModel)
    size: Any = getattr(config, "image_size", None) or (getattr(config, "pretrained_cfg", None) or {}).get(
        "input_size"
    )
    height, width = (size, size) if isinstance(size, int) else (list(size)[-2:] if size else (224, 224))
    ramp = torch.linspace(-2, 2, 3 * height * width, device=model.device, dtype=model.dtype)
    found: list[Any] = []
    with nullcontext() if ours else suppress(Exception):  # of whatever an unknown network makes of it
        outputs = model.eval()(ramp.view(1, 3, height, width))
        found = list(outputs.values()) if ours else [outputs.logits]
    if not all(bool(value.isfinite().all()) for value in found if isinstance(value, torch.Tensor)):
        raise UsageError(
            f"The model in {str(name)!r} predicts NaN or infinity: its training diverged, or the file of its weights "
            "is damaged; name an earlier checkpoint or another model."
        )


def _stored_as_integers(model: nn.Module, name: str | Path) -> list[str]:
    """Weights that transformers would have taken as they are: whole numbers without the scale that they need."""
    types: dict[str, str] = {}
    for path in _files_of(name):
        with safe_open(path, "pt") as file:
            types |= {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    return [
        key
        for key, value in model.state_dict().items()
        if value.is_floating_point() and types.get(key, "F").startswith(("I", "U", "BOOL"))
    ]


def _files_of(name: str | Path) -> list[str]:
    """The weights as they lie here, in one file or several; none if they are elsewhere."""

    def found(file: str) -> str | None:
        return cached_file(str(name), file, local_files_only=True, _raise_exceptions_for_missing_entries=False)

    whole, index = found(SAFE_WEIGHTS_NAME), found(SAFE_WEIGHTS_INDEX_NAME)
    if whole is not None or index is None:
        return [] if whole is None else [whole]
    parts = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()
    return [path for part in sorted(set(parts)) if (path := found(part)) is not None]


def _of_folder(name: str | Path) -> AbstractContextManager[None]:
    """What else is wrong with the files in a folder."""
    damaged = f"The model in {str(name)!r} cannot be loaded, its config.json or its weights are damaged"
    return in_a_sentence(damaged) if Path(name).is_dir() else nullcontext()


def check_finite(model: nn.Module, name: str | Path) -> None:
    """Raises a UsageError if a parameter or a running statistic is NaN or infinite, or another buffer NaN."""
    tensors = model.state_dict()
    learned = {key for key, _ in model.named_parameters(remove_duplicate=False)}
    learned |= {key for key in tensors if key.endswith((".running_mean", ".running_var"))}
    broken = [
        key
        for key, tensor in tensors.items()
        if tensor.is_floating_point()
        and not bool((torch.isfinite(tensor) if key in learned else ~torch.isnan(tensor)).all())
    ]
    if broken:
        raise UsageError(
            f"{len(broken)} of {len(tensors)} tensors in {str(name)!r} hold NaN or infinity, such as {broken[0]}: its "
            "training diverged, or the file is damaged; name an earlier checkpoint or another model."
        )
