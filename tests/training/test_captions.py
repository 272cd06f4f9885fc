"""Captions of a data set: found, put into words, and learned without any cost to the words."""

import copy
import json
import logging
from dataclasses import fields
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import run_in_two_processes
from PIL import Image
from torch import nn
from transformers import AutoTokenizer, Trainer, TrainingArguments

from antehoc_hf.cli import main
from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocImageProcessor
from antehoc_hf.training.data.captions import (
    CaptionCollator,
    CaptionSpace,
    build_tokenizer,
    find_caption_columns,
    token_accuracy,
)
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.objectives import EnergyObjective
from antehoc_hf.training.runs.options import DataArguments
from antehoc_hf.training.runs.train import train
from antehoc_hf.training.tasks.image_captioning import CaptioningArguments, ImageCaptioning
from antehoc_hf.training.trainer import AnteHocTrainer

TEXT, TEXTS, IMAGE = datasets.Value("string"), datasets.List(datasets.Value("string")), datasets.Image()


@pytest.fixture(scope="session")
def tiny(tiny_captions):
    return tiny_captions


# -- columns and words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"caption": TEXT}, ["caption"]),
        ({"captions": TEXTS, "caption_regions": datasets.List(TEXTS)}, ["captions"]),
        ({"text": TEXT, "id": datasets.Value("int64")}, ["text"]),
        ({"Caption": TEXTS, "text": TEXT}, ["Caption"]),
        ({f"caption_{index}": TEXT for index in (10, 9, 0)}, ["caption_0", "caption_9", "caption_10"]),
        ({"caption1": TEXT, "caption2": TEXT, "label": datasets.Value("string")}, ["caption1", "caption2"]),
    ],
)
def test_columns_are_found(columns, found):
    assert find_caption_columns(datasets.Features({"image": IMAGE, **columns})) == found


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"label": datasets.ClassLabel(names=["a"])}, "No column of the set looks like the caption.*caption_column"),
        ({"caption": TEXT, "captions": TEXTS}, "Several columns of the set may be the caption: 'caption', 'captions'"),
        ({"text": TEXT, "sentence_1": TEXT}, "Several columns.*'text', 'sentence'"),
        ({"caption": datasets.Value("int64")}, "No column"),
    ],
)
def test_columns_that_are_not_clear(columns, sentence):
    features = datasets.Features({"image": IMAGE, **columns})
    with pytest.raises(DataError, match=sentence):
        find_caption_columns(features, source="the set")


def test_columns_that_were_named():
    features = datasets.Features({"image": IMAGE, "caption": TEXT, "french": TEXT, "label": datasets.Value("int64")})
    assert find_caption_columns(features, ["french", "caption"]) == ["french", "caption"]
    with pytest.raises(DataError, match="caption_column='german' is not a column of the data set"):
        find_caption_columns(features, ["german"])
    with pytest.raises(DataError, match="'label' of the data set does not hold text"):
        find_caption_columns(features, ["label"])


def test_tokenizer_by_hand(tmp_path):
    captions = ["A dog, a DOG!", "The man's dog - running.", "a cat", "“a” ’cat’"]
    tokenizer = build_tokenizer(captions, min_word_count=2, max_caption_length=6)
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3, "a": 4, "dog": 5, "cat": 6}
    assert tokenizer.get_vocab() == vocabulary
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for own in (tokenizer, again):
        assert own("The CAT's a dog-cat.").input_ids == [3, 3, 4, 5, 6, 2]
        assert own("a cat a cat a cat a cat", truncation=True).input_ids == [4, 6, 4, 6, 2]
        assert own.decode([1, 4, 5, 2, 0, 0], skip_special_tokens=True) == "a dog"
        assert (own.bos_token_id, own.eos_token_id, own.pad_token_id, own.unk_token_id) == (1, 2, 0, 3)
        assert own.model_max_length == 5
    with pytest.raises(DataError, match=r"No word occurs 9 times.*lower min_word_count"):
        build_tokenizer(captions, min_word_count=9, max_caption_length=6)


def plain_image(colour=(200, 30, 30)):
    return Image.fromarray(np.full((40, 40, 3), colour, dtype=np.uint8))


def split_of(captions, name="captions"):
    features = datasets.Features({"image": IMAGE, name: TEXTS if isinstance(captions[0], list) else TEXT})
    return datasets.Dataset.from_dict({"image": [plain_image()] * len(captions), name: captions}, features=features)


