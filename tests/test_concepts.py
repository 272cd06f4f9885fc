"""Dominant regions, TCAV and Visual-TCAV: values by hand, invariances, and planted concepts."""

import math

import datasets
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from antehoc_hf import AnteHocImageProcessor
from antehoc_hf.concepts import TCAV, VisualTCAV, concept_images, dominant_regions
from antehoc_hf.concepts.features import LayerFeatures
from antehoc_hf.concepts.tcav import p_of_difference
from antehoc_hf.concepts.vectors import ConceptVector, contraharmonic, linear_direction, mean_difference, projection
from antehoc_hf.concepts.visual_tcav import attribution, class_evidence, concept_maps


class ColourNetwork(nn.Module):
    """Features are the colours on a 4×4 grid; class 0 is redness, class 1 greenness, class 2 half of both."""

    def __init__(self, red_weight: float = 4.0) -> None:
        super().__init__()
        self.grid = nn.Sequential(nn.AvgPool2d(4))
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = torch.tensor([[red_weight, 0.0, 0.0], [0.0, 4.0, 0.0], [1.0, 1.0, 0.0]])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.grid(x).mean(dim=(2, 3)))


def coloured(channel: int, count: int = 8, seed: int = 0) -> torch.Tensor:
    images = 0.2 * torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    images[:, channel, 4:12, 4:12] += 0.8
    return images


def noise(count: int = 8, seed: int = 0) -> torch.Tensor:
    return 0.2 * torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(100 + seed))


# -- dominant regions ----------------------------------------------------------------------------------------------


def test_dominant_regions() -> None:
    map_ = torch.zeros(1, 1, 6, 8)
    map_[0, 0, 1:3, 1:3] = 1.0
    map_[0, 0, 3, 3] = 0.9  # touches the first at a corner
    map_[0, 0, 5, 7] = 0.85
    map_[0, 0, 0, 6] = 0.5  # below the threshold
    (regions,) = dominant_regions(map_)
    assert [(region.box, region.area) for region in regions] == [((1, 1, 4, 4), 5), ((7, 5, 8, 6), 1)]
    assert regions[0].strength == pytest.approx(4.9 / 5)
    image = torch.arange(48).view(6, 8).numpy()
    assert regions[1].crop(image).tolist() == [[47]]
    assert regions[1].crop(image, least=0.5).tolist() == [[28, 29, 30, 31], [36, 37, 38, 39], [44, 45, 46, 47]]
    assert regions[0].crop(image.repeat(10, axis=0).repeat(10, axis=1)).shape == (30, 30)  # of a larger picture
    assert [len(found) for found in dominant_regions(map_, least_area=0.05)] == [1]
    assert [len(found) for found in dominant_regions(map_, most=1)] == [1]
    assert dominant_regions(torch.full((2, 1, 4, 4), 0.7)) == [[], []]  # constant: nothing stands out
    with pytest.raises(ValueError, match="threshold=0"):
        dominant_regions(map_, threshold=0)


# -- vectors -------------------------------------------------------------------------------------------------------


def test_mean_difference_by_hand() -> None:
    positive = torch.tensor([[[[2.0, 4.0]], [[1.0, 1.0]]]])  # one image, two channels, 1×2
    negative = torch.tensor([[[[0.0, 1.0]], [[1.0, 1.0]]]])
    concept = mean_difference(positive, negative)
    assert concept.vector.tolist() == [2.5, 0.0]
    assert projection(positive, concept.vector).tolist() == [[[5.0, 10.0]]]
    assert concept.high == pytest.approx(125 / 15)
    assert concept.low == pytest.approx(2.5)
    assert contraharmonic(torch.zeros(1, 2, 2)).item() == 0
    with pytest.raises(ValueError, match="needs images"):
        mean_difference(positive, negative[:0])


def test_concept_map_between_the_emblems() -> None:
    concept = ConceptVector(torch.tensor([1.0]), high=3.0, low=1.0, positives=1, negatives=1)
    features = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])
    assert concept_maps(features, concept).tolist() == [[[0.0, 0.0], [0.5, 1.0]]]
    upside_down = ConceptVector(torch.tensor([1.0]), high=1.0, low=1.0, positives=1, negatives=1)
    assert not concept_maps(features, upside_down).any()


def test_linear_direction_points_to_the_concept() -> None:
    torch.manual_seed(0)
    positive, negative = torch.randn(30, 4) + torch.tensor([3.0, 0, 0, 0]), torch.randn(40, 4)
    direction, accuracy = linear_direction(positive, negative, seed=1)
    assert direction.argmax() == 0
    assert accuracy > 0.8
    again, _ = linear_direction(positive, negative, seed=1)
    assert torch.equal(direction, again)
    with pytest.raises(ValueError, match="at least 3 images"):
        linear_direction(positive[:2], negative)


