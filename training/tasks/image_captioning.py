"""Image captioning: images in words."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from antehoc_hf.commands.errors import UsageError, need
from antehoc_hf.evaluation import EvaluationSettings
from antehoc_hf.evaluation.captions import as_one_caption, bleu, not_learned, unlearned_words
from antehoc_hf.evaluation.networks import evaluation_mode
from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocImageProcessor
from antehoc_hf.modeling.configuration_captions import check_tokenizer
from antehoc_hf.modeling.word_maps import position_features
from antehoc_hf.training.data import ImageData, ImageDataset, sample
from antehoc_hf.training.data.captions import (
    CaptionCollator,
    CaptionSpace,
    find_caption_columns,
    said_words,
    token_accuracy,
)
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.targets import ReadTargets
from antehoc_hf.training.pushing import Saveable
from antehoc_hf.training.runs.maps import MapChoice
from antehoc_hf.training.runs.options import CaptioningArguments, DataArguments, ModelArguments
from antehoc_hf.training.runs.results import FIGURE_FILE
from antehoc_hf.training.tasks.base import MeasuredMaps, MeasureOptions, Panel, Task, TrainerParts, measured_maps
from antehoc_hf.visualization import denormalise, photo_parts
from antehoc_hf.visualization.captions import Described, caption_panel, word_map_strip

_SHOWN = 12  # images of the figure
_STRIPS = 3  # of these, how many also have a map of each word
WORDS_FILE = "words-{}.png"


class ImageCaptioning(Task[CaptionSpace, AnteHocForImageCaptioning]):
    """A sentence for each image."""

    name = "image-captioning"
    arguments = CaptioningArguments
    model_class = AnteHocForImageCaptioning
    default_map = "energy"
    default_augmentation = "none"  # a mirrored image makes "left" and letters wrong

    def __init__(self, options: CaptioningArguments | None = None) -> None:
        super().__init__(options)
        # Known once the data are loaded; the panels drawn while training need it.
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._unlearned: list[str] = []  # words, known once the captions are measured; the figures say it too

    # -- data and model -----------------------------------------------------------------------------------------

    def load_data(
        self, data: DataArguments, model: AnteHocForImageCaptioning | None = None
    ) -> ImageData[CaptionSpace]:
        """As for every task; the vocabulary is that of the training split, or of the model.

        Raises:
            DataError, UsageError: if there are no words, or what scores captions is not installed.
        """
        need("sacrebleu", "captions", "BLEU")
        loaded = super().load_data(data, model)
        if loaded.targets.tokenizer is None:
            if "train" not in loaded.splits:
                raise DataError(f"{loaded.name} has no training split to take the words from: name its train_split.")
            targets = loaded.targets.with_vocabulary(
                loaded.splits["train"].dataset, self.options.min_word_count, self.options.max_caption_length
            )
            loaded = replace(loaded, targets=targets)
        for role, split in loaded.splits.items():
            loaded.targets.warn_of_losses(split.dataset, role)
        self._tokenizer = loaded.targets.known_tokenizer()
        return loaded

    def read_targets(self, model: AnteHocForImageCaptioning | None = None) -> ReadTargets[CaptionSpace]:
        """The columns of the captions; with a model its tokenizer."""
        tokenizer = None if model is None else tokenizer_of(model)

        def read(dataset: datasets.Dataset, image_column: str, source: str) -> CaptionSpace:
            columns = find_caption_columns(dataset.features, self.options.caption_column, source=source)
            return CaptionSpace(columns, tokenizer)

        return read

    def check_data(self, data: ImageData[CaptionSpace], measure: MeasureOptions) -> None:
        """Raises a UsageError if something was asked for that captions don't have."""
        for option in ("mask_column", "insertion_deletion_images"):
            if getattr(measure, option):
                raise UsageError(f"{option} is not measured for captions: leave it out.")

    def config_options(self, data: ImageData[CaptionSpace]) -> dict[str, object]:
        """The vocabulary and its special tokens."""
        tokenizer = data.targets.known_tokenizer()
        return {
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "max_caption_length": self.options.max_caption_length,
            "decoder_embedding_size": self.options.decoder_embedding_size,
            "decoder_hidden_size": self.options.decoder_hidden_size,
            "decoder_dropout": self.options.decoder_dropout,
        }

    def build_model(
        self, model: ModelArguments, config: Mapping[str, object], map_choice: MapChoice, data: ImageData[CaptionSpace]
    ) -> AnteHocForImageCaptioning:
        """A new model for the data, which never says `<unk>`."""
        built = super().build_model(model, config, map_choice, data)
        built.generation_config.suppress_tokens = [
            *built.generation_config.suppress_tokens,
            data.targets.known_tokenizer().unk_token_id,
        ]
        return built

    def metric_names(self, data: ImageData[CaptionSpace]) -> set[str]:
        """The share of words that are right given those before them."""
        return {*super().metric_names(data), "token_accuracy"}

    def trainer_parts(self, data: ImageData[CaptionSpace]) -> TrainerParts:
        """Batches of captions; of the logits only the likeliest words are gathered."""
        tokenizer = data.targets.known_tokenizer()
        return {
            "data_collator": _collator(tokenizer),
            "compute_metrics": token_accuracy,
            "preprocess_logits_for_metrics": said_words,
        }

    def companions(self, data: ImageData[CaptionSpace]) -> list[Saveable]:
        """The tokenizer."""
        return [data.targets.known_tokenizer()]

    # -- reports and figures ------------------------------------------------------------------------------------

    def describe(self, data: ImageData[CaptionSpace]) -> dict[str, object]:
        """Columns and vocabulary."""
        return {"caption_columns": data.targets.columns, "vocab_size": len(data.targets.known_tokenizer())}

    def summary(self, data: ImageData[CaptionSpace]) -> str:
        """How many words."""
        return f"captions of {len(data.targets.known_tokenizer())} words"

    def panel(self, model: AnteHocForImageCaptioning, batch: Mapping[str, Tensor]) -> Panel:
        """Image, map and overlay, with what is said and what a person said."""
        pixel_values, labels = batch["pixel_values"], batch["labels"]
        written = model.caption(pixel_values.to(model.dtype))

        def draw(title: str) -> Figure:
            tokenizer = self._tokenizer
            assert tokenizer is not None
            people = tokenizer.batch_decode(labels.clamp_min(tokenizer.pad_token_id), skip_special_tokens=True)
            pictures = denormalise(pixel_values, model.config.image_mean, model.config.image_std)
            return _figure(pictures, written, tokenizer, people, title)

        return draw

    def measure(
        self,
        model: AnteHocForImageCaptioning,
        images: ImageDataset,
        processor: AnteHocImageProcessor,
        options: MeasureOptions,
    ) -> MeasuredMaps:
        """BLEU of the captions of all images; Drop and Inc of the reference's probability on a sample."""
        space: CaptionSpace = images.targets  # type: ignore[assignment]
        tokenizer = space.known_tokenizer()
        written = write_captions(
            model, images, tokenizer, self.options.num_beams, options.batch_size, options.workers, options.progress
        )
        references = space.all_references(images.split.dataset)
        metrics = bleu(written, references)
        metrics["distinct_captions"] = len(set(written))
        warning = as_one_caption(written, references)
        if warning:  # no word of them means anything
            self._unlearned = sorted({word for caption in written for word in caption.split()})
        else:
            self._unlearned = unlearned_words(written, references)
            warning = not_learned(self._unlearned)
        if options.count < 1:
            return MeasuredMaps(metrics=metrics, warning=warning)
        settings = EvaluationSettings(target=options.target)
        found = measured_maps(model, images, options, settings, collate_fn=_collator(tokenizer))
        return replace(found, metrics=metrics, warning=warning)

    def save_figures(
        self,
        model: AnteHocForImageCaptioning,
        images: ImageDataset,
        processor: AnteHocImageProcessor,
        folder: Path,
        warning: str = "",
    ) -> list[str]:
        """Captions with their maps, of a sample of the images; of some of them the maps of their words as well."""
        positions = sample(images, _SHOWN)
        pixel_values = torch.stack([images[position]["pixel_values"] for position in positions])
        space: CaptionSpace = images.targets  # type: ignore[assignment]
        tokenizer = space.known_tokenizer()
        people = [texts[0] for texts in space.all_references(images.split.dataset.select(positions))]
        strips = has_word_maps(model)
        with evaluation_mode(model):
            written: Any = model.caption(
                pixel_values.to(model.device, model.dtype), output_word_maps=strips, num_beams=self.options.num_beams
            )
        pictures = photo_parts(images.photos(positions), processor)
        _figure(pictures, written, tokenizer, people, warning or None, columns=2).savefig(folder / FIGURE_FILE)
        if not strips:
            return [FIGURE_FILE]
        names = [FIGURE_FILE]
        for index in range(min(_STRIPS, len(pictures))):
            words = said_tokens(written.sequences[index], tokenizer)
            if words:
                maps = written.word_maps[index, : len(words)]
                whole = written.interpretation_map[index]
                strip = word_map_strip(pictures[index], words, maps, whole, unlearned=self._unlearned)
                names.append(WORDS_FILE.format(index + 1))
                strip.savefig(folder / names[-1])
        return names


