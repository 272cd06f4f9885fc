"""A stranger's way, as docs/hub.md tells it: from images to the Hub, and back to where the project is unknown."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import venv
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch
from local_hub import LocalHub
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "hub.md"
HEADING = "## A model of your own, from folder to Hub and back\n"

pytestmark = pytest.mark.slow  # a training of its own, and several fresh processes


def blocks(language: str) -> list[str]:
    """The section's code as it stands."""
    section = PAGE.read_text(encoding="utf-8").split(HEADING)[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """`antehoc …` lines as this environment's Python runs them."""
    lines = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert all(words[0] == "antehoc" for words in lines)
    return [[sys.executable, "-m", "antehoc_hf", *words[1:]] for words in lines]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a fresh environment with the packages that this one has, but without the project."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, with_pip=False, symlinks=True)
    [packages] = folder.glob("lib/python3*/site-packages")
    (packages / "shared.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    python = str(folder / "bin" / "python")
    found = subprocess.run([python, "-c", "import antehoc_hf"], cwd=folder, capture_output=True, text=True)
    if found.returncode == 0:
        pytest.skip("the project is installed among the packages themselves")
    assert "No module named 'antehoc_hf'" in found.stderr
    return python


@pytest.fixture(scope="module")
def journey(hub: LocalHub, elsewhere: str, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The section carried out, each block in processes of its own; what was said, and the folder."""
    place = tmp_path_factory.mktemp("journey")
    known = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}

    def run(command: list[str], home: str, token: str | None = None) -> str:
        environment = known | hub.environment(place / home, token) | {"GRADIO_TEMP_DIR": str(place / "gradio")}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    draw, load = blocks("python")
    make, show = blocks("bash")
    run([sys.executable, "-c", draw], "here")
    said = [run(command, "here", "hf_jane") for command in commands(make)]
    loaded = run([elsewhere, "-c", load], "there")
    environment = known | hub.environment(place / "page", None) | {"GRADIO_TEMP_DIR": str(place / "gradio")}
    return SimpleNamespace(place=place, said=said, loaded=loaded, show=commands(show), environment=environment)


def test_it_learns_is_measured_and_goes_to_the_hub(journey: SimpleNamespace, hub: LocalHub) -> None:
    trained, measured, pushed = journey.said
    assert "drawings, validation split, 12 images" in trained
    assert "grad-cam" in measured
    assert "The model is on the Hub: org/name" in pushed
    at_the_end = json.loads((journey.place / "outputs/drawings/results.json").read_text())
    again = json.loads((journey.place / "outputs/drawings-measured/results.json").read_text())
    assert at_the_end["metrics"]["accuracy"] >= 0.8
    assert again["metrics"]["accuracy"] == at_the_end["metrics"]["accuracy"]  # of the same images
    card = hub.store.repos["org/name"].files["README.md"].decode()
    assert "`drawings`: 108 train, 12 validation images." in card
    assert str(journey.place) not in card


def test_it_is_loaded_by_name_where_the_project_is_unknown(journey: SimpleNamespace) -> None:
    assert journey.loaded.startswith("[{'label': 'circle', 'score': 0.")
    with Image.open(journey.place / "map.png") as picture:
        assert (picture.size, picture.mode) == ((64, 64), "L")
        darkest, brightest = picture.getextrema()
    assert darkest == 0
    assert brightest >= 254  # 1, but for rounding


def test_the_page_opens(journey: SimpleNamespace) -> None:
    [command] = journey.show
    if find_spec("gradio") is None:
        done = subprocess.run(command, cwd=journey.place, env=journey.environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert "pip install 'antehoc-hf[demo]'" in done.stderr
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, "--port", str(port)], cwd=journey.place, env=journey.environment)
    try:
        assert "What did it look at?" in opened(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(30)


def opened(address: str, process: subprocess.Popen[bytes]) -> str:
    """The page, as soon as it is there."""
    for _ in range(240):
        assert process.poll() is None, "the page did not open"
        try:
            with urlopen(address) as answer:
                return answer.read().decode()
        except URLError:
            time.sleep(0.5)
    raise AssertionError("the page did not open in two minutes")