# -- the cut -------------------------------------------------------------------------------------------------------


def test_the_tail_goes_on_from_the_features() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=4).eval()
    images = torch.randn(2, 3, 64, 64)
    for layer in ("layer2", "layer4"):
        features = LayerFeatures(model, layer)
        with features.tail(images) as tail, torch.no_grad():
            assert torch.allclose(tail(features.of_images(images)), model(images), atol=1e-5)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_that_is_no_cut_is_refused() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=4).eval()
    images = torch.randn(1, 3, 64, 64)
    inner = next(name for name, _ in model.named_modules() if name.startswith("layer2.0.conv1"))
    with pytest.raises(ValueError, match="does not cut the network"), LayerFeatures(model, inner).tail(images):
        pass
    tokens = timm.create_model("test_vit", num_classes=4, img_size=64)
    with pytest.raises(ValueError, match="gives tokens"), LayerFeatures(tokens).tail(images):
        pass


# -- Visual-TCAV ---------------------------------------------------------------------------------------------------


def test_evidence_of_a_linear_tail_is_exact() -> None:
    features = torch.rand(2, 3, 2, 2)
    weights = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]])

    def tail(x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) @ weights.T + 5.0

    for steps in (1, 7):
        evidence = class_evidence(tail, features, torch.tensor([0, 1]), steps, batch_size=3)
        for index, target in enumerate((0, 1)):
            rise = tail(features[index : index + 1])[0] - 5.0
            contributions = weights[target][:, None, None] * features[index] / 4
            assert float(contributions.sum()) == pytest.approx(float(rise[target]), rel=1e-5)
            expected = contributions / contributions.sum() * (rise[target] / rise.max())
            assert torch.allclose(evidence[index], expected, atol=1e-5)


def test_attribution_does_not_depend_on_the_vectors_length() -> None:
    torch.manual_seed(0)
    positive, negative = torch.rand(6, 3, 4, 4) + torch.tensor([1.0, 0, 0])[:, None, None], torch.rand(6, 3, 4, 4)
    features, evidence = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    concept = mean_difference(positive, negative)
    scaled = ConceptVector(7 * concept.vector, 7 * concept.high, 7 * concept.low, 6, 6)
    maps = concept_maps(features, concept)
    assert torch.allclose(concept_maps(features, scaled), maps, atol=1e-5)
    assert torch.allclose(
        attribution(evidence, maps, scaled, features), attribution(evidence, maps, concept, features), atol=1e-5
    )


def test_a_planted_concept_is_found_where_it_is_and_in_the_class_that_uses_it() -> None:
    explainer = VisualTCAV(ColourNetwork(), noise(16), layer="grid", steps=5)
    explainer.add_concept("red", coloured(0))
    explainer.add_concept("green", coloured(1))
    red, green = explainer.local(coloured(0, 4, seed=5), 0)
    assert (red.concept, green.concept) == ("red", "green")
    assert red.maps[:, 1:3, 1:3].min() > 0.8
    assert red.maps[:, 0].max() < 0.1  # about the strength of random images, which shows as 0
    assert (red.attributions > 3 * green.attributions).all()
    assert (red.attributions <= 1).all()
    assert (red.attributions >= 0).all()
    (red_of_green, _) = explainer.local(coloured(0, 4, seed=5), 1)
    assert (red_of_green.attributions < 0.1 * red.attributions).all()
    predicted = explainer.local(coloured(1, 2, seed=6))[0]
    assert predicted.targets.tolist() == [1, 1]
    total = explainer.global_(coloured(0, 10, seed=7), 0)[0]
    assert total.count == 10
    assert total.low <= total.mean <= total.high
    assert total.mean == pytest.approx(float(explainer.local(coloured(0, 10, seed=7), 0)[0].attributions.mean()))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_concepts_without_gradients_around_them(mode) -> None:
    def found() -> list[float]:
        visual = VisualTCAV(ColourNetwork(), noise(), layer="grid", steps=2)
        visual.add_concept("red", coloured(0))
        (tcav,) = TCAV(ColourNetwork(), layer="grid")(coloured(0), 0, {"red": coloured(0)}, [noise(), noise(seed=1)])
        return [visual.global_(coloured(0, seed=3), 0)[0].mean, *tcav.scores]

    expected = found()
    with mode():
        assert found() == pytest.approx(expected)


def test_the_cache_knows_model_and_images(tmp_path) -> None:
    def taught(model: nn.Module, images: torch.Tensor) -> VisualTCAV:
        explainer = VisualTCAV(model, noise(), layer="grid", cache=tmp_path)
        explainer.add_concept("red", images)
        return explainer

    first = taught(ColourNetwork(), coloured(0))
    again = taught(ColourNetwork(), coloured(0))
    assert len(list(tmp_path.iterdir())) == 1
    assert torch.equal(first.concepts["red"].vector, again.concepts["red"].vector)
    taught(ColourNetwork(), coloured(0, seed=3))
    taught(ColourNetwork(2.0), coloured(0))
    assert len(list(tmp_path.iterdir())) == 3


