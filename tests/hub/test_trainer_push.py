"""The Trainer pushes while it trains and at its end: whole models, our card, no secrets, and nothing lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from client import Client
from local_hub import Fault, LocalHub

from antehoc_hf.model_cards.card import is_ours

TRAIN = """
import logging
from pathlib import Path
from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.training import AnteHocTrainer
from antehoc_hf.training.arguments import AnteHocTrainingArguments

class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(index))
        return {"pixel_values": image, "labels": index % 3}

model = AnteHocForImageClassification.from_backbone("test_resnet", image_size=64, num_attention_maps=3, num_labels=3)
arguments = AnteHocTrainingArguments(
    output_dir=folder, max_steps=4, save_steps=2, per_device_train_batch_size=4, report_to="none", disable_tqdm=True,
    use_cpu=True, push_to_hub=True, hub_token="hf_jane", hub_always_push=True, learning_rate=0.003, **options,
)
processor = AnteHocImageProcessor.from_backbone("test_resnet", image_size=64)
trainer = AnteHocTrainer(model=model, args=arguments, train_dataset=Images(), processing_class=processor)
trainer.train()
trainer.push_to_hub()
tell(sorted(path.name for path in Path(folder).iterdir()))
"""
NEEDED = {
    "README.md",
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "modeling_antehoc.py",
    "taps.py",
}


def train(client: Client, folder: Path, **options: Any) -> list[str]:
    done = client.run(TRAIN, environment={"HF_TOKEN": None}, folder=str(folder), options=options)
    assert done.error is None, done.error[2]
    return done.answer


def test_every_push_while_training_is_a_model_that_loads(hub: LocalHub, client: Client, tmp_path: Path) -> None:
    left = train(client, tmp_path / "run", hub_model_id="org/midway", hub_strategy="every_save")
    repo = hub.store.repos["org/midway"]
    # The last one is the model of step 4 once more, and nothing is left to commit.
    assert repo.messages[1:] == ["Training in progress, step 2", "Training in progress, step 4"]
    cards = set()
    for files in list(repo.commits.values())[1:]:
        assert set(files) >= NEEDED
        assert not [name for name in files if name.endswith(".bin") or "/" in name]
        cards.add(files["README.md"].content.decode())
    assert all(is_ours(card) and '"org/midway"' in card and "`0.003`" in card for card in cards)
    assert any("| steps | `2` |" in card for card in cards)
    assert not any(b"hf_jane" in content for content in repo.files.values())
    assert not [name for name in left if name.startswith("_")]
    assert "training_args.bin" in left  # the token is in it, which is why it stays here


def test_checkpoints_are_pushed_for_resuming_without_the_token(hub: LocalHub, client: Client, tmp_path: Path) -> None:
    train(client, tmp_path / "run", hub_model_id="org/resumable", hub_strategy="checkpoint")
    files = hub.store.repos["org/resumable"].files
    inside = {name.removeprefix("last-checkpoint/") for name in files if name.startswith("last-checkpoint/")}
    assert inside >= {"optimizer.pt", "scheduler.pt", "trainer_state.json", "model.safetensors", "rng_state.pth"}
    assert not any(b"hf_jane" in content for content in files.values())


def test_training_goes_on_when_pushes_fail(hub: LocalHub, client: Client, tmp_path: Path) -> None:
    with hub.fault(Fault("lfs-batch", 403, times=2)):
        done = client.run(
            TRAIN, folder=str(tmp_path / "run"), options={"hub_model_id": "org/bumpy", "hub_strategy": "every_save"}
        )
    assert done.error is None, done.error[2]
    assert "was not pushed: Your token may not write to org/bumpy" in done.output
    assert hub.store.repos["org/bumpy"].messages[1:] == ["End of training"]
    assert not [name for name in done.answer if name.startswith("_")]


def flags(folder: Path, *more: str) -> list[str]:
    data = {"image_size": 64, "train": 16, "validation": 8, "test": 8, "seed": 0}
    return [
        "train", "--dataset_name", "shapes", "--dataset_options", json.dumps(data), "--backbone", "test_resnet",
        "--image_size", "64", "--num_attention_maps", "3", "--max_steps", "1", "--use_cpu", "--report_to", "none",
        "--disable_tqdm", "true", "--panel_images", "0", "--map_eval_samples", "8", "--push_to_hub",
        "--output_dir", str(folder), *more,
    ]  # fmt: skip


def test_a_run_ends_with_its_card_on_the_hub(hub: LocalHub, client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    status, said = client.command(*flags(folder, "--hub_token", "hf_jane"), environment={"HF_TOKEN": None})
    assert status == 0, said
    assert "The model is on the Hub: jane/antehoc-test-resnet-shapes" in said
    files = hub.store.repos["jane/antehoc-test-resnet-shapes"].files
    card = files["README.md"].decode()
    assert card == (folder / "README.md").read_text()
    for line in (
        "On 8 images of the test split.",
        "| accuracy ↑ |",
        "(control)",
        "coalitions per image",
        "predictions.png",
    ):
        assert line in card, line
    assert "predictions.png" in files
    assert str(tmp_path) not in card
    assert "hf_jane" not in (folder / "results.json").read_text()


def test_what_a_person_stated_of_a_run_is_on_every_card_of_it(hub: LocalHub, client: Client, tmp_path: Path) -> None:
    citation = tmp_path / "paper.bib"
    citation.write_text("@misc{doe2026, title = {Bugs}}")
    facts = ("--license", "mit", "--author", "Jane Doe", "--citation", str(citation))
    while_training = (
        "--max_steps",
        "2",
        "--save_strategy",
        "steps",
        "--save_steps",
        "1",
        "--hub_strategy",
        "every_save",
    )
    folder = tmp_path / "run"
    more = (*facts, *while_training, "--hub_model_id", "org/stated", "--hub_always_push", "true")
    status, said = client.command(*flags(folder, *more, "--map_eval_samples", "0"))
    assert status == 0, said
    commits = list(hub.store.repos["org/stated"].commits.values())[1:]
    assert len(commits) == 3
    for files in commits:
        assert "card_facts.json" not in files
        card = files["README.md"].content.decode()
        assert "\nlicense: mit\n" in card
        assert "## Author\n\nJane Doe" in card
        assert "@misc{doe2026, title = {Bugs}}" in card
    kept = json.loads((folder / "card_facts.json").read_text())
    assert (kept["license"], kept["author"], kept["citation"]) == ("mit", "Jane Doe", citation.read_text())
    assert client.command("push", str(folder), "--repo_id", "org/stated-again")[0] == 0
    assert "## Author\n\nJane Doe" in hub.store.repos["org/stated-again"].files["README.md"].decode()


def test_a_run_whose_push_fails_is_complete_and_says_what_to_run(
    hub: LocalHub, client: Client, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with hub.fault(Fault("commit", 503, times=99)):
        status, said = client.command(*flags(folder, "--hub_model_id", "org/later", "--map_eval_samples", "0"))
    assert status == 2
    sentence = said.strip().splitlines()[-1]
    assert f"The model is complete in {folder}, but pushing it failed (the Hub is not well (HTTP 503)" in sentence
    assert f"`antehoc push {folder} --repo_id org/later`" in sentence
    status, said = client.command("push", str(folder), "--repo_id", "org/later")
    assert status == 0, said
    assert "model.safetensors" in hub.store.repos["org/later"].files


@pytest.mark.parametrize(("token", "reason"), [(None, "there is no access token here"), ("hf_max", "may not write")])
def test_who_may_not_push_learns_it_before_training(
    token: str | None, reason: str, client: Client, tmp_path: Path
) -> None:
    arguments = flags(tmp_path / "run", "--hub_model_id", "org/not-mine")
    status, said = client.command(*arguments, environment={"HF_TOKEN": token})
    assert status == 2
    assert "The Hub will not take the model" in said
    assert reason in said
    assert not (tmp_path / "run" / "model.safetensors").exists()


KNOWS_ITSELF = """
import datasets, numpy, timm
from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.training import AnteHocTrainer, load_image_data
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.metrics import metrics_of