def tokenizer_of(model: AnteHocForImageCaptioning) -> PreTrainedTokenizerBase:
    """The tokenizer in a trained model's folder.

    Raises:
        DataError: if there is none, or it is another model's.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.name_or_path)
        check_tokenizer(tokenizer, model.config)
    except (OSError, ValueError) as error:
        raise DataError(f"The tokenizer of {model.name_or_path} can't be used: {error}") from None
    return tokenizer


def write_captions(
    model: AnteHocForImageCaptioning,
    images: ImageDataset,
    tokenizer: PreTrainedTokenizerBase,
    num_beams: int = 1,
    batch_size: int = 32,
    workers: int = 0,
    progress: bool = True,
) -> list[str]:
    """The model's caption of every image, in order.

    Args:
        model (`AnteHocForImageCaptioning`): in any mode, and left in it.
        images: of a split, without augmentation.
        tokenizer: the model's.
        num_beams (`int`): of the beam search; 1: greedy.
        batch_size, workers (`int`): of the data loader.
        progress (`bool`): show a bar.
    """
    loader = DataLoader(images, batch_size, num_workers=workers, collate_fn=_collator(tokenizer))
    captions: list[str] = []
    with evaluation_mode(model), torch.no_grad():
        for batch in tqdm(loader, desc="Writing captions", unit="batch", disable=not progress):
            pixel_values = batch["pixel_values"].to(model.device, model.dtype)
            sequences: Any = model.generate(  # type: ignore[misc]
                pixel_values=pixel_values, num_beams=num_beams
            )
            captions += tokenizer.batch_decode(sequences, skip_special_tokens=True)
    return captions


def said_tokens(sequence: Tensor, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The words of a sequence that `generate` gave, without start, end and padding."""
    special = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    ids = [index for index in sequence[1:].tolist() if index not in special]
    return list(tokenizer.convert_ids_to_tokens(ids))


def has_word_maps(model: AnteHocForImageCaptioning) -> bool:
    """Whether words have maps: learned ones, or of the backbone's last features where these are a grid."""
    if model.map_head.per_target:
        return True
    height, width = model.config.image_size
    with evaluation_mode(model), torch.no_grad():
        blank = torch.zeros(1, 3, height, width, device=model.device, dtype=model.dtype)
        features = model.encode(blank, output_features=True).features
        assert features is not None
        try:
            position_features(model.backbone, features)
        except ValueError:
            return False
    return True


def _collator(tokenizer: PreTrainedTokenizerBase) -> CaptionCollator:
    return CaptionCollator(tokenizer.pad_token_id, tokenizer.bos_token_id)


def _figure(
    pictures: NDArray[np.uint8],
    written: Any,
    tokenizer: PreTrainedTokenizerBase,
    people: list[str],
    title: str | None = None,
    columns: int = 1,
) -> Figure:
    texts = tokenizer.batch_decode(written.sequences, skip_special_tokens=True)
    described = [Described(*row) for row in zip(texts, written.probability.tolist(), people, strict=True)]
    maps, degenerate = written.interpretation_map, written.degenerate
    return caption_panel(pictures, maps, described, degenerate=degenerate, title=title, columns=columns)