@pytest.mark.parametrize("captions", [[["a dog"], []], [["a dog"], ["", "?!"]], ["a dog", None], ["a dog", " . "]])
def test_image_without_a_caption(captions, tmp_path):
    datasets.DatasetDict(train=split_of(captions)).save_to_disk(tmp_path)
    task = ImageCaptioning(CaptioningArguments(min_word_count=1))
    with pytest.raises(DataError, match=r"Row 1 of split 'train' has no caption with a word in it \('captions'\)"):
        task.load_data(DataArguments(dataset_name=str(tmp_path)))


def test_long_captions_and_unknown_words_are_counted(tmp_path, caplog):
    train = split_of([["a dog runs far", "a dog"], ["a cat", "a dog runs far away from the cat"]] * 3)
    test = split_of([["a dog sees a zebra"], ["a cat"]])
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path)
    task = ImageCaptioning(CaptioningArguments(min_word_count=1, max_caption_length=7))
    with caplog.at_level(logging.WARNING, logger="antehoc_hf"):
        data = task.load_data(DataArguments(dataset_name=str(tmp_path), validation_fraction=0))
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "3 of the 12 captions of split 'train' are longer than 5 words and are cut off there (max_caption_length=7).",
        "2 of the 7 words in the captions of split 'test' (28.6 %) are not in the vocabulary and become <unk>.",
    ]
    items = data.with_transforms(AnteHocImageProcessor.from_backbone("test_resnet", image_size=32), "none")
    lengths = {len(items.train[1]["labels"]) for _ in range(20)}
    assert lengths == {3, 6}, "one of two captions, the long one cut off, each with its end"
    assert len({len(items.test[0]["labels"]) for _ in range(20)}) == 1, "the first, always"


def test_vocabulary_is_that_of_the_training_images_alone(tmp_path):
    captions = [["a red dog"], ["a blue cat"], ["a green bird"], ["a black fish"]]
    task = ImageCaptioning(CaptioningArguments(min_word_count=1))
    datasets.DatasetDict(train=split_of(captions)).save_to_disk(tmp_path)
    data = task.load_data(DataArguments(dataset_name=str(tmp_path), validation_fraction=0.25))
    known = set(data.targets.tokenizer.get_vocab())
    held_out = data.validation["captions"][0][0].split()[1:]
    assert not known & set(held_out)
    assert len(known) == 4 + 1 + 2 * 3


def test_batches_by_hand():
    items = [{"pixel_values": torch.zeros(3, 4, 4), "labels": torch.tensor(ids)} for ids in ([5, 6, 2], [7, 2])]
    batch = CaptionCollator(pad_token_id=0, bos_token_id=1)(items)
    assert batch["labels"].tolist() == [[5, 6, 2], [7, 2, -100]]
    assert batch["decoder_input_ids"].tolist() == [[1, 5, 6], [1, 7, 2]]
    assert batch["pixel_values"].shape == (2, 3, 4, 4)
    prediction = SimpleNamespace(label_ids=batch["labels"].numpy(), predictions=np.array([[5, 0, 2], [7, 9, 9]]))
    assert token_accuracy(prediction) == {"token_accuracy": pytest.approx(3 / 5)}


def test_a_space_can_be_sent_to_workers():
    import pickle

    space = CaptionSpace(["caption"]).with_vocabulary(split_of(["a dog"], "caption"), 1, 8)
    encode = space.encoder(AnteHocImageProcessor.from_backbone("test_resnet", image_size=32), "flip")
    items = pickle.loads(pickle.dumps(encode))([plain_image()], {"caption": ["a dog"]})
    assert items[0]["labels"].tolist() == [4, 5, 2]


# -- training -------------------------------------------------------------------------------------------------------


