"""The command line: help, mistakes, export, evaluation."""

import hashlib
import json
import multiprocessing
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from antehoc_hf import cli
from antehoc_hf.commands import COMMANDS, errors
from antehoc_hf.modeling import AnteHocForImageClassification, AnteHocImageProcessor

ROOT = Path(__file__).parents[2]
SHAPES = [
    "--dataset_name",
    "shapes",
    "--dataset_options",
    '{"image_size": 32, "train": 0, "validation": 0, "test": 12}',
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of the classes of `shapes`."""
    from antehoc_hf.shapes.parts import CLASSES

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    model = AnteHocForImageClassification.from_backbone(
        "test_resnet", image_size=64, id2label=dict(enumerate(CLASSES))
    )
    model.save_pretrained(folder)
    AnteHocImageProcessor.from_backbone("test_resnet", image_size=64, crop_pct=1.0).save_pretrained(folder)
    return folder


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in ("train", "evaluate", "export"))
    assert cli.main([]) == 2


def test_help_of_train_is_one_screen_and_the_rest_stands_on_a_second_page(capsys: pytest.CaptureFixture[str]) -> None:
    pages = []
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["train", flag])
        assert ended.value.code == 0
        pages.append(capsys.readouterr().out)
    everyday, everything = pages
    assert len(everyday.splitlines()) <= 45
    assert "paper-cifar10" in everyday
    # The command line's own default, not the Trainer's 5e-05.
    assert re.search(r"--learning_rate .*\(default: 0\.001\)", everyday)
    assert "5e-05" not in everyday
    for flag in ("--tv_weight", "--interpretation_start", "--adam_beta1", "--license", "--num_beams"):
        assert f"  {flag} " not in everyday
        assert f"  {flag} " in everything
    # The paper's readings are options of --map_head; and no option is listed twice.
    assert "--attention_softmax" not in everything
    flags = re.findall(r"^  (?:\S+, )?(--\w+)", everything, re.MULTILINE)
    assert len(flags) == len(set(flags)) > 100


def test_help_of_a_command_shows_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    pages = []
    for name in ("explain", "regions"):
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        pages.append(capsys.readouterr().out)
    explain, regions = pages
    assert explain.startswith("usage: antehoc explain IMAGE… [options]")
    assert "-o, --output_dir " in explain
    assert "(default: None)" not in explain
    assert regions.startswith("usage: antehoc regions IMAGE… --model MODEL [options]")
    assert re.search(r"--model .*\n.*\(required\)", regions)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_what_a_command_does_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    does, example = COMMANDS[name]
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    _, _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"{does[0].upper()}{does[1:]}."
    assert second == f"Example: antehoc {example}"
    # Every word of the example is understood: what is missing are the files.
    command = import_module(f"antehoc_hf.commands.{name}")
    with suppress(OSError):
        try:
            command.parse(example.split()[1:])
        except errors.UsageError as error:
            if not re.search("outputs/pets|photo", str(error)):
                raise


def test_images_may_follow_an_option_of_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "--layer", "x", "nowhere.jpg"]) == 2
    assert capsys.readouterr().err == "antehoc explain: nowhere.jpg does not exist.\n"


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["--version"], ["trian"], ["train", "--help"], ["explain", "--help"], ["export", "--help"]),
        *(["train", "--learnig_rate", "2"], ["train"], ["train", "--dataset_name", "x", "--seed", "y"]),
        *(
            ["train", "--recipe", "dem"],
            ["explain", "--model", "m"],
            ["push"],
            ["evaluate", "m"],
            ["regions", "--batch", "2"],
            ["explain", "nowhere.jpg"],
            ["evaluate", "outputs/nowhere", "--dataset_name", "shapes"],
            ["push", "outputs/nowhere"],
            ["explain", "--explainers", "grad-camm"],
            ["evaluate", "x", "--dataset_name", "shapes", "--explainers", "nope"],
            ["regions", "x.png", "--model", "x", "--explainer", "cam"],
            ["benchmark", "paper", "--explainers", "sise", "rize"],
        ),
    ],
    ids=" ".join,
)
def test_help_and_mistakes_do_not_wait_for_torch(words: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "antehoc_hf", *words]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == (0 if words[-1] in ("--help", "--version") else 2)
    imported = set(re.findall(r"\| +([\w.]+)$", ended.stderr, re.MULTILINE))
    assert "antehoc_hf.cli" in imported
    assert not {"torch", "timm", "transformers", "datasets"} & imported


def test_an_unknown_command_is_reported_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == "antehoc: there is no command 'trian': did you mean 'train'?\n"


def test_users_mistakes_are_one_sentence_and_bugs_keep_their_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(error: BaseException) -> None:
        def run(name: str, argv: object) -> None:
            raise error

        monkeypatch.setattr(cli, "run", run)

    raising(OSError(28, "No space left on device", "/data/model"))
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err.startswith("antehoc train: No space left on device: /data/model")
    raising(ValueError("two\nlines"))
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == "antehoc train: two lines [--traceback shows where]\n"
    assert cli.main(["train", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err
    raising(KeyboardInterrupt())
    assert cli.main(["train"]) == 130
    assert "--resume_from_checkpoint" in capsys.readouterr().err
    raising(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["train"])


def test_the_script_of_a_checkout_ends_like_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = str(ROOT / "training" / "run.py")
    monkeypatch.setattr(sys, "argv", [script, "--recipe", "demo", "--seed", "x"])
    monkeypatch.setattr(sys, "path", [str(ROOT / "training"), *sys.path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "antehoc train: --seed: invalid int value: 'x'.\n"


def test_evaluate_writes_what_it_prints(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(folder), *SHAPES, "--output_dir", str(tmp_path), "--mask_column", "mask"]
    assert cli.main(arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    printed = capsys.readouterr().out
    assert results["evaluated_on"] == "test"
    assert results["evaluated_images"] == 12
    rows = {row["name"]: row["scores"] for row in results["maps"]["rows"]}
    # A map without any form has its energy where the area is.
    assert rows["constant 0.5"]["energy_share_over_area"]["value"] == pytest.approx(1.0, abs=1e-5)
    assert f"accuracy: {results['metrics']['accuracy']:.4g}" in printed
    assert "antehoc" in printed
    assert (tmp_path / "predictions.png").is_file()


@pytest.mark.slow
def test_evaluate_puts_other_methods_beside(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(folder), *SHAPES, "--output_dir", str(tmp_path), "--map_eval_samples", "6"]
    asked = [
        *("--explainers", "antehoc", "grad-cam", "sobel", "--target", "prediction", "--thorough", "true"),
        *("--insertion_deletion_images", "1", "--noise_shares", "0.2", "--sanity_images", "2"),
    ]
    assert cli.main([*arguments, *asked]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    rows = {row["name"]: row for row in results["maps"]["rows"]}
    assert list(rows)[:3] == ["antehoc", "grad-cam", "constant 1"]
    assert rows["grad-cam"]["scores"]["insertion_minus_deletion_patch_blur"]["count"] == 1
    assert rows["grad-cam"]["scores"]["road"]["count"] == 1
    assert rows["grad-cam"]["scores"]["remove_10_avg_drop"]["count"] == 6
    assert results["maps"]["settings"]["target"] == "prediction"
    stability, sanity = (
        {row["name"]: row["scores"] for row in results[name]["rows"]} for name in ("stability", "sanity")
    )
    assert stability["grad-cam"]["similarity 0.2"]["value"] < 1
    assert sanity["sobel"]["after head"]["value"] == pytest.approx(1, abs=1e-5)
    assert "Rank correlation with the trained network's maps" in printed
    for flags, message in (
        (["--explainers", "gradcam"], "There is no explainer 'gradcam': did you mean 'grad-cam'?"),
        (["--noise_shares", "20"], "noise_shares are parts of the pixels"),
        (["--target", "truth"], "invalid choice: 'truth'"),
    ):
        assert cli.main([*arguments, "--overwrite", *flags]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(arguments) == 2
    assert "is there already, from an earlier run" in capsys.readouterr().err


def test_evaluate_puts_its_measures_on_the_card(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(folder, model)
    weights = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    of_training = {"data": {"name": "shapes"}, "training": {"weights_sha256": weights, "seed": 7}}
    (model / "results.json").write_text(json.dumps(of_training))
    arguments = ["evaluate", str(model), *SHAPES, "--output_dir", str(out), "--map_eval_samples", "6"]
    asked = ["--noise_shares", "0.2", "--sanity_images", "2", "--update_card", "true"]
    assert cli.main([*arguments, *asked]) == 0
    assert "has these numbers now" in capsys.readouterr().out
    results, card = json.loads((model / "results.json").read_text()), (model / "README.md").read_text()
    found = json.loads((out / "results.json").read_text())
    assert results["training"]["seed"] == 7
    assert results["stability"] == found["stability"]
    similar = found["stability"]["rows"][0]["scores"]["similarity 0.2"]
    assert f"{similar['value']:.2f} [{similar['low']:.2f}, {similar['high']:.2f}]" in card
    assert "Rank correlation with the trained" in card
    # A card of one's own stays; so do numbers of other weights, and of other data.
    (model / "README.md").write_text("Mine.")
    assert cli.main([*arguments, "--overwrite", "--update_card", "true"]) == 0
    assert "written by a person and stays" in capsys.readouterr().out
    assert (model / "README.md").read_text() == "Mine."
    for changed, message in (
        ({"data": {"name": "org/other"}}, "was trained on 'org/other'"),
        ({"training": {"weights_sha256": "0"}}, "was written for other weights"),
    ):
        (model / "results.json").write_text(json.dumps({**of_training, **changed}))
        assert cli.main([*arguments, "--overwrite", "--update_card", "true"]) == 2
        assert message in capsys.readouterr().err


def test_evaluate_asks_for_a_data_set_and_a_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(folder)]) == 2
    assert "pass --dataset_name" in capsys.readouterr().err
    assert cli.main(["evaluate", *SHAPES]) == 2
    assert "--model" in capsys.readouterr().err
    unfinished = tmp_path / "unfinished"
    shutil.copytree(folder, unfinished / "checkpoint-7")
    assert cli.main(["evaluate", str(unfinished), *SHAPES]) == 2
    assert "its training has not ended; " + str(unfinished / "checkpoint-7") in capsys.readouterr().err
    assert cli.main(["explain", __file__, "--model", str(tmp_path)]) == 2
    assert f"{tmp_path} holds no model (there is no config.json)" in capsys.readouterr().err
    assert cli.main(["evaluate", str(folder), *SHAPES, "--output_dir", str(folder)]) == 2
    assert "holds a model, and its results.json would be lost" in capsys.readouterr().err
    assert cli.main(["evaluate", str(folder), *SHAPES, "--mask_colum", "mask"]) == 2
    assert "did you mean --mask_column" in capsys.readouterr().err


def test_export_of_what_is_no_model_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_the_exported_graph_gives_the_same_logits_and_maps(backbone: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from antehoc_hf.export import export_onnx

    torch.manual_seed(0)
    model = AnteHocForImageClassification.from_backbone(backbone, image_size=64, num_labels=5)
    with torch.no_grad():  # an untrained weight network weighs every map alike
        for parameter in model.map_head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.train()
    path = export_onnx(model, tmp_path / "made" / "model.onnx")
    assert model.training
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["logits", "interpretation_map"]
    assert json.loads(session.get_modelmeta().custom_metadata_map["image_size"]) == [64, 64]
    model.eval()
    for batch in (1, 3):
        pixels = torch.randn(batch, 3, 64, 64)
        with torch.no_grad():
            expected = model(pixels)
        logits, maps = session.run(None, {"pixel_values": pixels.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), expected.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(torch.from_numpy(maps), expected.interpretation_map, atol=1e-4, rtol=1e-4)
        assert maps.shape == (batch, 1, 64, 64)


@pytest.mark.parametrize(
    ("package", "extra", "words"),
    [
        ("captum", "explainers", ["explain", "--explainers", "integrated-gradients"]),
        ("captum", "explainers", ["evaluate", "m", *SHAPES, "--explainers", "integrated-gradients"]),
        ("scipy", "concepts", ["regions", "photos", "--model", "m"]),
        ("onnx", "onnx", ["export", "m"]),
        ("sacrebleu", "captions", ["train", "--task", "image-captioning", "--dataset_name", "nowhere"]),
    ],
)
def test_a_missing_extra_is_named_before_any_work_starts(
    package: str, extra: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No model is opened, no data set looked for: there are none."""
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == package else find_spec(name))
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert f"needs the package {package}: install it with `pip install 'antehoc-hf[{extra}]'`." in said


