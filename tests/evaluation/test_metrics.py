"""The measures as metrics of `evaluate`: the same numbers, batch by batch, without network, files or prints."""

import math
import sys

import evaluate
import numpy as np
import pytest
import torch

from antehoc_hf.evaluation import METRICS, bootstrap_mean, drop_cond, load_metric, metric_path, pointing_game
from antehoc_hf.evaluation.complexity import map_entropy
from antehoc_hf.evaluation.localisation import relevance_rank
from antehoc_hf.evaluation.stability import drop_pairs, inc_pairs


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    return {"p_image": torch.rand(40, generator=generator), "p_energy": torch.rand(40, generator=generator)}


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    maps = (4 * torch.rand(20, 1, 8, 8, generator=generator)).round()  # with equal values
    masks = torch.rand(20, 1, 8, 8, generator=generator) < 0.3
    masks[7] = False
    return {"maps": maps, "masks": masks}


def part(arrays, start, stop):
    return {name: values[start:stop] for name, values in arrays.items()}


def test_the_measure_and_its_interval(maps):
    found = load_metric("relevance_rank", seed=3).compute(**maps)
    scores = relevance_rank(**maps, seed=3)
    expected = bootstrap_mean(scores[~scores.isnan()])
    assert found["relevance_rank"] == pytest.approx(expected.value)
    assert found["relevance_rank_low"] < expected.value < found["relevance_rank_high"]
    assert (found["relevance_rank_count"], found["relevance_rank_undefined"]) == (19, 1)


def test_conditional_means_and_changes(pairs):
    assert load_metric("drop_cond").compute(**pairs)["drop_cond"] == pytest.approx(drop_cond(**pairs).item())
    lost = int((pairs["p_energy"] < pairs["p_image"]).sum())
    assert load_metric("drop_cond").compute(**pairs)["drop_cond_count"] == lost
    noisy = {"p_noisy_image": pairs["p_energy"].flip(0), "p_noisy_energy": pairs["p_image"]}
    for name, terms in (("drop_change", drop_pairs), ("inc_change", inc_pairs)):
        found = load_metric(name).compute(**pairs, **noisy)
        clean, changed = terms(**pairs, **noisy).nanmean(dim=0).tolist()
        assert found[name] == pytest.approx(abs(changed - clean), abs=1e-4)
        assert 0 <= found[f"{name}_low"] <= found[f"{name}_high"]


@pytest.mark.parametrize("name", ["pointing_game", "relevance_rank", "iou"])
def test_batches_singles_and_kinds_of_arrays_give_one_number(name, maps):
    whole = load_metric(name, seed=1).compute(**maps)
    metric = load_metric(name, seed=1)
    metric.add_batch(**part(maps, 0, 7))
    metric.add_batch(**{key: value.numpy() for key, value in part(maps, 7, 12).items()})
    metric.add_batch(**{key: list(value) for key, value in part(maps, 12, 15).items()})
    metric.add_batch(**{key: value.tolist() for key, value in part(maps, 15, 19).items()})
    assert len(metric) == 19
    metric.add(**{key: value[19] for key, value in maps.items()})
    assert metric.compute() == whole
    assert len(metric) == 0
    assert metric.compute(**maps) == whole


def test_options_reach_the_measure(maps):
    wide = load_metric("pointing_game", tolerance=2).compute(**maps)["pointing_game"]
    scores = pointing_game(**maps, tolerance=2)
    assert wide == pytest.approx(scores.nanmean().item())
    assert wide > load_metric("pointing_game").compute(**maps)["pointing_game"]
    narrow = load_metric("pointing_game", level=0.5).compute(**maps)
    usual = load_metric("pointing_game").compute(**maps)
    assert narrow["pointing_game_low"] > usual["pointing_game_low"]


def test_every_metric_loads_and_computes(maps, pairs):
    arrays = {
        **maps,
        **pairs,
        "other_maps": maps["maps"].flip(0),
        "p_noisy_image": pairs["p_image"].flip(0),
        "p_noisy_energy": pairs["p_energy"].flip(0),
        "scores": np.array([0.5, math.nan, 0.7]),
        "correct": [True, False],
        "error": [0.1, 0.2, 0.3],
    }
    for name in METRICS:
        metric = load_metric(name)
        assert metric.name == name
        assert metric.description
        inputs = {key: arrays[key] for key in metric.features}
        found = metric.compute(**inputs)
        assert math.isfinite(found[name]), name
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"], name
    assert load_metric("road").compute(scores=arrays["scores"]) == pytest.approx(
        {"road": 0.6, "road_low": 0.5, "road_high": 0.7, "road_count": 2, "road_undefined": 1}
    )


def test_combined(maps):
    together = evaluate.combine([load_metric("pointing_game"), load_metric("map_entropy"), load_metric("iou")])
    together.add_batch(**part(maps, 0, 9))
    found = together.compute(**part(maps, 9, 20))
    assert found["map_entropy"] == pytest.approx(map_entropy(maps["maps"]).mean().item(), abs=1e-6)
    assert {"pointing_game", "iou_low", "map_entropy_count"} <= found.keys()
    assert found["pointing_game"] == load_metric("pointing_game").compute(**maps)["pointing_game"]


def test_evaluate_loads_the_script(maps, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("pointing_game", "drop_cond"):
        metric = evaluate.load(metric_path(name), name, cache_dir=str(tmp_path / "cache"))
        assert metric.name == name
    metric = evaluate.load(metric_path("pointing_game"), "pointing_game", tolerance=2, seed=4)
    assert metric.compute(**maps) == load_metric("pointing_game", tolerance=2, seed=4).compute(**maps)


def test_nothing_is_written_or_printed(maps, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    monkeypatch.chdir(tmp_path)
    metric = load_metric("iou")
    metric.add_batch(**maps)
    metric.compute()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda maps: load_metric("pointing_gane"), "did you mean 'pointing_game'"),
        (lambda maps: load_metric("iou", treshold=0.5), "no option 'treshold': there are threshold, level"),
        (lambda maps: load_metric("iou", num_process=2, process_id=0), "run in one process"),
        (lambda maps: load_metric("iou").compute(), "nothing to compute"),
        (lambda maps: load_metric("iou").compute(maps=maps["maps"]), "masks is missing"),
        (lambda maps: load_metric("iou").compute(**maps, tolerance=1), "does not take 'tolerance'"),
        (lambda maps: load_metric("iou").compute(predictions=[1], references=[1]), "Name the arrays"),
        (lambda maps: load_metric("map_mean").compute(maps=["a"]), "maps must be one array of numbers"),
        (lambda maps: load_metric("map_mean").compute(maps=maps["maps"][:, 0]), r"\(B, 1, H, W\)"),
        (lambda maps: load_metric("road").compute(scores=maps["maps"]), "scores must be"),
        (lambda maps: evaluate.load(metric_path("nothing")), "There is no metric 'nothing'"),
    ],
)
def test_mistakes_end_in_one_sentence(act, message, maps):
    with pytest.raises(ValueError, match=message):
        act(maps)
