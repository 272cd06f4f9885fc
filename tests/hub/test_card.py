"""What a card says, what it keeps silent about, and that nothing a user named can break out of it."""

import copy
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CLASSES, RESULTS
from huggingface_hub import ModelCard

from antehoc_hf.model_cards import Facts, read_card, write_card
from antehoc_hf.model_cards.collect import collect, default_name
from antehoc_hf.model_cards.escape import code, fenced, text
from antehoc_hf.model_cards.metadata import eval_results_file
from antehoc_hf.model_cards.render import render_card
from antehoc_hf.training.objectives import CoalitionObjective

CONFIG = {
    "model_type": "antehoc",
    "architectures": ["AnteHocForImageClassification"],
    "backbone": "test_resnet",
    "image_size": [64, 48],
    "num_attention_maps": 3,
    "problem_type": "single_label_classification",
    "id2label": {"0": "ant", "1": "bee", "2": "cat"},
}
NASTY = (
    "a`b",
    "x | y",
    "<script>alert(1)</script>",
    "![p](http://evil.example/p.png)",
    "[click](javascript:alert(1))",
    "one\n\n# Heading\n\n---\nlicense: mit\n---\n",
    "```\ncode\n```",
    "{{ jinja }} ${shell}",
    "'; drop: [",
    "*bold* _it_ ~~s~~ $x$",
    "www.evil.example and jane@evil.example",
    "right\u202eto left\u0000",
    "&lt;b&gt;",
    "\\[x](y)",
    "- item",
    "<!-- Written by antehoc_hf.",
)


def results(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RESULTS), **changes}


def card(config: dict[str, Any] = CONFIG, found: Any = RESULTS, **more: Any) -> str:
    return render_card(collect(config, found, **more))


def section(written: str, heading: str) -> str:
    return written.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_it_tells_what_was_measured_with_controls_numbers_and_seeds() -> None:
    written = card()
    assert "On 20 images of the test split." in section(written, "Results")
    assert "| accuracy ↑ | 85.00 % |" in section(written, "Results")
    trust = section(written, "How far the map can be trusted")
    for line in (
        "On 18 images",
        "seed 3",
        "95 % bootstrap",
        "the 20 % of the image",
        "| **antehoc** (this model) | 30.0 [20.0, 40.0] |",
        "| random (control) | 55.0 [50.0, 60.0] |",
        "| random (control) | 2.0 [1.0, 3.0] | 0.50 |",
    ):
        assert line in trust
    training = section(written, "Training")
    for line in (
        "`jane/insects`",
        "revision `c0ffee`: 80 train, 20 test images.",
        "| learning rate | `0.01` |",
        "| interpretation learning rate | `0.001` |",
        "| seed | `7` |",
        "| time | `61 s` |",
        "cpu (x86_64)",
        "torch 2.15.0",
    ):
        assert line in training


def test_what_is_not_known_is_not_there() -> None:
    bare = {name: CONFIG[name] for name in ("model_type", "architectures", "backbone", "image_size")}
    written = render_card(collect(bare))
    for word in ("Results", "How far", "## Training", "Licence", "Author", "![", "accuracy", "None", "null", "TODO"):
        assert word not in written, word
    data = ModelCard(written).data.to_dict()
    assert set(data) == {"library_name", "pipeline_tag", "tags"}
    assert "pointing game" not in card()  # its value is null
    assert "plain backbone" not in card()
    assert "loss" not in section(card(), "Results")
    assert "/home/jane" not in card()


def test_the_plain_backbone_is_compared_if_it_was_measured() -> None:
    written = card(found=results(plain_backbone={"metrics": {"accuracy": 0.86}}))
    assert "| accuracy ↑ | 85.00 % | 86.00 % |" in section(written, "Results")


def test_metadata_are_the_hubs_own() -> None:
    facts = Facts(license="apache-2.0")
    config = {**CONFIG, "backbone": "resnet50.a1_in1k"}
    found = results()
    found["training"]["base_model"] = "timm/resnet50.a1_in1k"
    written = ModelCard(card(config, found, facts=facts, repo_id="jane/mine"))
    data = written.data
    assert (data.license, data.base_model, data.datasets) == ("apache-2.0", "timm/resnet50.a1_in1k", ["jane/insects"])
    assert (data.pipeline_tag, data.library_name, data.model_name) == ("image-classification", "transformers", "mine")
    [result] = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("accuracy", 0.85, "jane/insects")
    assert (result.dataset_split, result.dataset_revision) == ("test", "c0ffee")


