"""Explanations of landmarks and of captions: points, groups, sentences and single words as targets."""

import copy
import random

import pytest
import torch
from helpers import QUICK as FEW

from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocForLandmarkDetection

QUICK = {"integrated-grad-cam": {"steps": 3}, "integrated-gradients": {"steps": 3}}
METHODS = (
    *("antehoc", "grad-cam", "grad-cam++", "score-cam", "integrated-grad-cam", "sise", "ada-sise"),
    "integrated-gradients",
)


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def points():
    torch.manual_seed(0)
    named = {"landmark_names": ["tip", "left", "right", "chin"], "landmark_parts": {"sides": [1, 2]}}
    return AnteHocForLandmarkDetection.from_backbone("test_resnet", image_size=64, num_landmarks=4, **named).eval()


@pytest.fixture(scope="module")
def writer():
    torch.manual_seed(0)
    return AnteHocForImageCaptioning.from_backbone(
        "test_resnet",
        image_size=64,
        vocab_size=12,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        max_caption_length=6,
        decoder_embedding_size=8,
        decoder_hidden_size=16,
    ).eval()


@pytest.mark.parametrize("method", METHODS)
def test_landmarks(points, method: str) -> None:
    explainer = load_explainer(method, points, **QUICK.get(method, {}))
    every = explainer.explain(images())
    assert every.maps.shape == (2, 1, 64, 64)
    # Coordinates have no side that is evidence: Grad-CAM's ReLU may leave nothing, and then it says so.
    assert torch.equal(every.degenerate, every.maps.flatten(1).amax(dim=1) == 0)
    if method in ("sise", "ada-sise", "score-cam"):
        assert (every.passes > 0).all()
        assert not every.degenerate.all()
    assert torch.allclose(explainer(images(), "sides"), explainer(images(), [1, 2]), atol=1e-6)
    assert torch.allclose(explainer(images(), "tip"), explainer(images(), 0), atol=1e-6)
    if method not in ("antehoc", "score-cam"):
        of_points = torch.stack([explainer(images(), point) for point in range(4)])
        assert not torch.allclose(of_points[0], of_points[1:].mean(dim=0), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_captions(writer, method: str) -> None:
    explainer = load_explainer(method, writer, **QUICK.get(method, {}))
    own = explainer.explain(images())
    assert own.maps.shape == (2, 1, 64, 64)
    assert not own.degenerate.all()
    sentence = torch.tensor([1, 5, 7, 9, 2])
    of_all = explainer(images(), sentence)
    assert of_all.shape == (2, 1, 64, 64)
    # Each image's own caption goes with it, however the masked images are batched.
    both = torch.stack([sentence, torch.tensor([1, 4, 4, 2, 0])])
    together = explainer(images(), both)
    alone = torch.cat([explainer(images()[:1], both[:1]), explainer(images()[1:], both[1:])])
    assert torch.allclose(together, alone, atol=5e-3)
    if method not in ("antehoc", "score-cam"):
        first, last = explainer(images(), (sentence, 0)), explainer(images(), (sentence, 3))
        assert not torch.allclose(first, last, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", ["nose", 4, 1.7, [0, 1.7], [None], {}, [], True])
def test_targets_that_are_no_landmarks(points, method: str, target: object) -> None:
    with pytest.raises(ValueError, match=r"^target "):
        load_explainer(method, points, **QUICK.get(method, {}))(images(), target)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "target",
    [
        *("cat", {}, 3, [1, 12], [1, -100], [1.0, 5.0], [1], [[1, 5]] * 3, [1, None]),
        *(([1, 5, 7, 9, 2], 9), ([1, 5, 7, 9, 2], 1.7), ([1, 5, 7, 9, 2], "first")),
    ],
)
def test_targets_that_are_no_captions(writer, method: str, target: object) -> None:
    with pytest.raises(ValueError, match=r"^(target|There is no word) "):
        load_explainer(method, writer, **QUICK.get(method, {}))(images(), target)


def test_what_is_said_of_wrong_targets(points, writer) -> None:
    with pytest.raises(ValueError, match="'nose' is none of the model's landmarks: there are sides, tip"):
        load_explainer("grad-cam", points)(images(), "nose")
    with pytest.raises(ValueError, match="target 4 is none of the model's 4 landmarks"):
        load_explainer("grad-cam", points)(images(), 4)
    with pytest.raises(ValueError, match="no word 9 in a caption of 4 words"):
        load_explainer("grad-cam", writer)(images(), (torch.tensor([1, 5, 7, 9, 2]), 9))
    with pytest.raises(ValueError, match="target holds the id 12, but the vocabulary has the ids 0…11"):
        load_explainer("grad-cam", writer)(images(), [1, 12])
    for target, found in (([1, 0, 0], "no word"), (([[1, 5, 6], [1, 5, 0]], 1), "no word 1")):
        with pytest.raises(ValueError, match=f"The caption of image [01] has {found}, only padding there"):
            load_explainer("rise", writer, masks=4)(images(), target)


@pytest.mark.parametrize("method", ["leave-one-out", "shapley-sampling", "kernel-shap", "coalition-regression"])
def test_small_differences_are_not_lost_in_half_precision(writer, method: str) -> None:
    half = copy.deepcopy(writer).bfloat16()
    expected = load_explainer(method, copy.deepcopy(half).float(), **FEW[method])(images(), [1, 5, 7, 9, 2])
    assert expected.any()
    state = random.getstate()
    maps = load_explainer(method, half, **FEW[method])(images(), [1, 5, 7, 9, 2])
    assert torch.allclose(maps, expected, atol=2e-2)
    assert random.getstate() == state