class PlainCaptioner(nn.Module):
    """A timm network and an LSTM as anybody would give them to the stock Trainer."""

    def __init__(self, network, decoder):
        super().__init__()
        self.network, self.decoder = network, decoder
        self.config = SimpleNamespace()

    def forward(self, pixel_values, labels=None, decoder_input_ids=None):
        features = self.network(pixel_values)
        logits, _ = self.decoder(decoder_input_ids, self.decoder.start(features))
        outputs = {"logits": logits}
        if labels is not None:
            outputs = {"loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()), **outputs}
        return outputs


@pytest.mark.parametrize(
    ("caption_target", "options"),
    [
        ("reference", {"gradient_accumulation_steps": 2, "max_grad_norm": 0.05}),
        ("generated", {}),
        *(
            pytest.param(target, options, marks=pytest.mark.slow)
            for target, options in [
                ("reference", {}),
                ("generated", {"target_eval": True, "interpretation_batch_share": 0.5}),
                ("reference", {"target_eval": True, "interpretation_batch_share": 0.5}),
                ("reference", {"label_smoothing_factor": 0.1}),
                ("generated", {"label_smoothing_factor": 0.1, "update_order": "sequential"}),
                ("reference", {"bf16": True}),
            ]
        ),
    ],
)
def test_words_are_learned_as_without_a_map(tiny, tmp_path, options, caption_target):
    options = dict(options)
    model = tiny.build_model(
        caption_target=caption_target, decoder_dropout=0.3, backbone_kwargs={"drop_path_rate": 0.3}
    )
    plain = PlainCaptioner(copy.deepcopy(model.backbone), copy.deepcopy(model.decoder))
    fresh = copy.deepcopy(model)
    data = tiny.Captions(22, draws=True)
    energy = {name: options.pop(name) for name in ("target_eval",) if name in options}
    args = tiny.build_args(tmp_path / "ours", **options)
    stock_args = TrainingArguments(
        **{field.name: getattr(args, field.name) for field in fields(TrainingArguments) if field.init}
        | {"output_dir": str(tmp_path / "stock"), "ddp_find_unused_parameters": None}
    )
    objective = EnergyObjective(**energy)
    trainer = AnteHocTrainer(model, args, objective=objective, train_dataset=data, data_collator=tiny.COLLATE)
    trainer.train()
    stock = Trainer(plain, stock_args, train_dataset=data, data_collator=tiny.COLLATE)
    stock.train()
    for ours, theirs in ((model.backbone, plain.network), (model.decoder, plain.decoder)):
        for (name, value), expected in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(value, expected), name
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, fresh.get_parameter(name))}
    # The weight network starts at equal weights, so that at first its last layer alone has a gradient.
    assert changed >= {name for name, _ in fresh.named_parameters() if not name.startswith("map_head")}
    assert any(name.startswith("map_head") for name in changed)
    losses = [row["interpretation_loss"] for row in trainer.state.log_history if "loss" in row]
    assert all(loss > 0 for loss in losses)


def test_fresh_weights_do_not_depend_on_the_weight_network(tiny):
    one, other = tiny.build_model(), tiny.build_model(map_head={"kind": "energy", "weight_network": "scalar"})
    for name, value in one.decoder.state_dict().items():
        assert torch.equal(value, other.decoder.state_dict()[name]), name


@pytest.mark.parametrize("caption_target", ["reference", pytest.param("generated", marks=pytest.mark.slow)])
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tiny, tmp_path, caption_target):
    def run(resume=None):
        torch.manual_seed(1 if resume else 2)
        args = tiny.build_args(tmp_path, save_strategy="steps", save_steps=100 if resume else 1, max_steps=7)
        model = tiny.build_model(seed=5, caption_target=caption_target, decoder_dropout=0.3)
        trainer = AnteHocTrainer(model, args, train_dataset=tiny.Captions(22, draws=True), data_collator=tiny.COLLATE)
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict()

    straight, resumed = run(), run(str(tmp_path / "checkpoint-4"))
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())


@pytest.mark.slow
def test_two_processes_train_as_one(tiny, tmp_path):
    """Captions of one length: with others, each process weighs its own words alike, as the stock Trainer does."""
    specs = [
        {"output_dir": str(tmp_path / str(n)), "batch_size": n, "dump": str(tmp_path / f"{n}.pt")} for n in (8, 4)
    ]
    for index, spec in enumerate(specs):
        (tmp_path / f"spec-{index}.json").write_text(json.dumps(spec))
    tiny.main(str(tmp_path / "spec-0.json"))
    run_in_two_processes(tiny, tmp_path / "spec-1.json")
    single, double = (torch.load(spec["dump"]) for spec in specs)
    assert (single["processes"], double["processes"]) == (1, 2)
    for name, value in single["state"].items():
        assert torch.allclose(double["state"][name], value, atol=1e-6), name


# -- whole runs -----------------------------------------------------------------------------------------------------

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 70), "blue": (30, 60, 220)}


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """A folder of plain images with two captions each, saved as a data set."""
    folder = tmp_path_factory.mktemp("data") / "coloured"

    def rows(count):
        names = [list(COLOURS)[index % 3] for index in range(count)]
        images = [plain_image(COLOURS[name]) for name in names]
        firsts, seconds = [f"A {name} picture." for name in names], [f"all of it is {name}" for name in names]
        return datasets.Dataset.from_dict({"image": images, "caption_0": firsts, "caption_1": seconds}).cast_column(
            "image", IMAGE
        )

    datasets.DatasetDict(train=rows(48), test=rows(9)).save_to_disk(folder)
    return folder