@pytest.mark.parametrize(("backbone", "is_timm"), [("resnet18", True), ("torchvision:mobilenet_v2", False)])
def test_a_network_of_another_library_is_not_found_under_timm(backbone: str, is_timm: bool) -> None:
    written = card(config={**CONFIG, "backbone": backbone})
    assert ("timm" in ModelCard(written).data.tags) is is_timm
    assert ("the timm backbone `resnet18`" in written) is is_timm


def test_a_licence_the_hub_does_not_know_goes_by_its_name() -> None:
    data = ModelCard(card(facts=Facts(license="My Own Licence 2.0"))).data
    assert (data.license, data.license_name) == ("other", "my-own-licence-2-0")


def test_paths_of_this_machine_and_local_data_stay_here() -> None:
    found = results(data={"name": "/home/jane/pictures/bugs", "revision": None, "images": {"train": 3}})
    written = card(found=found)
    assert "/home/jane" not in written
    assert "`bugs`: 3 train images." in written
    assert ModelCard(written).data.datasets is None


@pytest.mark.parametrize(
    ("task", "tag", "metrics", "line", "snippet"),
    [
        ("landmark-detection", "keypoint-detection", {"nme_box": 4.125}, "| NME by the box ↓ | 4.12 % |",
         "AutoModelForKeypointDetection"),
        ("image-captioning", "image-to-text", {"bleu_4": 21.04}, "| BLEU-4 ↑ | 21.0 |", "AutoTokenizer"),
    ],
)  # fmt: skip
def test_other_tasks(task: str, tag: str, metrics: dict[str, float], line: str, snippet: str) -> None:
    written = card(found=results(task=task, metrics=metrics, maps=None))
    assert ModelCard(written).data.pipeline_tag == tag
    assert line in written
    assert snippet in section(written, "Use")


def test_a_map_for_each_class_is_described_as_such() -> None:
    config = {**CONFIG, "map_head": {"kind": "contributions", "grid": 8}}
    found = results()
    found["training"]["passes"]["interpretation"] = {
        "coalitions_per_image": 4, "coalition_sampling": "shapley", "coalition_background": "blur",
    }  # fmt: skip
    found["training"]["objective"] = {"name": "coalitions", **asdict(CoalitionObjective(background="blur").describe())}
    written = card(config, found)
    about = section(written, "What the map is")
    for words in (
        "a map for each class", "(8 of them along its shorter side)", "trained together with the backbone",
        "some patches are replaced by a blur.", "target=3", "No causal proof", "Not where the object is",
    ):  # fmt: skip
        assert words in about, words
    for words in ("Not about a class", "image multiplied by its map", "Eq. 1"):
        assert words not in about, words
    training = section(written, "Training")
    assert "### Second pass: coalitions of patches through the frozen backbone" in training
    assert "| coalitions per image | `4` |" in training
    assert "| coalition sampling | `shapley` |" in training
    assert "| coalition background | `blur` |" in training
    assert "| layers read | `3` |" in training
    assert "target=0" in section(written, "Use")
    assert "The work that this one starts from:" in section(written, "Citation")


def test_a_finished_backbone_was_not_trained() -> None:
    found = results()
    found["training"]["passes"]["interpretation"]["train_task"] = False
    written = card(found=found)
    assert "It was trained for the finished backbone, which stayed as it was" in section(written, "What the map is")
    assert "### First pass: the image; backbone and head stay as they are" in written
    assert "| train task | `False` |" in written
    assert "trained together with the backbone" in card()


def test_a_baseline_without_maps_claims_none() -> None:
    written = card({**CONFIG, "model_type": "antehoc_plain"}, results(maps=None))
    for word in ("What the map is", "interpretation_map", "trust_remote_code", "looked at"):
        assert word not in written
    assert "import antehoc_hf" in section(written, "Use")