def test_forked_workers_end_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as while a command runs
    try:
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        time.sleep(0.2)
        worker.terminate()
        worker.join(30)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert worker.exitcode == -signal.SIGTERM
    assert "Traceback" not in capfd.readouterr().err


def test_an_option_is_guessed_by_a_part_of_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--epochs", "3"]) == 2
    assert "did you mean --num_train_epochs?" in capsys.readouterr().err


def test_the_first_page_of_evaluate_has_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    page = capsys.readouterr().out
    assert "--explainers " in page
    assert "--landmark_group" not in page


def test_of_several_processes_one_does_what_cannot_be_shared(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that measure or draw would write the same files over each other's."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    measured, pictures = tmp_path / "measured", tmp_path / "pictures"
    words = ["evaluate", str(folder), *SHAPES, "--insertion_deletion_images", "0", "-o", str(measured)]
    assert cli.main(words) == 0
    assert cli.main(["explain", "-o", str(pictures)]) == 0
    assert "antehoc evaluate: the first of the processes does it; RANK=1 ends." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("RANK", "0")
    assert cli.main(words) == 0, "it does not wait for the others"
    assert (measured / "results.json").is_file()
    monkeypatch.setenv("WORLD_SIZE", "of my own")
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["explain", "-o", str(pictures)]) == 0
    assert pictures.is_dir()
