"""Captions are scored as by hand, and maps of captions next to maps that explain nothing."""

import math

import pytest
import torch

from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps
from antehoc_hf.evaluation.captions import (
    as_one_caption,
    bleu,
    caption_probability,
    normalise_caption,
    not_learned,
    unlearned_words,
)
from antehoc_hf.modeling import AnteHocForImageCaptioning

BOS, EOS, PAD = 1, 2, 0


def captioner(seed=0):
    torch.manual_seed(seed)
    model = AnteHocForImageCaptioning.from_backbone(
        "test_resnet", image_size=64, vocab_size=9, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
        max_caption_length=6, decoder_embedding_size=8, decoder_hidden_size=12,
    )  # fmt: skip
    for name, parameter in model.decoder.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=3.0 if "image" in name else 0.8)
    return model.eval()


def batches(count=6, size=3):
    pixels = torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[5, 6, EOS], [7, EOS, -100]]).repeat(count // 2, 1)
    return [
        {"pixel_values": pixels[start : start + size], "labels": labels[start : start + size]}
        for start in range(0, count, size)
    ]


@pytest.mark.parametrize(
    ("written", "normalised"),
    [
        ("A man's dog .", "a man's dog"),
        ("Two-tone, 'quoted' words!", "two tone quoted words"),
        ("It’s 3 o'clock", "it's 3 o'clock"),
        ("snake_case  Ünïcode", "snake case ünïcode"),
        (" ?! ' ", ""),
    ],
)
def test_normalised(written, normalised):
    assert normalise_caption(written) == normalised


def test_bleu_by_hand():
    """Words: 'the' is clipped at 2, 'cat' counts: 3 of 4. Pairs: 'the cat' alone, 1 of 3."""
    scores = bleu(["the the the cat"], [["The cat is on the mat.", "a cat"]])
    # The reference nearest in length is "a cat": 2 words against 4 (the other has 6, as far), so there is no penalty.
    assert scores["bleu_1"] == pytest.approx(100 * 3 / 4)
    assert scores["bleu_2"] == pytest.approx(100 * math.sqrt(3 / 4 * 1 / 3))
    assert scores["bleu_3"] == scores["bleu_4"] == 0


def test_bleu_of_a_corpus_by_hand():
    """Counts are added up over images; too short a corpus is penalised; images may have different numbers of texts."""
    scores = bleu(["a dog", "a red bird"], [["a dog runs"], ["a bird", "the red bird flies"]])
    # All five words occur; "a dog", "red bird": 2 of 3. Length 5; nearest references: 3 and 2 (a tie: the shorter).
    assert scores["bleu_1"] == pytest.approx(100.0)
    assert scores["bleu_2"] == pytest.approx(100 * math.sqrt(2 / 3))
    short = bleu(["a dog"], [["a dog runs far"]])
    assert short["bleu_1"] == pytest.approx(100 * math.exp(1 - 4 / 2))


def test_a_perfect_caption_and_an_empty_one():
    text = "a brown dog runs over the grass"
    assert bleu([text.upper() + "!"], [["two dogs", text]]) == {f"bleu_{n}": pytest.approx(100) for n in (1, 2, 3, 4)}
    assert bleu([""], [[text]])["bleu_1"] == 0


@pytest.mark.parametrize(
    ("captions", "references", "sentence"),
    [([], [], "0 captions"), (["a"], [], "1 captions and references for 0"), (["a"], [[]], "at least one reference")],
)
def test_bleu_of_nothing(captions, references, sentence):
    with pytest.raises(ValueError, match=sentence):
        bleu(captions, references)


def test_caption_probability_by_hand():
    probabilities = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], [[0.2, 0.2, 0.6], [0.3, 0.3, 0.4]]])
    labels = torch.tensor([[0, 1], [2, -100]])
    found = caption_probability(probabilities.log() + 3, labels)
    assert found.tolist() == pytest.approx([math.sqrt(0.5 * 0.8), 0.6])
    with pytest.raises(ValueError, match=r"\(B, T, V\)"):
        caption_probability(probabilities, labels[:, :1])