def test_the_same_data_give_the_same_card() -> None:
    assert card() == card(copy.deepcopy(CONFIG), json.loads(json.dumps(RESULTS)))
    assert hash(collect(CONFIG, RESULTS)) == hash(collect(CONFIG, RESULTS))


# -- hostile names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nasty", NASTY)
def test_names_stay_text_wherever_they_stand(nasty: str) -> None:
    config = {**CONFIG, "id2label": {"0": nasty, "1": "bee"}, "backbone": nasty}
    config |= {"map_head": {"kind": "contributions", "grid": nasty}}
    found = results(evaluated_on=nasty, versions={nasty: nasty})
    found["data"] = {"name": nasty, "revision": None, "images": {nasty: 3}}
    found["training"]["hardware"] = nasty
    found["training"]["passes"]["task"][nasty] = nasty
    found["training"]["passes"]["interpretation"]["coalition_background"] = nasty
    found["training"]["objective"] = {"learned": nasty, "limits": [nasty]}
    found["maps"]["rows"][1]["name"] = nasty
    written = card(config, found, facts=Facts(nasty, nasty, nasty))
    harmless = card({**config, "id2label": {"0": "ant", "1": "bee"}}, RESULTS, facts=Facts("mit", "j", "@misc{j}"))
    document = ModelCard(written)
    assert document.data.to_dict().keys() - {"license_name"} == ModelCard(harmless).data.to_dict().keys() - {
        "datasets", "base_model"
    }  # fmt: skip
    assert document.data.license == "other"
    body = document.text
    fences = [line for line in body.splitlines() if line.startswith("```")]
    assert len(fences) % 2 == 0
    assert _headings(body) == _headings(harmless)
    outside = _outside_of_code(body)
    for markup in ("<script", "](http://evil", "](javascript", "<b>", "www.evil", "@evil", "~~s", "*bold*", "\u202e"):
        assert markup not in outside, markup
    for row in [line for line in body.splitlines() if line.startswith("| ")]:
        assert row.count("|") >= 3
        assert row.endswith("|")


def test_a_file_of_nonsense_still_makes_a_card() -> None:
    nasty = "<script>alert(1)</script>"
    found = results(task=nasty, evaluated_images=nasty)
    found["data"]["images"] = {"train": nasty, "test": 4}
    found["data"]["skipped_images"] = nasty
    found["training"]["seconds"] = nasty
    found["maps"] |= {"num_images": nasty, "num_scored": nasty, "settings": {"seed": nasty, "level": nasty}}
    found["maps"]["rows"] += [nasty, {"name": nasty, "scores": {"avg_drop": {"value": 1, "low": nasty, "high": [1]}}}]
    config = {**CONFIG, "id2label": {nasty: nasty}, "image_size": nasty, "num_attention_maps": nasty}
    written = card({**config, "map_head": {"kind": "contributions", "grid": nasty}}, found)
    assert "<script" not in _outside_of_code(written)
    assert "4 test images" in written


def _headings(body: str) -> list[str]:
    """All but the title, which is the model's name."""
    return [line for line in body.splitlines() if line.startswith("##")]


def _outside_of_code(body: str) -> str:
    kept, fence = [], ""
    for line in body.splitlines():
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if len(ticks) >= 3 and (not fence or (len(ticks) >= len(fence) and line == ticks)):
            fence = "" if fence else ticks
        elif not fence:
            kept.append("".join(part for index, part in enumerate(line.split("`")) if index % 2 == 0))
    return "\n".join(kept)


def test_escaping_by_hand() -> None:
    assert text("a*b_c") == "a&#42;b&#95;c"
    assert text("two\nlines") == "two lines"
    assert text("- item") == "&#45; item"
    assert text("3. item") == "&#51;. item"
    assert text("3.11") == "3.11"
    assert text("naïve ×") == "naïve ×"
    assert text('can\'t: "a"') == 'can\'t: "a"'
    assert text("http://a") == "http&#58;//a"
    assert code("a|b") == "a&#124;b"
    assert code("resnet50.a1_in1k") == "`resnet50.a1_in1k`"
    assert fenced("x\n````\ny").startswith("`````\n")
    assert text("x" * 500).endswith("…")


