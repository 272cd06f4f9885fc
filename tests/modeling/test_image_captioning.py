"""The captioner: it writes what the LSTM says, by every way of writing, and explains itself in the same pass."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from captioners import BOS, EOS, PAD, WORDS, captioner, different_images

from antehoc_hf.modeling import AnteHocForImageCaptioning
from antehoc_hf.modeling.configuration_captions import check_tokenizer
from antehoc_hf.training.data.captions import build_tokenizer


def log_probability(model, pixels, tokens):
    """Of the words of one caption (start and end given), by a plain pass."""
    ids = torch.tensor([tokens])
    logits = model(pixels, decoder_input_ids=ids[:, :-1]).logits
    return logits.log_softmax(-1).gather(2, ids[:, 1:, None]).sum().item()


# -- loss and inputs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_input", ["state", "token"])
def test_loss_is_the_mean_over_words(build, noise, image_input):
    model = captioner(build, decoder_image_input=image_input)
    labels = torch.tensor([[5, 6, 7, EOS], [8, EOS, -100, -100]])
    outputs = model(noise(2, 64), labels=labels)
    read = torch.tensor([[BOS, 5, 6, 7], [BOS, 8, PAD, PAD]])
    logits = model(noise(2, 64), decoder_input_ids=read).logits
    expected = -sum(
        logits[row, place].log_softmax(-1)[labels[row, place]]
        for row, place in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    )
    assert outputs.loss.item() == pytest.approx(expected.item() / 6, rel=1e-5)
    assert outputs.logits.shape == (2, 4, 12)
    assert outputs.interpretation_map.shape == (2, 1, 64, 64)
    assert outputs.to_tuple()[0] is outputs.loss


def test_words_after_the_end_change_nothing(build, noise):
    model = captioner(build)
    short = model(noise(1, 64), labels=torch.tensor([[5, EOS]]))
    padded = model(noise(1, 64), labels=torch.tensor([[5, EOS, -100, -100]]))
    assert padded.loss.item() == pytest.approx(short.loss.item(), rel=1e-6)


def test_image_alone_gives_the_first_word_and_the_map(build, noise):
    model = captioner(build)
    outputs = model(noise(1, 64, 96))
    assert outputs.logits.shape == (1, 1, 12)
    assert outputs.loss is None
    assert outputs.interpretation_map.shape == (1, 1, 64, 96)
    assert set(model(noise(1, 64), output_attention_maps=True)) >= {"soft_attention_maps", "weight_maps"}


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "needs pixel_values"),
        ({"labels": torch.tensor([[5, 12]])}, r"0…11.*another model's tokenizer"),
        ({"labels": torch.tensor([[BOS, 5, EOS]])}, "must not begin with the start token"),
        ({"labels": torch.tensor([5, EOS])}, r"\(1, words\)"),
        ({"decoder_input_ids": torch.tensor([[BOS, -100]])}, "decoder_input_ids must lie in"),
    ],
)
def test_wrong_words_are_named(build, noise, inputs, sentence):
    pixels = noise(1, 64) if inputs else None
    with pytest.raises(ValueError, match=sentence):
        captioner(build)(pixels, **inputs)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"vocab_size": None}, "vocab_size must be given"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"eos_token_id": 12}, "eos_token_id=12 must be a token"),
        ({"eos_token_id": BOS}, "three different tokens"),
        ({"pad_token_id": None}, "pad_token_id=None"),
        ({"max_caption_length": 2}, "at least 3"),
        ({"decoder_hidden_size": 0}, "decoder_hidden_size=0"),
        ({"decoder_dropout": 1}, "decoder_dropout=1"),
        ({"decoder_image_input": "both"}, "decoder_image_input='both'"),
    ],
)
def test_wrong_options_are_named(build, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(kind=AnteHocForImageCaptioning, **{**WORDS, **options})


def test_tokenizer_of_another_model_is_refused(build):
    tokenizer = build_tokenizer(["a cat on a mat"] * 2, min_word_count=1, max_caption_length=8)  # 4 words
    model = captioner(build, vocab_size=8)
    check_tokenizer(tokenizer, model.config)
    with pytest.raises(ValueError, match="8 tokens and the model 12"):
        check_tokenizer(tokenizer, captioner(build).config)
    model.config.eos_token_id = 3
    with pytest.raises(ValueError, match="eos_token_id=2 and the model 3"):
        check_tokenizer(tokenizer, model.config)


# -- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_input", ["state", "token"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_mambaout", "test_efficientnet"])
def test_greedy_is_the_likeliest_word_each_time(build, noise, backbone, image_input):
    model = captioner(build, backbone, decoder_image_input=image_input)
    pixels = different_images(noise)
    sequences = model.generate(pixel_values=pixels)
    assert len({tuple(row) for row in sequences.tolist()}) > 1, "captions that do not depend on the image"
    for image, written in zip(pixels, sequences.tolist(), strict=True):
        tokens = [BOS]
        while tokens[-1] != EOS and len(tokens) < 8:
            logits = model(image[None], decoder_input_ids=torch.tensor([tokens])).logits[0, -1]
            logits[[BOS, PAD]] = -math.inf
            tokens.append(int(logits.argmax()))
        assert written == tokens + [PAD] * (len(written) - len(tokens))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
def test_the_cache_changes_nothing_and_neither_does_the_batch(build, noise, options):
    model, pixels = captioner(build), different_images(noise)
    together = model.generate(pixel_values=pixels, **options)
    assert torch.equal(model.generate(pixel_values=pixels, use_cache=False, **options), together)
    rows = options.get("num_return_sequences", 1)
    for index, image in enumerate(pixels):
        alone = model.generate(pixel_values=image[None], **options)
        kept = together[index * rows : (index + 1) * rows, : alone.shape[1]]
        assert torch.equal(kept, alone)


def test_beams_find_the_likeliest_caption(build, noise):
    """With as many beams as there are unfinished captions, the search is exhaustive."""
    model = captioner(build, vocab_size=6, max_caption_length=4)
    pixels = noise(1, 64)
    words = [3, 4, 5]
    captions = [[BOS, *said, EOS] for count in (0, 1, 2) for said in itertools.product(words, repeat=count)]
    captions += [[BOS, *said] for said in itertools.product(words, repeat=3)]
    # The mean over the words after the start, as `length_penalty=1` has it.
    best = max(captions, key=lambda tokens: log_probability(model, pixels, tokens) / (len(tokens) - 1))
    found = model.generate(pixel_values=pixels, num_beams=30, early_stopping=False)[0].tolist()
    assert [token for token in found if token != PAD] == best


def test_sampling_follows_the_seed_and_never_says_start_or_padding(build, noise):
    model, pixels = captioner(build, sharp=False), noise(2, 64)
    torch.manual_seed(3)
    first = model.generate(pixel_values=pixels, do_sample=True, num_return_sequences=20)
    torch.manual_seed(3)
    assert torch.equal(model.generate(pixel_values=pixels, do_sample=True, num_return_sequences=20), first)
    assert len({tuple(row) for row in first.tolist()}) > 20
    for row in first[:, 1:].tolist():
        said = row[: row.index(EOS)] if EOS in row else row
        assert not {BOS, PAD} & set(said)


def test_a_caption_can_be_continued(build, noise):
    model, pixels = captioner(build), noise(2, 64)
    begun = torch.tensor([[BOS, 7, 5], [BOS, 7, 5]])
    written = model.generate(pixel_values=pixels, decoder_input_ids=begun)
    assert torch.equal(written[:, :3], begun)
    expected = model(pixels, decoder_input_ids=begun).logits[:, -1]
    expected[:, [BOS, PAD]] = -math.inf
    assert torch.equal(written[:, 3], expected.argmax(-1))


# -- caption and map from one pass ------------------------------------------------------------------------------------


def test_caption_takes_one_pass_of_the_backbone(build, noise):
    model, pixels = captioner(build), different_images(noise)
    passes = []
    handle = model.backbone.register_forward_pre_hook(lambda *_: passes.append(1))
    written = model.caption(pixels, num_beams=2)
    handle.remove()
    assert len(passes) == 1
    assert torch.equal(written.sequences, model.generate(pixel_values=pixels, num_beams=2))
    assert torch.equal(written.interpretation_map, model(pixels).interpretation_map)
    for image, tokens, probability in zip(pixels, written.sequences.tolist(), written.probability, strict=True):
        said = [token for token in tokens if token != PAD]
        mean = log_probability(model, image[None], said) / (len(said) - 1)
        assert probability.item() == pytest.approx(math.exp(mean), rel=1e-4)


def test_several_captions_an_image(build, noise):
    model, pixels = captioner(build), different_images(noise, 2)
    written = model.caption(pixels, num_beams=3, num_return_sequences=3, output_word_maps=True)
    assert written.sequences.shape[0] == written.probability.shape[0] == written.word_maps.shape[0] == 6
    assert torch.equal(written.interpretation_map[0], written.interpretation_map[2])
    assert not torch.equal(written.interpretation_map[0], written.interpretation_map[3])


@pytest.mark.parametrize("backbone", ["test_resnet", "test_mambaout", "mobilenetv3_small_050"])
def test_maps_of_words(build, noise, backbone):
    model = captioner(build, backbone)
    pixels = different_images(noise, 2)[..., :48]
    written = model.caption(pixels, output_word_maps=True, max_length=6)
    sequences = F.pad(written.sequences, (0, 1), value=PAD)
    maps = model.word_maps(pixels, sequences)
    assert maps.shape == (2, sequences.shape[1] - 1, 1, 64, 48)
    assert torch.allclose(maps[:, :-1], written.word_maps, atol=1e-5)
    assert maps[:, -1].eq(0).all(), "padding has no map"
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert not torch.equal(maps[:, 0], maps[:, 1]), "the same map for every word"


def test_word_evidence_is_a_difference_of_log_probabilities(build, noise):
    """By hand, for one position: what is said of its feature and of the image's."""
    from antehoc_hf.modeling.word_maps import position_features, word_evidence

    model, pixels = captioner(build, image_size=96), noise(1, 96)
    encoded = model.encode(pixels, output_features=True)
    positions, (height, width) = position_features(model.backbone, encoded.features)
    assert torch.allclose(positions.mean(dim=1), encoded.last_hidden_state[:, 0], atol=1e-5), "an average pooling"
    sequence = torch.tensor([[BOS, 5, 6, EOS]])
    evidence = word_evidence(model.decoder, encoded.last_hidden_state[:, 0], positions, sequence)
    assert evidence.shape == (1, 3, height * width)
    place = width + 1
    feature = encoded.features[:, :, 1, 1]
    for word in range(3):
        said = [
            model.decoder(sequence[:, :-1], model.decoder.start(f))[0].log_softmax(-1)[0, word, sequence[0, word + 1]]
            for f in (feature, encoded.last_hidden_state[:, 0])
        ]
        assert evidence[0, word, place].item() == pytest.approx((said[0] - said[1]).item(), abs=1e-4)


