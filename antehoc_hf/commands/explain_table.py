"""Explanations of many images as a table in parts, which several processes share and an interrupted run takes up
again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch
from PIL import Image
from pyarrow import parquet
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from antehoc_hf import example
from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.explain_images import explainer_named, target_named
from antehoc_hf.commands.inputs import image_files, in_words, load_model, predictions
from antehoc_hf.explainers import Explainer
from antehoc_hf.modeling import AnteHocForImageClassification
from antehoc_hf.pipelines.images import without_ends
from antehoc_hf.training.data.columns import find_image_column
from antehoc_hf.training.data.errors import BadImageError
from antehoc_hf.training.data.images import decode_image, raw_images
from antehoc_hf.training.data.sources import load_source
from antehoc_hf.training.runs.results import write_results

if TYPE_CHECKING:
    from antehoc_hf.commands.explain import ExplainArguments

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Share:
    """Which of how many processes this is, as `accelerate launch`, `torchrun` or the user says in the environment."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Share:
        """Raises a UsageError if RANK and WORLD_SIZE are not such numbers."""
        rank, world_size = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
        if not (rank.isdigit() and world_size.isdigit() and int(rank) < int(world_size)):
            raise UsageError(
                f"RANK={rank} and WORLD_SIZE={world_size} of the environment do not say which of how many processes "
                "this is: RANK counts from 0."
            )
        return cls(int(rank), int(world_size))


class Images(Dataset[tuple[int, Tensor | None, str | None]]):
    """Position, `pixel_values` (3, H, W) and, of an image that cannot be read instead, the reason."""

    def __init__(self, names: list[str], values: Any, processor: Any) -> None:
        self.names, self.values, self.processor = names, values, processor

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[int, Tensor | None, str | None]:
        try:
            image = decode_image(self.values[index], self.names[index])
        except BadImageError as error:
            return index, None, str(error)
        inputs = self.processor(images=[without_ends(image, self.processor)], return_tensors="pt")
        return index, inputs.pixel_values[0], None


class _Column:
    """The images of a data set, not decoded."""

    def __init__(self, dataset: datasets.Dataset, column: str) -> None:
        self.rows, self.column = raw_images(dataset.select_columns([column]), column), column

    def __getitem__(self, index: int) -> Any:
        return self.rows[index][self.column]


def explain_table(options: ExplainArguments) -> list[Path]:
    """Explains images part by part. A part is written whole or not at all, and one that is there is left as it is: a
    run that was stopped goes on with the parts that are missing. Processes share the parts by number and need not know
    of each other.

    Writes `part-00000-of-00020.parquet` and so on, with a row for each image: `row`, `file`, `prediction`, `error`
    (why it could not be read) and, for each method, `NAME` (H, W) float16 in [0, 1] and `NAME_degenerate`.

    Args:
        options: see `antehoc explain --help`.

    Returns:
        `list[Path]`: the parts that this process has written.

    Raises:
        ValueError: for options or images that make no sense, or a folder with the parts of another run.
        OSError: if the model cannot be loaded.
    """
    share, folder = Share.of_environment(os.environ), Path(options.output_dir)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    names, values = _named_images(options)
    model, processor = load_model(options.model or example.MODEL)
    explainers = {
        name: explainer_named(name, model, processor, options.layer) for name in dict.fromkeys(options.explainers)
    }
    target = target_named(model, options.target)
    parts = [
        range(start, min(start + options.part_size, len(names))) for start in range(0, len(names), options.part_size)
    ]
    files = [folder / f"part-{index:05d}-of-{len(parts):05d}.parquet" for index in range(len(parts))]
    _begin(folder, _identity(options, names, model, list(explainers)), options.overwrite, share)
    mine = range(share.rank, len(parts), share.world_size)
    missing = [index for index in mine if not files[index].exists()]
    if len(missing) < len(mine):
        print(f"{len(mine) - len(missing)} of {len(mine)} parts are there already, from before.")
    _write_parts(
        {files[index]: parts[index] for index in missing},
        Images(names, values, processor),
        model,
        explainers,
        target,
        options,
    )
    there = sum(file.exists() for file in files)
    print(f"{there} of {len(files)} parts are in {folder}; datasets.load_dataset('parquet', data_files=…) reads them.")
    return [files[index] for index in missing]


def _write_parts(
    parts: Mapping[Path, range],
    images: Images,
    model: Any,
    explainers: dict[str, Explainer],
    target: Any,
    options: ExplainArguments,
) -> None:
    """The maps of each part's images into its file, in order."""
    batches = [
        list(rows[start : start + options.batch_size])
        for rows in parts.values()
        for start in range(0, len(rows), options.batch_size)
    ]
    # Not that of the maps in hand: a part may hold nothing but unreadable images, and all parts are one table.
    height, width = images.processor(images=[Image.new("RGB", (64, 64))], return_tensors="pt").pixel_values.shape[-2:]
    loader = DataLoader(images, batch_sampler=batches, collate_fn=list, num_workers=options.workers)
    done: list[dict[str, Any]] = []
    remaining = iter(parts.items())
    with tqdm(total=sum(map(len, batches)), desc="Explaining", unit="image") as progress:
        file, rows = next(remaining, (Path(), range(0)))
        for batch in loader:
            _stop_at_unreadable(batch, options.on_bad_image)
            done += _explained(model, explainers, target, batch, images.names)
            progress.update(len(batch))
            if len(done) == len(rows):
                _write(file, done, list(explainers), (height, width))
                done, (file, rows) = [], next(remaining, (Path(), range(0)))