@pytest.mark.parametrize(
    ("backbone", "data", "name"),
    [
        ("resnet50.a1_in1k", "zh-plus/tiny-imagenet", "antehoc-resnet50-tiny-imagenet"),
        ("test_resnet", "/home/jane/My Bugs/", "antehoc-test-resnet-my-bugs"),
        ("vgg11", None, "antehoc-vgg11"),
        ("vgg11", "../..", "antehoc-vgg11"),
        ("vgg11", "é" * 200, "antehoc-vgg11-" + "e" * 76),
    ],
)
def test_default_names(backbone: str, data: str | None, name: str) -> None:
    assert default_name(backbone, data) == name


# -- the card in a folder -------------------------------------------------------------------------------------------


def test_a_card_is_written_next_to_the_model_and_facts_are_remembered(trained: Path) -> None:
    assert write_card(trained, Facts(license="mit", author="Jane"))
    assert write_card(trained, Facts(author="Max"), repo_id="max/bugs")
    written = (trained / "README.md").read_text()
    assert "## Licence\n\nmit" in written
    assert "## Author\n\nMax" in written
    assert '"max/bugs"' in written
    assert "](predictions.png)" in written
    assert all(f"`{name}`" in written for name in CLASSES)
    assert not list(trained.glob("*.tmp"))


def test_a_persons_card_is_never_written_over(trained: Path) -> None:
    (trained / "README.md").write_text("# Mine")
    assert not write_card(trained)
    assert (trained / "README.md").read_text() == "# Mine"


def test_numbers_of_other_weights_are_left_out(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = results()
    found["training"]["weights_sha256"] = "0" * 64
    (trained / "results.json").write_text(json.dumps(found))
    with caplog.at_level(logging.WARNING):
        shown = read_card(trained)
    assert shown.metrics == ()
    assert shown.maps is None
    assert "other weights" in caplog.text


def test_results_for_the_hubs_benchmarks() -> None:
    file = eval_results_file(collect(CONFIG, RESULTS, facts=Facts(benchmark_task="insects_v1")))
    assert file is not None
    [entry] = yaml.safe_load(file)
    assert entry["dataset"] == {"id": "jane/insects", "task_id": "insects_v1", "revision": "c0ffee"}
    assert entry["value"] == 0.85
    assert eval_results_file(collect(CONFIG, RESULTS)) is None


def test_stability_and_sanity_stand_with_their_intervals() -> None:
    table = {
        "about": "Under noise.",
        "num_images": 20,
        "columns": {"CD 0.1": {"heading": "CD 0.1 ↓", "decimals": 1, "better": "lower"}, "similarity": {}},
        "rows": [
            {"name": "antehoc", "kind": "model", "scores": {
                "CD 0.1": {"value": 1.234, "low": 1.0, "high": 2.0}, "similarity": {"value": 0.5},
            }},
            {"name": "sobel", "kind": "control", "scores": {
                "CD 0.1": {"value": None, "low": None, "high": None}, "similarity": {"value": 1},
            }},
        ],
    }  # fmt: skip
    written = card(found=results(stability=table))
    assert "**Under noise.** On 20 images." in written
    assert "| map | CD 0.1 ↓ | similarity |" in written
    assert "| **antehoc** (this model) | 1.2 [1.0, 2.0] | 0.50 |" in written
    assert "| sobel (control) |  | 1.00 |" in written
    assert "Under noise" not in card()
    for nonsense in (
        "x",
        [],
        {"rows": 1},
        {"rows": [1], "columns": {"m": 1}},
        {"rows": [{"scores": {"m": "x"}}], "columns": 2},
    ):
        card(found=results(sanity=nonsense))


@pytest.mark.parametrize("nasty", NASTY)
def test_names_in_those_tables_stay_text(nasty: str) -> None:
    table = {
        "about": nasty,
        "num_images": 1,
        "columns": {nasty: {"heading": nasty}},
        "rows": [{"name": nasty, "scores": {nasty: {"value": 1.0}}}],
    }
    written = card(found=results(stability=table))
    assert "<script" not in written
    assert "](http" not in written.split("## How far", 1)[-1].split("## Training")[0]
    assert written.count("\n# ") == 1