def test_words_have_no_maps_without_a_grid(build):
    model = build("test_vit", kind=AnteHocForImageCaptioning, image_size=None, **WORDS)
    pixels = torch.randn(1, 3, *model.config.image_size)
    assert model.caption(pixels).interpretation_map.shape[-2:] == pixels.shape[-2:]
    with pytest.raises(ValueError, match="last features are a grid"):
        model.caption(pixels, output_word_maps=True)


# -- the two passes -------------------------------------------------------------------------------------------------


def test_second_pass_reads_the_same_words(build, noise):
    model, pixels = captioner(build), noise(2, 64)
    labels = torch.tensor([[5, 6, EOS], [8, EOS, -100]])
    first = model(pixels, labels=labels, phase="task")
    assert first.interpretation_map is None
    maps = first.tap_values
    second = model(pixels, labels=labels, tap_values=maps, phase="interpretation")
    assert second.loss is None
    energy = model.energy_map(pixels, second.interpretation_map)
    assert torch.allclose(second.logits, model(energy, labels=labels).logits, atol=1e-5)
    assert model.prediction_kind == "categorical"
    assert model.prediction_mask({"labels": labels}).tolist() == [[True, True, True], [True, True, False]]


def test_the_target_may_be_the_models_own_caption(build, noise):
    model = captioner(build, caption_target="generated", decoder_dropout=0.5)
    pixels = different_images(noise)
    labels = torch.tensor([[5, 6, EOS]] * 3)
    expected = model.generate(pixel_values=pixels)
    model.train()
    model.backbone.eval()
    state = torch.get_rng_state()
    with torch.no_grad():
        outputs = model(pixels, labels=labels, phase="task")
    torch.set_rng_state(state)
    model.config.caption_target = "reference"
    with torch.no_grad():
        as_without = model(pixels, labels=labels, phase="task")
    assert torch.equal(outputs.loss, as_without.loss), "the first pass itself must not change"
    kept = model.interpretation_inputs_from(outputs)
    said = torch.where(kept["labels"] == -100, PAD, kept["labels"])
    assert torch.equal(said, expected[:, 1:])
    assert kept["decoder_input_ids"][:, 0].eq(BOS).all()
    for read, words in zip(kept["decoder_input_ids"].tolist(), said.tolist(), strict=True):
        length = words.index(EOS) + 1 if EOS in words else len(words)
        assert read[1:length] == words[: length - 1]
    assert torch.equal(model.prediction(outputs), outputs.generated_logits)
    assert model.interpretation_inputs_from(as_without) == {}


def test_captions_of_no_images_and_options_that_make_no_sense(build):
    model = captioner(build)
    written = model.caption(torch.zeros(0, 3, 64, 64), output_word_maps=True)
    assert written.interpretation_map.shape == (0, 1, 64, 64)
    assert len(written.sequences) == len(written.probability) == len(written.word_maps) == 0
    for options in ({"num_beams": 0}, {"num_beams": "x"}, {"max_new_tokens": 1.5}):
        with pytest.raises(ValueError, match=r"^(num_beams|max_new_tokens)=.* must be a whole number of at least 1"):
            model.caption(torch.zeros(1, 3, 64, 64), **options)
