"""Finished classifiers come from the Hub, and go back to it with a map."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Client
from local_hub import LocalHub
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))
import networks

READ = """
from antehoc_hf import AnteHocForImageClassification
model = AnteHocForImageClassification.from_classifier(name)
generator = torch.Generator().manual_seed(5)
with torch.no_grad():
    logits = model(torch.randn(2, 3, side, side, generator=generator)).logits
tell([logits.tolist(), list(model.config.id2label.values()), model.config.image_mean])
"""
PREDICT = """
from transformers import pipeline
classify = pipeline("image-classification", model=name, trust_remote_code=True)
tell([entry["score"] for entry in sorted(classify(photo, top_k=3), key=lambda entry: entry["label"])])
"""


@pytest.fixture(scope="module")
def served(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.nn.Module]:
    """Repositories in three formats, and what they hold."""
    network = networks.network("test_resnet")
    place = networks.save_folders(tmp_path_factory.mktemp("repositories"), dict(network.state_dict()))
    for kind in ("timm", "wrapper", "transformers"):
        hub.add(f"jane/{kind}", {path.name: path.read_bytes() for path in (place / kind).iterdir()})
    return {"timm": network, "wrapper": network, "transformers": networks.network("ViT")}


@pytest.mark.parametrize(("kind", "prefix"), [("timm", "hf-hub:"), ("wrapper", ""), ("transformers", "")])
@torch.no_grad()
def test_repositories_of_every_format(served: Any, client: Client, kind: str, prefix: str) -> None:
    side = 64 if kind == "transformers" else 96
    done = client.run(READ, name=f"{prefix}jane/{kind}", side=side)
    assert done.error is None, done.error[2]
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(5))
    expected = networks.logits_of(served[kind], pixels).tolist()
    assert done.answer == [expected, networks.CLASSES, [0.5 if kind == "transformers" else 0.4] * 3]


def test_what_is_not_there_is_one_sentence(served: Any, client: Client) -> None:
    status, said = client.command("attach", "jane/nothing", "--images", "photos", "-o", "explained")
    assert status == 2
    assert "there is no jane/nothing, or it is private and your token may not see it" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_an_attached_folder_is_pushed_and_loads_in_a_pipeline(
    served: Any, hub: LocalHub, client: Client, stranger: Client, tmp_path: Path
) -> None:
    for index in range(40):
        pixels = 255 * networks.image_of_noise(64, index).sigmoid()
        Image.fromarray(pixels.byte().permute(1, 2, 0).numpy()).save(tmp_path / f"{index:02}.png")
    known = ["--images", str(tmp_path), "--pairs", "1", "-o", str(tmp_path / "explained")]
    status, said = client.command("attach", "jane/timm", *known)
    assert status == 0, said
    status, said = client.command("push", str(tmp_path / "explained"), "--repo_id", "jane/explained")
    assert status == 0, said
    assert b"jane/timm" in hub.store.repos["jane/explained"].files["README.md"]
    photo = str(tmp_path / "00.png")
    local, pushed = (
        who.run(PREDICT, name=name, photo=photo)
        for who, name in ((client, str(tmp_path / "explained")), (stranger, "jane/explained"))
    )
    assert local.error is None, local.error[2]
    assert pushed.error is None, pushed.error[2]
    assert local.answer == pushed.answer
    assert len(local.answer) == 3
