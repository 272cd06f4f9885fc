"""Parts of `shapes`: importance against the effect of removal, on networks whose parts are known."""

import numpy as np
import pytest
import torch

from antehoc_hf.evaluation import CONTROLS
from antehoc_hf.evaluation.parts import importance_correlation, important_parts, part_importance
from antehoc_hf.evaluation.shapes_parts import (
    images_without,
    part_completeness,
    region_masks,
    removal_effects,
    sharing_classes,
    target_contrast,
)
from antehoc_hf.shapes import load_shapes
from antehoc_hf.shapes.parts import CLASSES, DECIDING
from antehoc_hf.shapes.scene import REGIONS

WORTH = {"horn": 0.6, "wings": 0.25, "tail": 0.15}
OTHER = 0.3  # the probability of the class that is predicted when too much is gone


def prepare(images):
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255


class Scenes:
    """Rows of shapes, and a network that adds up what the parts in sight are worth."""

    def __init__(self, rows):
        self.texts, self.labels = rows["scene"], torch.tensor(rows["label"])
        self.pixel_values, self.masks = prepare(rows["image"]), region_masks(rows["part_masks"])
        # Pixels of one part alone: the removal of any other leaves them as they are.
        self.alone = self.masks & (self.masks.sum(dim=1, keepdim=True) == 1)

    def predict(self, images):
        batch = len(self.labels)
        assert len(images) == batch
        same = (images == self.pixel_values).all(dim=1, keepdim=True)
        intact = (same & self.alone).flatten(2).sum(dim=2) == self.alone.flatten(2).sum(dim=2)
        worth = torch.tensor([WORTH.get(region, 0.0) for region in REGIONS])
        probabilities = torch.zeros(batch, len(CLASSES))
        probabilities[torch.arange(batch), (self.labels + 1) % len(CLASSES)] = OTHER
        probabilities[torch.arange(batch), self.labels] = intact.float() @ worth
        return probabilities

    def map(self, **worth):
        """The sum of the named parts' masks, as bright as they are worth."""
        values = torch.tensor([worth.get(region, 0.0) for region in REGIONS])
        return (self.masks * values[:, None, None]).amax(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def scenes():
    rows = load_shapes(train=0, validation=0, test=8, seed=5)["test"]
    found = Scenes(rows)
    seen = [REGIONS.index(part) for part in DECIDING]
    assert found.alone.flatten(2).any(dim=2)[:, seen].all()
    return found


@pytest.fixture(scope="module")
def effects(scenes):
    return removal_effects(scenes.predict, scenes.texts, scenes.labels, prepare)


def test_images_without_nothing_are_the_images(scenes):
    assert torch.equal(images_without(scenes.texts, [()] * 8, prepare), scenes.pixel_values)


def test_effects_are_what_the_parts_are_worth(effects):
    expected = [WORTH.get(region, 0.0) for region in REGIONS]
    assert torch.allclose(effects, torch.tensor(expected).expand(8, -1), atol=1e-6)


def test_importance_by_hand():
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 3, 3] = 1.0
    masks = torch.zeros(1, 3, 8, 8, dtype=torch.bool)
    masks[0, 0, 3, 3] = masks[0, 1, 3, 5] = True
    importance = part_importance(maps, masks)
    assert importance[0, :2].tolist() == pytest.approx([1 / 25, 1 / 25])
    assert importance[0, 2].isnan()
    assert part_importance(maps, masks, dilation=1)[0, :2].tolist() == pytest.approx([1 / 9, 0])
    assert part_importance(maps, masks, over_area=False)[0, :2].tolist() == [1, 1]


def test_the_true_worth_correlates_and_controls_do_not(scenes, effects):
    deciding = [REGIONS.index(part) for part in DECIDING]

    def correlation(maps):
        importance = part_importance(maps, scenes.masks[:, deciding], dilation=0)
        return importance_correlation(importance, effects[:, deciding])

    assert correlation(scenes.map(**WORTH)).correlation.mean() > 0.99
    assert correlation(1 - scenes.map(**WORTH)).correlation.mean() < -0.99
    for name, control in CONTROLS.items():
        found = correlation(control(scenes.pixel_values, 0, 0))
        assert found.correlation.mean() < 0.8, name
        flat = name.startswith("constant") or name == "black"
        assert found.constant.tolist() == [flat] * 8
        if flat:  # counted, and not left out
            assert found.correlation.tolist() == [0] * 8


def test_as_a_sum_a_constant_map_prefers_large_parts(scenes):
    flat = torch.ones_like(scenes.map())
    area = scenes.masks.flatten(2).sum(dim=2).float()
    found = importance_correlation(part_importance(flat, scenes.masks, dilation=0, over_area=False), area)
    assert found.correlation.tolist() == pytest.approx([1] * 8)


def test_correlation_by_hand():
    nan = float("nan")
    importance = torch.tensor([[0.9, 0.5, 0.1], [0.1, 0.5, 0.9], [0.9, nan, 0.1], [0.9, nan, nan], [0.3, 0.2, 0.1]])
    effects = torch.tensor([[0.6, 0.1, 0.3], [0.6, 0.1, 0.3], [0.1, 0.9, 0.6], [0.1, 0.2, 0.3], [0.2, 0.2, 0.2]])
    found = importance_correlation(importance, effects)
    assert found.correlation[:3].tolist() == pytest.approx([0.5, -0.5, -1])
    assert found.correlation[3:].isnan().all()  # one part in sight; a network to which all are worth the same
    assert not found.constant.any()