def test_report_by_hand():
    model = captioner()
    report = evaluate_maps(model, batches(), progress=False)
    assert report.num_images == 6
    whole = report.row("constant 1").scores
    assert math.isnan(whole["drop_cond"].value), "an untouched image loses nothing"
    assert whole["win"].value == 0
    drops, gains = [], []
    with torch.no_grad():
        for batch in batches(size=1):
            pixels, labels = batch["pixel_values"], batch["labels"]
            outputs = model(pixels, labels=labels)
            before = caption_probability(outputs.logits, labels)
            energy = model.energy_map(pixels, outputs.interpretation_map)
            after = caption_probability(model(energy, labels=labels).logits, labels)
            (drops if after < before else gains).append(100 * (1 - min(after, before) / max(after, before)).item())
    row = report.row("antehoc")
    assert len(drops) > 0
    assert row.scores["drop_cond"].value == pytest.approx(sum(drops) / len(drops), rel=1e-4)
    assert row.scores["win"].value == pytest.approx(100 * len(gains) / 6)
    assert row.scores["drop_cond"].low <= row.scores["drop_cond"].value <= row.scores["drop_cond"].high
    assert "equal_area_avg_drop" in row.scores
    assert (report.num_scored, report.num_invalid) == (6, 0)


def test_the_batches_do_not_matter_and_the_model_is_left_alone():
    model = captioner().train()
    reports = [evaluate_maps(model, batches(size=size), progress=False) for size in (6, 2)]
    assert model.training
    for name in ("antehoc", "random", "center"):
        one, other = (report.row(name).scores for report in reports)
        for metric in one:
            assert one[metric].value == pytest.approx(other[metric].value, rel=1e-3, nan_ok=True), (name, metric)


def test_own_captions_and_other_explainers():
    model = captioner()

    def left_half(pixel_values, labels):
        assert labels.shape[0] == len(pixel_values)
        maps = torch.zeros(len(pixel_values), 1, 64, 64)
        maps[..., :32] = 1
        return maps

    settings = EvaluationSettings(target="prediction", area=None)
    report = evaluate_maps(model, batches(), settings, explainers={"left": left_half}, progress=False)
    assert report.row("left").scores["map_mean"].value == pytest.approx(0.5)
    assert report.row("left").kind == "explainer"
    assert "equal_area_avg_drop" not in report.row("left").scores


def test_mistakes():
    model = captioner()
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate_maps(model, [], progress=False)
    with pytest.raises(ValueError, match='"labels"'):
        evaluate_maps(model, [{"pixel_values": torch.zeros(1, 3, 64, 64)}], progress=False)
    with pytest.raises(ValueError, match="'random' is taken"):
        evaluate_maps(model, batches(), explainers={"random": None}, progress=False)
    with pytest.raises(ValueError, match=r"must be \(B, 1, H, W\)"):
        evaluate_maps(model, batches(), explainers={"flat": lambda x, y: x[:, :1, 0]}, progress=False)


SHOWN = [f"a {colour} bug with a {tail} tail" for colour in ("red", "blue") for tail in ("fan", "sting", "pincer")]


def test_words_that_are_said_whatever_the_image_shows():
    references = [[text] for text in 10 * SHOWN]
    said = [f"a {text[0].split()[1]} bug with a fan tail" for text in references]
    assert unlearned_words(said, references) == ["fan"], "the colours are right, and 'tail' is of every bug"
    assert unlearned_words([text for (text,) in references], references) == []
    # Wrong more often than right, yet more often right than by chance: something is learned.
    better = [text.replace("sting", "fan") if index % 2 else text for index, (text,) in enumerate(references)]
    assert unlearned_words(better, references) == []
    sentence = not_learned(["fan"])
    assert sentence.startswith("Words not learned (right no more often than by chance): fan.")
    assert "c, d, e, f and 2 more." in not_learned(list("abcdefgh"))
    assert not_learned([]) == ""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (lambda i, text: "a red bug", "Every image gets the same caption ('a red bug'): these maps explain nothing."),
        (
            lambda i, text: "" if i < 55 else text,
            "Nearly every image gets the same caption ('', 55 of 60): these maps",
        ),
        (lambda i, text: SHOWN[5 * i % 7 % 6], "Captions fit their own images hardly better than others ("),
        (lambda i, text: text.replace("sting", "fan"), ""),
        (lambda i, text: text, ""),
    ],
)
def test_captions_that_say_nothing_of_their_images(said, words) -> None:
    texts = 10 * SHOWN
    sentence = as_one_caption([said(index, text) for index, text in enumerate(texts)], [[text] for text in texts])
    assert sentence.startswith(words)
    assert bool(sentence) == bool(words)
    assert ("these maps explain nothing" in sentence) == bool(words)


def test_equal_captions_that_are_right_and_too_few_images_show_nothing() -> None:
    right = [*19 * ["a dog"], "a cat"]
    assert as_one_caption(right, [[text] for text in right]) == ""
    assert as_one_caption(["a dog"], [["a cat"]]) == ""