def flags(data, folder, *more):
    return [
        "--task", "image-captioning", "--dataset_name", str(data), "--backbone", "test_resnet", "--image_size", "64",
        "--output_dir", str(folder), "--num_attention_maps", "3", "--max_steps", "120", "--min_word_count", "1",
        "--per_device_train_batch_size", "8", "--validation_fraction", "0.25", "--learning_rate", "0.01", "--use_cpu",
        "--report_to", "none", "--disable_tqdm", "true", "--panel_images", "2", "--decoder_hidden_size", "32",
        "--eval_strategy", "no", "--save_strategy", "no", "--lr_scheduler_type", "constant_with_warmup", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(coloured, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "coloured"
    return folder, train(flags(coloured, folder))


def test_a_whole_run_learns_to_say_what_it_sees(finished):
    folder, results = finished
    assert results["metrics"]["bleu_1"] > 90
    assert "verdict" not in results, "every word is right more often than by chance"
    assert results["metrics"]["bleu_4"] <= results["metrics"]["bleu_1"]
    assert 0 < results["metrics"]["token_accuracy"] <= 1
    assert results["data"]["caption_columns"] == ["caption_0", "caption_1"]
    assert [row["name"] for row in results["maps"]["rows"]][:2] == ["antehoc", "constant 1"]
    for name in ("predictions.png", "words-1.png", "tokenizer.json", "results.json"):
        assert (folder / name).stat().st_size > 0
    assert list((folder / "panels").glob("*.png"))
    assert json.loads((folder / "tokenizer.json").read_text())["truncation"] is None, "as it was built"
    model, tokenizer = AnteHocForImageCaptioning.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    processor = AnteHocImageProcessor.from_pretrained(folder)
    for name, colour in COLOURS.items():
        written = model.caption(processor(plain_image(colour), return_tensors="pt")["pixel_values"])
        assert name in tokenizer.decode(written.sequences[0], skip_special_tokens=True)
    assert tokenizer.unk_token_id in model.generation_config.suppress_tokens


def test_one_caption_for_every_image_is_said_to_explain_nothing(coloured, tmp_path, capsys):
    folder = tmp_path / "model"
    assert main(["train", *flags(coloured, folder), "--max_steps", "6", "--map_eval_samples", "0"]) == 0
    sentence = "Every image gets the same caption ("
    assert sentence in capsys.readouterr().out
    assert sentence in (folder / "README.md").read_text()
    again = ["evaluate", str(folder), "--dataset_name", str(coloured), "--output_dir", str(tmp_path / "again")]
    assert main([*again, "--map_eval_samples", "2"]) == 0
    assert sentence in capsys.readouterr().out


def test_evaluate_gives_what_the_run_gave(finished, coloured, tmp_path, capsys):
    folder, results = finished
    arguments = ["evaluate", str(folder), "--dataset_name", str(coloured), "--output_dir", str(tmp_path)]
    assert main([*arguments, "--batch_size", "4"]) == 0
    again = json.loads((tmp_path / "results.json").read_text())
    for name in ("bleu_1", "bleu_4", "token_accuracy"):
        assert again["metrics"][name] == pytest.approx(results["metrics"][name])
    assert "Avg. Drop, equal area" in capsys.readouterr().out


def test_evaluate_without_the_tokenizer(finished, coloured, tmp_path, capsys):
    import shutil

    shutil.copytree(finished[0], tmp_path / "model")
    for path in (tmp_path / "model").glob("tokenizer*"):
        path.unlink()
    assert main(["evaluate", str(tmp_path / "model"), "--dataset_name", str(coloured)]) != 0
    assert "The tokenizer of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--min_word_count", "0"], "min_word_count must be at least 1"),
        (["--min_word_count", "999"], "lower min_word_count"),
        (["--max_caption_length", "2"], "max_caption_length must be at least 3"),
        (["--caption_column", "words"], "caption_column='words' is not a column"),
        (["--mask_column", "mask"], "mask_column is not measured for captions"),
        (["--vocab_size", "9"], "vocab_size"),
    ],
)
def test_mistakes_are_reported_before_the_training(coloured, tmp_path, capsys, more, sentence):
    assert main(["train", *flags(coloured, tmp_path / "run", *more)]) != 0
    assert sentence in capsys.readouterr().err


@pytest.mark.real_data
def test_flickr8k_is_read(caplog, real):
    data = ImageCaptioning(CaptioningArguments()).load_data(DataArguments(dataset_name=str(real("flickr8k-128"))))
    assert data.targets.columns == [f"caption_{index}" for index in range(5)]
    assert {role: len(split) for role, split in data.splits.items()} == {
        "train": 6000,
        "validation": 1000,
        "test": 1000,
    }
    assert 2400 < len(data.targets.tokenizer) < 2700
    references = data.targets.all_references(data.test)
    assert all(len(texts) == 5 for texts in references)