def test_completeness(scenes):
    regions, area = list(REGIONS), 0.2

    def complete(maps, **options):
        important = important_parts(maps, scenes.masks, area, **options)
        return important, part_completeness(scenes.predict, scenes.texts, important, prepare)

    # The horn alone is enough (0.6) and needed: without it 0.4 is left, which still beats 0.3.
    important = torch.zeros(8, len(regions), dtype=torch.bool)
    important[:, regions.index("horn")] = True
    found = part_completeness(scenes.predict, scenes.texts, important, prepare)
    assert found.preserved.tolist() == [1] * 8
    assert found.destroyed.tolist() == [0] * 8
    # All deciding parts: enough and needed.
    important, found = complete(scenes.map(**WORTH))
    assert important[:, :3].all()
    assert found.preserved.tolist() == [1] * 8
    assert found.destroyed.tolist() == [1] * 8
    # Nothing pointed out: all is removed, and nothing is.
    important, found = complete(torch.ones(8, 1, 64, 64), coverage=0.9)
    assert not important.any()
    assert found.preserved.tolist() == [0] * 8
    assert found.destroyed.tolist() == [0] * 8


def test_important_parts_by_hand():
    maps = torch.zeros(1, 1, 10, 10)
    maps[0, 0, 0] = torch.linspace(1, 2, 10)
    masks = torch.zeros(1, 3, 10, 10, dtype=torch.bool)
    masks[0, 0, 0, 5:], masks[0, 1, :3, 0] = True, True  # within the largest tenth; a third of it there
    assert important_parts(maps, masks, area=0.1).tolist() == [[True, False, False]]
    assert important_parts(maps, masks, area=0.1, coverage=0.3).tolist() == [[True, True, False]]


def test_each_part_is_shared_with_one_other_class():
    table = list(CLASSES.values())
    classes = sharing_classes(torch.arange(6))
    for own, others in enumerate(classes.tolist()):
        assert len({own, *others}) == 4
        assert [table[other][part] for part, other in enumerate(others)] == list(table[own])


def test_target_contrast(scenes):
    masks = scenes.masks[:, [REGIONS.index(part) for part in DECIDING]]
    classes = sharing_classes(scenes.labels)

    def truth(pixel_values, target):
        """The part of the image that speaks for the class."""
        return ((classes == target[:, None])[:, :, None, None] & masks).any(dim=1, keepdim=True).float()

    def contrast(explain):
        return target_contrast(explain, scenes.pixel_values, masks, scenes.labels).tolist()

    assert contrast(truth) == [1] * 8
    assert contrast(lambda pixels, target: 1 - 0.5 * truth(pixels, target)) == [0] * 8
    # The same map for all classes: 0 by design; also if it is brighter for some.
    assert contrast(lambda pixels, target: scenes.map(**WORTH)) == [0] * 8
    assert contrast(lambda pixels, target: scenes.map(**WORTH) * (1 + target[:, None, None, None])) == [0] * 8
    assert contrast(lambda pixels, target: torch.zeros(8, 1, 64, 64)) == [0] * 8
    noise = torch.Generator().manual_seed(0)
    random = contrast(lambda pixels, target: torch.rand(8, 1, 64, 64, generator=noise))
    assert 0.2 < sum(random) / 8 < 0.8


def test_target_contrast_by_hand():
    masks = torch.zeros(1, 3, 4, 4, dtype=torch.bool)
    masks[0, [0, 1, 2], [0, 1, 2], [0, 1, 2]] = True
    labels = torch.tensor([2])
    place = {int(own): number for number, own in enumerate(sharing_classes(labels)[0])}

    def contrast(table):
        """Rows: the map of the class that shares the horn, the wings, the tail; columns: these parts."""

        def explain(pixel_values, target):
            return torch.diag(torch.tensor([*table[place[int(target)]], 0.0]))[None, None]

        return target_contrast(explain, torch.zeros(1, 3, 4, 4), masks, labels, dilation=0).item()

    assert contrast([[0.5, 0.4, 0.1], [0.4, 0.5, 0.1], [0.05, 0.05, 0.9]]) == 1
    assert contrast([[0.5, 0.4, 0.1], [0.6, 0.3, 0.1], [0.05, 0.05, 0.9]]) == pytest.approx(4 / 6)
    masks[0, 2] = False  # the tail can't be seen: horn and wings are left
    assert contrast([[0.5, 0.4, 0.1], [0.6, 0.3, 0.1], [0.05, 0.05, 0.9]]) == 0
    masks[0, 1] = False
    assert np.isnan(contrast([[0.5, 0.4, 0.1], [0.6, 0.3, 0.1], [0.05, 0.05, 0.9]]))


def test_mistakes_end_in_one_sentence(scenes):
    maps = scenes.map(**WORTH)
    with pytest.raises(ValueError, match="masks must be bool"):
        part_importance(maps, scenes.masks.float())
    with pytest.raises(ValueError, match="don't fit"):
        part_importance(maps[:2], scenes.masks)
    with pytest.raises(ValueError, match="coverage=0"):
        important_parts(maps, scenes.masks, coverage=0)
    with pytest.raises(ValueError, match="give one for each"):
        images_without(scenes.texts, [()], prepare)
    with pytest.raises(ValueError, match="important must be"):
        part_completeness(scenes.predict, scenes.texts, torch.ones(8, 2, dtype=torch.bool), prepare)
    with pytest.raises(ValueError, match="effects hold values"):
        importance_correlation(torch.rand(1, 3), torch.full((1, 3), torch.nan))
    with pytest.raises(ValueError, match="horn, wings, tail"):
        target_contrast(lambda pixels, target: maps, scenes.pixel_values, scenes.masks, scenes.labels)