def _named_images(options: ExplainArguments) -> tuple[list[str], Any]:
    """What the images are called, and where they are."""
    if options.dataset_name is None:
        paths = [str(path) for path in image_files(options.images or example.IMAGES, options.output_dir)]
        return paths, paths
    source = load_source(options.dataset_name)
    if options.split not in source.splits:
        raise UsageError(
            f"{options.dataset_name} has no split {options.split!r}: choose one of {', '.join(source.splits)} with "
            "--split."
        )
    dataset = source.splits[options.split]
    column = find_image_column(dataset.features, source=options.dataset_name)
    return [f"row {index} of {options.split}" for index in range(len(dataset))], _Column(dataset, column)


def _identity(options: ExplainArguments, names: list[str], model: Any, explainers: list[str]) -> dict[str, Any]:
    """By which the parts of one run are told from those of another, whoever makes them."""
    weights = hashlib.sha256()
    for tensor in model.state_dict().values():
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {
        "model": options.model or "the example",
        "weights": weights.hexdigest(),
        "images": len(names),
        "data": options.dataset_name or "files",
        "names": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "explainers": explainers,
        "target": options.target,
        "layer": options.layer,
        "part_size": options.part_size,
    }


def _begin(folder: Path, identity: dict[str, Any], overwrite: bool, share: Share) -> None:
    """Says whose parts these will be, or finds that they are this run's."""
    path = folder / RUN_FILE
    if overwrite and share.world_size > 1:
        raise UsageError(f"Several processes cannot replace an earlier run: remove {folder} and start them again.")
    if overwrite:
        for old in [path, *folder.glob("part-*.parquet")]:
            old.unlink(missing_ok=True)
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name, value in identity.items() if earlier.get(name) != value]
        if differing:
            raise UsageError(
                f"{folder} holds parts of another run ({', '.join(differing)} differ): name another --output_dir, or "
                "add --overwrite to replace them."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f"{RUN_FILE}.{share.rank}"  # all write the same; whoever is last replaces it by itself
    write_results(own, identity)
    os.replace(own, path)


def _stop_at_unreadable(batch: list[tuple[int, Tensor | None, str | None]], on_bad_image: str) -> None:
    for _, _, reason in batch:
        if reason is not None and on_bad_image == "stop":
            raise BadImageError(f"{reason.rstrip('.')}; --on_bad_image skip leaves such files out.")


@torch.inference_mode()
def _explained(
    model: Any,
    explainers: dict[str, Explainer],
    target: Any,
    batch: list[tuple[int, Tensor | None, str | None]],
    names: list[str],
) -> Iterator[dict[str, Any]]:
    """A row for each image, in order."""
    pixels = [pixel_values for _, pixel_values, _ in batch if pixel_values is not None]
    told: list[str] = []
    maps: dict[str, np.ndarray[Any, Any]] = {}
    degenerate: dict[str, list[bool]] = {}
    if pixels:
        pixel_values, rest = torch.stack(pixels), dict(explainers)
        if "antehoc" in explainers and target is None and isinstance(model, AnteHocForImageClassification):
            outputs = model(pixel_values.to(device=model.device, dtype=model.dtype))  # map and prediction at once
            found = ~outputs.degenerate[:, None, None, None]
            maps["antehoc"] = _half(outputs.interpretation_map * found)
            degenerate["antehoc"] = outputs.degenerate.tolist()
            told = in_words(model, outputs.logits)
            del rest["antehoc"]
        else:
            told = predictions(model, pixel_values)
        for name, explainer in rest.items():
            result = explainer.explain(pixel_values, target)
            maps[name], degenerate[name] = _half(result.maps), result.degenerate.tolist()
    position = 0
    for index, pixel, reason in batch:
        row: dict[str, Any] = {"row": index, "file": names[index], "prediction": None, "error": reason}
        if pixel is not None:
            row["prediction"] = told[position]
            for name in explainers:
                row |= {name: maps[name][position], f"{name}_degenerate": degenerate[name][position]}
            position += 1
        yield row


def _half(maps: Tensor) -> np.ndarray[Any, Any]:
    """(B, H, W) float16: to a thousandth, in half the room."""
    return maps[:, 0].cpu().numpy().astype(np.float16)


def _write(path: Path, rows: list[dict[str, Any]], explainers: list[str], shape: tuple[int, int]) -> None:
    """One part with maps of this height and width, whole or not at all."""
    features: dict[str, Any] = {name: datasets.Value("string") for name in ("file", "prediction", "error")}
    features = {"row": datasets.Value("int64"), **features}
    for name in explainers:
        features |= {name: datasets.Array2D(shape, "float16"), f"{name}_degenerate": datasets.Value("bool")}
    columns = {name: [row.get(name) for row in rows] for name in features}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        parquet.write_table(table.data.table, unfinished)  # `to_parquet` would show a bar within the command's
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