# -- TCAV ----------------------------------------------------------------------------------------------------------


def test_tcav_finds_the_concept_the_class_uses() -> None:
    tcav = TCAV(ColourNetwork(), layer="grid", pool=True)
    images = coloured(0, 12, seed=9)
    random_sets = [noise(12, seed) for seed in range(4)]
    red, blue = tcav(images, 0, {"red": coloured(0, 12), "blue": coloured(2, 12)}, random_sets)
    assert red.score == 1
    assert min(red.accuracies) > 0.9
    assert red.layer == "grid"
    assert len(red.scores) == 4
    assert len(red.random_scores) == 12
    assert blue.score < 1 or blue.p_value > red.p_value or not blue.is_significant()


def test_significance() -> None:
    scores, random_scores = [0.9, 0.95, 1.0], [0.4, 0.5, 0.6, 0.5]
    alone = p_of_difference(scores, random_scores)
    assert alone < 0.01
    assert p_of_difference(scores, random_scores, hypotheses=3) == pytest.approx(3 * alone)
    assert p_of_difference([0.4, 0.6], [0.4, 0.6], hypotheses=5) == 1
    assert math.isnan(p_of_difference([1.0, 1.0], [1.0, 1.0]))
    assert p_of_difference([1.0, 1.0], [0.0, 0.0]) == 0


def test_gradients_of_zero_are_flagged() -> None:
    (result,) = TCAV(ColourNetwork(0.0), layer="grid", pool=True)(
        coloured(0), 0, {"red": coloured(0)}, [noise(8, 1), noise(8, 2)]
    )
    assert result.flat
    assert result.score == 0


def test_mistakes() -> None:
    model = ColourNetwork()
    with pytest.raises(ValueError, match="There is no concept"):
        TCAV(model, layer="grid")(coloured(0), 0, {}, [noise(), noise()])
    with pytest.raises(ValueError, match="at least two sets"):
        TCAV(model, layer="grid")(coloured(0), 0, {"red": coloured(0)}, [noise()])
    with pytest.raises(ValueError, match="at least 3 images"):
        TCAV(model, layer="grid")(coloured(0), 0, {"red": coloured(0, 1)}, [noise(), noise()])
    with pytest.raises(ValueError, match="needs random images"):
        VisualTCAV(model, noise(0))
    explainer = VisualTCAV(model, noise(), layer="grid")
    with pytest.raises(ValueError, match="There is no concept"):
        explainer.local(coloured(0))
    with pytest.raises(ValueError, match="'red' has no image"):
        explainer.add_concept("red", coloured(0, 0))
    explainer.add_concept("red", coloured(0))
    with pytest.raises(ValueError, match="none of the model's 3 classes"):
        explainer.local(coloured(0), 7)
    with pytest.raises(ValueError, match="no image of the class"):
        explainer.global_(coloured(0, 0), 0)


def test_concept_images_come_from_folders_and_data_sets(tmp_path):
    processor = AnteHocImageProcessor(image_size=16, image_mean=[0, 0, 0], image_std=[1, 1, 1], crop_pct=1.0)
    for number in range(4):
        path = tmp_path / "red" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (255, 51 * number, 0)).save(path)
    red = concept_images(tmp_path / "red", processor)
    assert red.shape == (4, 3, 16, 16)
    assert red[:, 1, 0, 0].tolist() == pytest.approx([0.0, 0.4, 0.2, 0.6])  # in the order of their paths
    two = concept_images(tmp_path / "red", processor, count=2, seed=1)
    assert torch.equal(two, concept_images(str(tmp_path / "red"), processor, count=2, seed=1))
    rows = {"image": [Image.new("RGB", (16, 16), (0, 0, 255))] * 3}
    features = datasets.Features({"image": datasets.Image()})
    datasets.DatasetDict(train=datasets.Dataset.from_dict(rows, features=features)).save_to_disk(tmp_path / "blue")
    assert concept_images(tmp_path / "blue", processor)[:, 2].unique().tolist() == [1.0]
    with pytest.raises(ValueError, match="has no split 'test': there are train"):
        concept_images(tmp_path / "blue", processor, split="test")
    with pytest.raises(ValueError, match="holds 4 images, and 5 were asked for"):
        concept_images(tmp_path / "red", processor, count=5)
    with pytest.raises(ValueError, match="There is no folder"):
        concept_images(tmp_path / "green", processor)
    (tmp_path / "red" / "0" / "torn.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"torn\.png"):
        concept_images(tmp_path / "red", processor)
