"""`antehoc explain`: figures, arrays and JSON for images of any kind, and words for what cannot be explained."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor, example
from antehoc_hf.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    names = {0: "cat", 1: "dog"}
    model = AnteHocForImageClassification.from_backbone("test_resnet", id2label=names, image_size=48)
    model.config.label2id = {"cat": 0, "dog": 1}
    model.save_pretrained(folder)
    AnteHocImageProcessor.from_backbone("test_resnet", image_size=48).save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    noise = np.random.default_rng(0)
    Image.fromarray(noise.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(noise.integers(0, 255, (50, 50), dtype=np.uint8)).save(folder / "b.png")
    Image.fromarray(noise.integers(0, 255, (48, 48, 4), dtype=np.uint8)).save(folder / "more" / "a.png")
    return folder


def test_a_folder_explains_none_of_its_own_figures(
    trained: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("caf\u00e9.png", "cafe\u0301.png"):  # one name where accents are normalised
        Image.new("RGB", (9, 9)).save(pictures / name)
    monkeypatch.chdir(pictures)
    for _ in range(2):
        assert main(["explain", ".", "--model", str(trained), "--explainers", "antehoc", "--overwrite"]) == 0
        results = json.loads(Path("explanations/explanations.json").read_text())
        assert [entry["name"] for entry in results["images"]] == ["a", "b", "cafe\u0301", "caf\u00e9-2", "a-2"]


def test_a_folder_of_images(trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["explain", str(pictures), "--model", str(trained), "--explainers", "antehoc", "grad-cam", "sise"]
    assert main([*arguments, "--batch_size", "2", "-o", str(out)]) == 0
    results = json.loads((out / "explanations.json").read_text())
    assert [entry["name"] for entry in results["images"]] == ["a", "b", "a-2"]
    for entry in results["images"]:
        assert entry["prediction"].split()[0] in ("cat", "dog")
        assert entry["explainers"]["sise"]["passes"] > 0
        with np.load(out / "maps" / f"{entry['name']}.npz") as maps:
            assert sorted(maps) == ["antehoc", "grad-cam", "sise"]
            assert all(
                maps[name].shape == (48, 48) and 0 <= maps[name].min() <= maps[name].max() <= 1 for name in maps
            )
        with Image.open(out / "figures" / f"{entry['name']}.png") as figure:
            assert figure.width > 500
    printed = capsys.readouterr().out
    assert "3 images" in printed
    assert "ms an image" in printed


def test_no_image_s_map_replaces_another_s(trained: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for shade, name in enumerate(("a-2.png", "a.jpg", "a.png", "A.bmp")):
        Image.new("RGB", (48, 48), (60 * shade, 0, 0)).save(folder / name)
    (folder / "x.png").mkdir()  # a folder, and what macOS leaves behind
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    arguments = ["explain", str(folder), str(folder / "a.png"), "--model", str(trained), "--explainers", "antehoc"]
    assert main([*arguments, "--figures", "false", "-o", str(out)]) == 0
    entries = json.loads((out / "explanations.json").read_text())["images"]
    names = {Path(entry["file"]).name: entry["name"] for entry in entries}
    assert names == {"A.bmp": "A", "a-2.png": "a-2", "a.jpg": "a-3", "a.png": "a-4"}
    assert {path.stem for path in (out / "maps").iterdir()} == set(names.values())


def test_a_target_by_name(trained: Path, pictures: Path, tmp_path: Path) -> None:
    for target in ("dog", "1"):
        arguments = ["explain", str(pictures / "a.png"), "--model", str(trained), "--explainers", "grad-cam"]
        assert (
            main([*arguments, "--target", target, "--output_dir", str(tmp_path / target), "--figures", "false"]) == 0
        )
        assert not (tmp_path / target / "figures").exists()
    with np.load(tmp_path / "dog" / "maps" / "a.npz") as named, np.load(tmp_path / "1" / "maps" / "a.npz") as numbered:
        assert np.array_equal(named["grad-cam"], numbered["grad-cam"])


def test_images_that_cannot_be_read(trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    arguments = [
        "explain",
        str(pictures),
        "--model",
        str(trained),
        "--explainers",
        "antehoc",
        "-o",
        str(tmp_path / "o"),
    ]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "broken.jpg" in message
    assert "--on_bad_image skip" in message
    assert "--traceback" not in message
    assert main([*arguments, "--on_bad_image", "skip"]) == 0
    results = json.loads((tmp_path / "o" / "explanations.json").read_text())
    assert len(results["images"]) == 3
    assert "broken.jpg" in results["skipped"][0]


def test_no_run_s_results_replace_another_s(trained: Path, pictures: Path, tmp_path: Path, capsys) -> None:
    arguments = ["regions", str(pictures / "a.png"), "--model", str(trained), "--explainer", "sobel"]
    arguments += ["-o", str(tmp_path)]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "is there already, from an earlier run: name another --output_dir" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(
    "command",
    [
        ["explain", "a.png", "--model", "m", "-o"],
        ["regions", "a.png", "--model", "m", "-o"],
        ["evaluate", "m", "--dataset_name", "shapes", "-o"],
        ["attach", "resnet50", "--images", "in", "-o"],
        ["train", "--dataset_name", "shapes", "--backbone", "test_resnet", "--output_dir"],
        ["benchmark", "paper", "-o"],
    ],
)
@pytest.mark.parametrize(
    ("place", "reason"), [("a.png", "a file is in its way"), ("a.png/deep", "a file is in its way")]
)
def test_where_nothing_can_be_written_is_said_before_any_work(
    tmp_path: Path, command: list[str], place: str, reason: str, capsys, monkeypatch
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "resnet", "id2label": {"0": "a"}}')
    monkeypatch.chdir(tmp_path)
    assert main([*command, place]) == 2
    assert f"{place} cannot be written to ({reason}): name another --output_dir." in capsys.readouterr().err
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize(
    ("command", "left"),
    [
        (["explain", "a.png", "--model", "m", "-o"], "explanations.json"),
        (["explain", "a.png", "--model", "m", "-o"], "figures/a.png"),
        (["evaluate", "m", "--dataset_name", "shapes", "-o"], "results.json"),
        (["evaluate", "m", "--dataset_name", "shapes", "-o"], "predictions.png"),
        (["train", "--dataset_name", "shapes", "--backbone", "test_resnet", "--output_dir"], "results.json"),
        (["benchmark", "paper", "--output_dir"], "tables.json"),
        (["attach", "resnet50", "--images", "in", "-o"], "config.json"),
        (["export", "m", "-o"], ""),
    ],
)
def test_every_command_says_how_to_replace(tmp_path: Path, command: list[str], left: str, capsys, monkeypatch) -> None:
    output = tmp_path if left else tmp_path / "model.onnx"
    path = output / left
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert main([*command, str(output)]) == 2
    message = capsys.readouterr().err
    assert "already" in message
    assert "overwrite" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explainers", "antehoc"], "There is no image"),
        (["nowhere.png"], "nowhere.png does not exist"),
        ([""], "empty name does not exist"),
        (["{pictures}", "--explainers", "gradcam"], "did you mean 'grad-cam'"),
        (["{pictures}", "--target", "bird"], "target 'bird' is no class"),
        (["{pictures}", "--batch_size", "0"], "batch_size must be at least 1"),
        (["{pictures}", "--layer", "layer9", "--explainers", "grad-cam"], "layer='layer9' is not a module"),
    ],
)
def test_mistakes(trained: Path, pictures: Path, tmp_path: Path, arguments: list[str], message: str, capsys) -> None:
    given = [argument.format(pictures=pictures) for argument in arguments]
    assert main(["explain", *given, "--model", str(trained), "--output_dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_model_that_is_not_there(pictures: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)  # where no demo has been made
    for command in ("explain", "regions"):
        assert main([command, str(pictures), "--model", "/nowhere/at-all", "-o", str(tmp_path / "out")]) == 2
        assert "There is no folder '/nowhere/at-all': check the path of the model." in capsys.readouterr().err
    assert main(["explain", str(pictures), "--model", "outputs/demo", "-o", str(tmp_path / "out")]) == 2
    assert "There is no folder 'outputs/demo': run `make demo` first." in capsys.readouterr().err


def test_without_a_model_the_package_explains_two_bugs_of_its_own(tmp_path: Path, capsys) -> None:
    assert main(["explain", "-o", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "explanations.json").read_text())
    for entry, image in zip(written["images"], example.IMAGES, strict=True):
        name = Path(image).stem
        assert entry["prediction"].startswith(name)  # right, and sure of it
        assert int(entry["prediction"].split()[-2]) > 80
        assert not entry["explainers"]["antehoc"]["degenerate"]
        assert (tmp_path / "figures" / f"{name}.png").is_file()
    assert "which knows six drawn bugs and nothing else" in capsys.readouterr().out


def test_regions_of_a_folder(trained: Path, pictures: Path, tmp_path: Path) -> None:
    arguments = ["regions", str(pictures), "--model", str(trained), "--explainer", "sobel", "--per_class", "2"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "regions.json").read_text())
    assert len(results["images"]) == 3
    for entry in results["images"]:
        assert (tmp_path / "out" / f"{entry['class']}.png").is_file()
        for region in entry["regions"]:
            left, top, right, bottom = region["box"]
            assert 0 <= left < right <= 48
            assert 0 <= top < bottom <= 48
            assert 0.8 <= region["strength"] <= 1
    assert main([*arguments, "--threshold", "1.5"]) == 2
    assert main(["regions", "--model", str(trained)]) == 2


def test_a_thin_image_and_a_processor_that_enlarges_it(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=2)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "model")
    transformers.ConvNextImageProcessor(size={"shortest_edge": 48}).save_pretrained(tmp_path / "model")
    Image.new("RGB", (60000, 1)).save(tmp_path / "thin.png")
    arguments = ["--model", str(tmp_path / "model"), "--explainers", "grad-cam", "--figures", "false"]
    begun = time.monotonic()
    assert main(["explain", str(tmp_path / "thin.png"), *arguments, "-o", str(tmp_path / "out")]) == 0
    assert time.monotonic() - begun < 5, "60000 columns enlarged 54 times take longer"
    with np.load(tmp_path / "out" / "maps" / "thin.npz") as maps:
        assert maps["grad-cam"].shape == (48, 48)


def test_what_is_known_of_a_models_maps_is_said(trained: Path, pictures: Path, tmp_path: Path, capsys) -> None:
    model = shutil.copytree(trained, tmp_path / "model")
    (model / "results.json").write_text(json.dumps({"verdict": {"sentence": "Close to chance."}}))
    assert (
        main(["explain", str(pictures), "--model", str(model), "--explainers", "sobel", "-o", str(tmp_path / "o")])
        == 0
    )
    assert "Close to chance. Measured on held-out images." in capsys.readouterr().out