data = load_image_data("shapes", options={"image_size": 64, "train": 8, "validation": 6, "test": 6, "seed": 0})
data = type(data)("jane/insects", "c0ffee", data.splits, data.image_column, data.targets)
model = AnteHocForImageClassification.from_backbone(
    "test_resnet.r160_in1k", image_size=64, num_labels=len(data.targets.names))
model.pretrained_source = True  # as `pretrained=True` leaves it, which would need the network
images = data.with_transforms(AnteHocImageProcessor.from_backbone("test_resnet", image_size=64))
arguments = AnteHocTrainingArguments(
    output_dir=folder, max_steps=2, per_device_train_batch_size=4, report_to="none", disable_tqdm=True,
    use_cpu=True, save_strategy="no", hub_model_id="org/trainer-knows",
)
trainer = AnteHocTrainer(
    model, arguments, train_dataset=images.train, eval_dataset=images.validation,
    compute_metrics=metrics_of("single_label_classification"),
)
trainer.train()
trainer.evaluate()
trainer.push_to_hub()
model.push_to_hub("org/model-knows")
with torch.no_grad():
    model.backbone.fc.bias.add_(1.0)
model.push_to_hub("org/changed-since")
fresh = AnteHocForImageClassification.from_backbone("test_resnet.r160_in1k", image_size=64, num_labels=3)
fresh.pretrained_source = True
fresh.push_to_hub("org/fresh")
"""


def test_model_and_trainer_write_what_they_know_into_the_card(hub: LocalHub, client: Client, tmp_path: Path) -> None:
    done = client.run(KNOWS_ITSELF, folder=str(tmp_path / "run"))
    assert done.error is None, done.error[2]
    cards = {
        name: hub.store.repos[f"org/{name}"].files["README.md"].decode()
        for name in ("trainer-knows", "model-knows", "changed-since", "fresh")
    }
    assert all("\nbase_model: timm/test_resnet.r160_in1k\n" in card for card in cards.values())
    for name, card in cards.items():
        assert ("\ndatasets:\n- jane/insects\n" in card) is (name != "fresh"), name
        assert ("\nmodel-index:\n" in card and "accuracy" in card) is name.endswith("-knows"), name
        assert ("On 6 images of the validation split." in card) is name.endswith("-knows"), name
