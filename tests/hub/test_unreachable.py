"""A Hub that cannot be reached: one try, a sentence, and what is in the cache is used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

WEIGHTS = "test_resnet.r160_in1k"


def run(code: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """A process whose Hub is a port at which nobody listens."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(home / "hf")}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=home, env={**known, **hub}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_commands_try_once(tmp_path: Path) -> None:
    for number in range(40):  # as many as a map needs: fewer are said before anything is fetched
        Image.new("RGB", (64, 64)).save(tmp_path / f"{number}.png")
    attach = ["attach", f"timm/{WEIGHTS}", "--images", ".", "--output_dir", "out"]
    train = ["train", "--dataset_name", "org/birds", "--output_dir", "out"]
    explain = ["explain", "0.png", "--model", "org/net", "--output_dir", "out"]
    weights = ["train", "--dataset_name", "shapes", "--backbone", WEIGHTS, "--pretrained", "--output_dir", "out"]
    commands = [attach, train, explain, weights]
    done = run(f"from antehoc_hf.cli import main; print([main(words) for words in {commands!r}])", tmp_path)
    assert "[2, 2, 2, 2]" in done.stdout
    assert f"The pretrained weights of '{WEIGHTS}' cannot be had from the Hub (ConnectError: " in done.stderr
    assert "Found in shapes" not in done.stdout
    assert "antehoc attach: It could not be had from the Hub: " in done.stderr
    assert "cannot be reached or broke off (ConnectError)" in done.stderr
    assert "the Hub can't be reached: connect to the network once" in done.stderr
    assert "antehoc explain: " in done.stderr
    assert "Retrying" not in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_in_the_cache_are_used_and_others_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=1000)
    folder = tmp_path / "hf/hub" / f"models--timm--{WEIGHTS}"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    save_file(network.state_dict(), folder / "snapshots/abc/model.safetensors")
    code = f"""
import torch
from huggingface_hub import is_offline_mode
from antehoc_hf import AnteHocForImageClassification as Model
model = Model.from_backbone({WEIGHTS!r}, pretrained=True)
torch.save(model.backbone.state_dict(), "loaded.pt")
try:
    Model.from_backbone("test_vit.r160_in1k", pretrained=True)
except OSError as error:
    print(error)
assert not is_offline_mode()
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Could not load the pretrained weights of 'test_vit.r160_in1k' (ConnectError: " in done.stdout
    assert "Retrying" not in done.stderr
    loaded = torch.load(tmp_path / "loaded.pt", weights_only=True)
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())
