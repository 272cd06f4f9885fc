"""Every snippet of README and docs runs as it stands, every flag that they name exists, every link leads somewhere."""

import importlib.util
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import timm
import torch
from PIL import Image

from antehoc_hf import (
    AnteHocForImageCaptioning,
    AnteHocForImageClassification,
    AnteHocForLandmarkDetection,
    AnteHocImageProcessor,
)
from antehoc_hf.cli import main
from antehoc_hf.commands import COMMANDS
from antehoc_hf.evaluation.metric import METRICS
from antehoc_hf.training.data.captions import build_tokenizer

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
# What needs the Hub is run against a small one in tests/hub, tables are read in tests/commands, Ray is not installed.
ELSEWHERE = {"docs/hub.md": ["model.push_to_hub"], "docs/scale.md": ["from datasets", "import sys\n\nimport ray"]}
# Weights that only a network could bring.
INSTEAD = {"pretrained=True": "pretrained=False"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the snippets name: models, photos, data sets."""
    place = tmp_path_factory.mktemp("docs")
    torch.manual_seed(0)
    classifier = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=400, image_size=64)
    landmarks = AnteHocForLandmarkDetection.from_backbone("test_resnet", num_landmarks=5, image_size=64)
    tokenizer = build_tokenizer(["a red bug", "a blue bug with wings"], 1, 12)
    captioner = AnteHocForImageCaptioning.from_backbone(
        "test_resnet", image_size=64, vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    processor = AnteHocImageProcessor(image_size=64)
    for name, model in (("demo", classifier), ("mine", classifier), ("faces", landmarks), ("flickr8k", captioner)):
        model.save_pretrained(place / "outputs" / name)
        processor.save_pretrained(place / "outputs" / name)
    tokenizer.save_pretrained(place / "outputs" / "flickr8k")
    classifier.save_pretrained(place / "org" / "name")
    processor.save_pretrained(place / "org" / "name")
    photos = [Image.effect_noise((80, 64), 60 + number).convert("RGB") for number in range(220)]
    for name in ("bug.png", "face.jpg", "photo.jpg"):
        photos[0].save(place / name)
    (place / "pictures" / "striped").mkdir(parents=True)
    for number in range(12):
        photos[number].rotate(90).save(place / "pictures" / "striped" / f"{number}.png")
    features = datasets.Features({"img": datasets.Image()})
    data = datasets.DatasetDict(train=datasets.Dataset.from_dict({"img": photos}, features=features))
    data.save_to_disk(place / "uoft-cs" / "cifar10")
    return place


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """A page may register a metric of its own; other tests don't know it."""
    known = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(known)


@pytest.fixture
def given(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """What a page assumes is there: a model and images for it."""
    monkeypatch.chdir(place)

    def names(page: str) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        size = 128 if page == "baselines.md" else 64
        if page == "maps.md":  # its snippet is about a model that has a map for each class
            options = {"map_head": "contributions", "num_labels": 400, "image_size": size}
            model = AnteHocForImageClassification.from_backbone("test_resnet", **options).eval()
        else:
            model = AnteHocForImageClassification.from_pretrained("outputs/demo").eval()
        pixel_values = torch.randn(2, 3, size, size, generator=generator)
        with torch.no_grad():
            outputs = model(pixel_values)
        images = torch.randn(6, 3, 64, 64, generator=generator)
        maps_and_masks = [(torch.rand(2, 1, 8, 8, generator=generator), torch.ones(2, 1, 8, 8))]
        labelled = [{"pixel_values": pixel_values, "labels": torch.tensor([0, 1])}]
        return {
            "model": model,
            "network": timm.create_model("test_resnet", num_classes=3).eval(),
            "explain": lambda pixel_values, target: pixel_values.mean(dim=1, keepdim=True).sigmoid(),
            "processor": AnteHocImageProcessor.from_pretrained("outputs/demo"),
            "pixel_values": pixel_values,
            "outputs": outputs,
            "images": images,
            "zebra_images": images,
            "random_sets": [torch.randn(8, 3, 64, 64, generator=generator) for _ in range(3)],
            "batches": labelled,
            "maps_and_masks": maps_and_masks,
        }

    return names


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_snippets_run(page: Path, given: Callable[[str], dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    namespace = given(page.name)
    for block in blocks(page, "python"):
        if any(block.startswith(start) for start in ELSEWHERE.get(name_of(page), [])):
            continue
        for written, run in INSTEAD.items():
            block = block.replace(written, run)
        exec(compile(block, name_of(page), "exec"), namespace)


def test_what_runs_elsewhere_is_still_there() -> None:
    for name, starts in ELSEWHERE.items():
        assert all(any(block.startswith(start) for block in blocks(ROOT / name, "python")) for start in starts)


def commands(page: Path) -> list[str]:
    """The lines of shell blocks that call `antehoc`, continued lines joined, comments cut."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line.split("#")[0] for line in lines if line.startswith("antehoc ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_flags_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in commands(page):
        name = line.split()[1]
        assert name in COMMANDS, line
        with pytest.raises(SystemExit):
            main([name, "--help-all"])
        said = capsys.readouterr().out
        for flag in re.findall(r"(?<=\s)--\w[\w-]*", line):
            assert f"{flag} " in said or f"{flag}," in said, f"{flag} in: {line}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_of_objects_exist(page: Path) -> None:
    for dotted in set(re.findall(r"`(antehoc_hf(?:\.\w+)+)`", page.read_text(encoding="utf-8"))):
        package, _, name = dotted.rpartition(".")
        home = importlib.import_module(package)
        assert hasattr(home, name) or importlib.util.find_spec(dotted), dotted


@pytest.mark.parametrize("page", [*PAGES, ROOT / "benchmarks" / "README.md", ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_the_reference_is_that_of_the_docstrings() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == module.reference(), "run `make docs`"


def test_readme_lists_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`.+`) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(extras)
