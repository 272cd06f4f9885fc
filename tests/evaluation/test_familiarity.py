"""Whether a picture is like the training images: distances by hand, and what a folder keeps."""

import math

import pytest
import torch
from safetensors.torch import save_file

from antehoc_hf import AnteHocForImageClassification, AnteHocForLandmarkDetection
from antehoc_hf.evaluation.familiarity import FILE, Familiarity, channel_statistics


def test_the_distance_by_hand():
    mean, scale = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 2.0])
    known = Familiarity(mean, scale, torch.tensor([[0.3, 0.4], [1.6, -1.2]]))
    # Standardised (2, 3): 3.6 along (0.6, 0.8) of deviation 2, −0.2 along (0.8, −0.6) of deviation 0.5.
    away = math.sqrt((1.8**2 + 0.4**2) / 2)
    assert known.distance(torch.tensor([[2.0, 6.0], [1.0, 0.0]])).tolist() == pytest.approx([away, 0.0], abs=1e-5)


@pytest.mark.parametrize("kind", ["contributions", "energy"])
def test_black_is_unlike_noise_and_more_noise_is_not(kind, tmp_path):
    torch.manual_seed(0)
    model = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=3, image_size=64, map_head=kind)
    model.eval()
    rows = [{"pixel_values": torch.randn(3, 64, 64)} for _ in range(130)]
    known = Familiarity.of(model, rows[:60], rows[60:120])
    known.save(tmp_path)
    assert (tmp_path / FILE).stat().st_size < 300_000
    loaded = Familiarity.load(tmp_path)
    assert loaded.limit == pytest.approx(known.limit)
    assert max(loaded.times_the_limit(model, row["pixel_values"][None]) for row in rows[60:120]) == pytest.approx(
        1, rel=1e-3
    )
    assert sum(loaded.times_the_limit(model, row["pixel_values"][None]) > 1 for row in rows[120:]) <= 1
    assert loaded.times_the_limit(model, torch.zeros(1, 3, 64, 64)) > 2


def test_ninety_nine_of_a_hundred_stay_within(monkeypatch):
    features = torch.arange(199.0)[:, None] + 1  # distances 1 … 199: 0.99 · 200 = 198
    monkeypatch.setattr("antehoc_hf.evaluation.familiarity._all_features", lambda _, rows: rows)
    known = Familiarity.of(None, torch.tensor([[-1.0], [1.0]]), features)
    assert known.limit == pytest.approx(198)


def test_every_task_and_every_tap():
    model = AnteHocForLandmarkDetection.from_backbone("test_vit", num_landmarks=2, image_size=64).eval()
    channels = 6 * 64  # of its six blocks
    assert channel_statistics(model, torch.randn(2, 3, 64, 64)).shape == (2, 2 * channels)


def test_a_folder_without_it(tmp_path):
    assert Familiarity.load(tmp_path) is None


@pytest.mark.parametrize("damage", [b"", b"x" * 100, {"limit": [float("nan")]}, {"scale": [1.0] * 3}])
def test_a_damaged_file_is_named(tmp_path, damage):
    Familiarity(torch.zeros(4), torch.ones(4), torch.ones(2, 4), 1.0).save(tmp_path)
    if isinstance(damage, bytes):
        (tmp_path / FILE).write_bytes(damage)
    else:
        values = {"mean": [0.0] * 4, "scale": [1.0] * 4, "directions": [[1.0] * 4], "limit": 1.0} | damage
        save_file({name: torch.tensor(value) for name, value in values.items()}, tmp_path / FILE)
    with pytest.raises(ValueError, match=r"^familiarity.safetensors of .* is damaged .*: delete it, or fetch it anew"):
        Familiarity.load(tmp_path)
