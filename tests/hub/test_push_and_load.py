"""A model goes to the Hub and comes back to the bit, with and without the project, trusted and not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from client import Client
from conftest import save_trained
from local_hub import LocalHub
from PIL import Image

from antehoc_hf.model_cards.card import is_ours
from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.training.data.captions import build_tokenizer

NAME = "jane/antehoc-test-resnet-insects"
TRUSTING = {"trust_remote_code": True}
LOAD = """
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained(name, **options).eval()
generator = torch.Generator().manual_seed(5)
with torch.no_grad():
    outputs = model(torch.randn(2, 3, 64, 64, generator=generator))
tell([type(model).__module__, outputs.logits.tolist(), outputs.interpretation_map.flatten().tolist()])
"""


@pytest.fixture(scope="module")
def pushed(hub: LocalHub, client: Client, stranger: Client, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder that `antehoc push` has pushed, and what it said."""
    folder = save_trained(tmp_path_factory.mktemp("pushed") / "trained")
    status, said = client.command("push", str(folder), "--license", "mit", "--author", "Jane <script>")
    assert status == 0, said
    return folder, said


def expected(folder: Path) -> tuple[Any, Any]:
    model = AnteHocForImageClassification.from_pretrained(folder).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        outputs = model(torch.randn(2, 3, 64, 64, generator=generator))
    return outputs.logits.tolist(), outputs.interpretation_map.flatten().tolist()


def test_what_travels_is_the_model_its_code_and_its_card_and_nothing_else(hub: LocalHub, pushed: Any) -> None:
    folder, said = pushed
    repo = hub.store.repos[NAME]
    code = {path.name for path in folder.glob("*.py")} - {"scratch.py"}
    others = {"README.md", "config.json", "preprocessor_config.json", "model.safetensors", "predictions.png"}
    assert set(repo.files) == code | others
    assert all(repo.files[name] == (folder / name).read_bytes() for name in repo.files)
    assert not any(b"hf_secret" in content or b"/home/jane" in content for content in repo.files.values())
    assert NAME in said
    assert f'"{NAME}"' in repo.files["README.md"].decode()
    assert hub.tokens_in_storage == 0


def test_it_comes_back_to_the_bit_where_the_project_is_not_installed(pushed: Any, stranger: Client) -> None:
    done = stranger.run(LOAD + "import sys\nassert 'antehoc_hf' not in sys.modules", name=NAME, options=TRUSTING)
    assert done.error is None, done.error[2]
    module, *numbers = done.answer
    assert module.startswith("transformers_modules.")
    assert tuple(numbers) == expected(pushed[0])


def test_it_comes_back_to_the_bit_where_it_is_and_its_code_is_not_run(
    pushed: Any, hub: LocalHub, client: Client
) -> None:
    asked = len(hub.log)
    done = client.run(LOAD + "import sys\nassert 'transformers_modules' not in sys.modules", name=NAME, options={})
    assert done.error is None, done.error[2]
    module, *numbers = done.answer
    assert module.startswith("antehoc_hf.modeling")
    assert tuple(numbers) == expected(pushed[0])
    assert not [path for _, _, path, _ in hub.log[asked:] if path.endswith(".py")]


def test_the_snippet_of_the_card_runs(pushed: Any, hub: LocalHub, stranger: Client) -> None:
    Image.new("RGB", (90, 70), (200, 30, 30)).save(stranger.home / "photo.jpg")
    card = hub.store.repos[NAME].files["README.md"].decode()
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    done = stranger.run(snippet[1])
    assert done.error is None, done.error[2]
    *_, label, shape = done.output.splitlines()  # after what transformers says of the code
    assert label in ("ant", "bee", "cat")
    assert shape == "torch.Size([1, 1, 64, 64])"


def test_a_pinned_revision_stays_what_it_was(hub: LocalHub, client: Client, tmp_path: Path) -> None:
    first, second = save_trained(tmp_path / "first", seed=1), save_trained(tmp_path / "second", seed=2)
    for folder in (first, second):
        assert client.command("push", str(folder), "--repo_id", "org/pinned")[0] == 0
    repo = hub.store.repos["org/pinned"]
    old = list(repo.commits)[1]
    assert len(repo.commits) == 3
    for revision, folder in ((old, first), ("main", second)):
        done = client.run(LOAD, name="org/pinned", options={"revision": revision})
        assert done.error is None, done.error[2]
        assert tuple(done.answer[1:]) == expected(folder), revision


def test_private_repositories_branches_and_messages(hub: LocalHub, client: Client, trained: Path) -> None:
    more = ("--private", "--revision", "trial", "--commit_message", "A first try")
    status, said = client.command("push", str(trained), "--repo_id", "org/hidden", *more)
    assert status == 0, said
    repo = hub.store.repos["org/hidden"]
    assert repo.private
    assert set(repo.branches) == {"main", "trial"}
    assert repo.messages[-1] == "A first try"
    assert not repo.files  # of main
    assert "model.safetensors" in repo.commits[repo.branches["trial"]]


def test_a_model_in_memory_brings_its_processor_and_an_honest_card(hub: LocalHub, client: Client, pushed: Any) -> None:
    code = """
from antehoc_hf import AnteHocForImageClassification
model = AnteHocForImageClassification.from_pretrained(folder)
tell(model.push_to_hub("org/from-memory", private=True))
"""
    done = client.run(code, folder=str(pushed[0]))
    assert done.error is None, done.error[2]
    repo = hub.store.repos["org/from-memory"]
    assert repo.private
    assert done.answer.startswith(f"{hub.url}/org/from-memory/commit/")
    assert json.loads(repo.files["preprocessor_config.json"])["image_size"] == [64, 64]
    assert "modeling_antehoc.py" in repo.files
    card = repo.files["README.md"].decode()
    assert is_ours(card)
    assert "accuracy" not in card  # of a model in memory nothing was measured


def test_a_baseline_brings_our_card_and_comes_back(hub: LocalHub, client: Client) -> None:
    code = """
from antehoc_hf.baselines import SennForImageClassification
model = SennForImageClassification.from_backbone("test_resnet", image_size=64, num_labels=3).eval()
model.push_to_hub("org/senn")
from transformers import AutoImageProcessor, AutoModelForImageClassification
again = AutoModelForImageClassification.from_pretrained("org/senn").eval()
pixels = torch.rand(1, 3, 64, 64)
assert AutoImageProcessor.from_pretrained("org/senn").image_size == [64, 64]
tell(torch.equal(model(pixels).logits, again(pixels).logits))
"""
    done = client.run(code)
    assert done.error is None, done.error[2]
    assert done.answer is True
    card = hub.store.repos["org/senn"].files["README.md"].decode()
    assert is_ours(card)
    assert "a baseline of antehoc_hf, `antehoc_senn`" in card


def test_a_persons_card_is_kept_and_a_generated_one_is_not(hub: LocalHub, client: Client, trained: Path) -> None:
    theirs = b"# Mine\n\nWritten with care."
    hub.add("org/cared-for", {"README.md": theirs})
    hub.add("org/generated", {"README.md": b"This model card has been automatically generated."})
    status, said = client.command("push", str(trained), "--repo_id", "org/cared-for")
    assert status == 0
    assert "written by a person and was kept" in said
    assert hub.store.repos["org/cared-for"].files["README.md"] == theirs
    assert "model.safetensors" in hub.store.repos["org/cared-for"].files
    assert client.command("push", str(trained), "--repo_id", "org/generated")[0] == 0
    assert is_ours(hub.store.repos["org/generated"].files["README.md"].decode())


def test_a_persons_card_in_the_folder_is_pushed_as_it_is(hub: LocalHub, client: Client, trained: Path) -> None:
    (trained / "README.md").write_text("# My own words")
    status, said = client.command("push", str(trained), "--repo_id", "org/own-words")
    assert status == 0
    assert "was written by a person and is pushed as it is" in said
    assert hub.store.repos["org/own-words"].files["README.md"] == b"# My own words"


def test_weights_in_several_files(hub: LocalHub, client: Client, trained: Path) -> None:
    model = AnteHocForImageClassification.from_pretrained(trained).eval()
    (trained / "model.safetensors").unlink()
    model.save_pretrained(trained, max_shard_size="500KB")
    assert client.command("push", str(trained), "--repo_id", "org/sharded")[0] == 0
    assert sum(name.endswith(".safetensors") for name in hub.store.repos["org/sharded"].files) > 1
    done = client.run(LOAD, name="org/sharded", options={})
    assert done.error is None, done.error[2]
    assert tuple(done.answer[1:]) == expected(trained)


# -- what a hostile repository must not be able to do ---------------------------------------------------------------


@pytest.fixture
def hostile(hub: LocalHub, pushed: Any, tmp_path: Path) -> Any:
    """Makes a repository like the pushed one, with other contents for some files; its code leaves a trace."""
    trace = tmp_path / "trace"

    def make(name: str, **changes: Any) -> Path:
        files = dict(hub.store.repos[NAME].files)
        for path in [path for path in files if path.endswith(".py")]:
            files[path] = f"open({str(trace)!r}, 'w')\n".encode() + files[path]
        config = json.loads(files["config.json"])
        config.update(changes)
        files["config.json"] = json.dumps(config).encode()
        hub.add(name, files)
        return trace

    return make


def test_no_code_runs_without_trust(hostile: Any, client: Client, stranger: Client) -> None:
    trace = hostile("max/tricky")
    refused = stranger.run(LOAD, name="max/tricky", options={})
    assert refused.error is not None
    assert "trust_remote_code" in refused.error[1]
    assert not trace.exists()
    assert client.run(LOAD, name="max/tricky", options={}).error is None  # by the classes that are installed
    assert not trace.exists()
    # The trace would have been seen: with trust the code does run.
    assert stranger.run(LOAD, name="max/tricky", options=TRUSTING).error is None
    assert trace.exists()


def test_code_of_another_repository_is_not_fetched(
    hostile: Any, hub: LocalHub, client: Client, stranger: Client
) -> None:
    elsewhere = "max/elsewhere--modeling_evil.Evil"
    names = ("AutoConfig", "AutoModelForImageClassification", "AutoImageProcessor")
    trace = hostile("max/pointing", auto_map=dict.fromkeys(names, elsewhere))
    hub.add("max/elsewhere", {"modeling_evil.py": f"open({str(trace)!r}, 'w')".encode()})
    asked = len(hub.log)
    assert client.run(LOAD, name="max/pointing", options={}).error is None
    assert stranger.run(LOAD, name="max/pointing", options={}).error is not None
    assert not [entry for entry in hub.log[asked:] if "elsewhere" in entry[2]]
    assert not trace.exists()


def test_names_that_climb_out_of_the_folder_lead_nowhere(
    hostile: Any, hub: LocalHub, client: Client, stranger: Client, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    climbing = f"{'../' * 12}{outside.with_suffix('').relative_to('/')}.Evil"
    trace = hostile("max/climbing", auto_map={"AutoConfig": climbing, "AutoModelForImageClassification": climbing})
    assert client.run(LOAD, name="max/climbing", options={}).error is None
    assert stranger.run(LOAD, name="max/climbing", options=TRUSTING).error is not None
    assert not trace.exists()
    files = {name: data for name, data in hub.store.repos[NAME].files.items() if name != "model.safetensors"}
    index = {"metadata": {}, "weight_map": {"backbone.conv1.weight": f"../../../{outside.name}"}}
    hub.add("max/sharded", {**files, "model.safetensors.index.json": json.dumps(index).encode()})
    assert client.run(LOAD, name="max/sharded", options={}).error is not None
    assert outside.exists()


PICKLED = """
import pickle
class Evil:
    def __reduce__(self):
        return open, (trace, "w")
tell(pickle.dumps({"backbone.conv1.weight": Evil()}).hex())
"""


def test_nothing_is_unpickled(
    hostile: Any, hub: LocalHub, client: Client, stranger: Client, tmp_path: Path, trained: Path
) -> None:
    """Neither weights nor what else lies there."""
    trace = tmp_path / "trace"
    made = client.run(PICKLED, trace=str(trace))
    pickled = bytes.fromhex(made.answer)
    files = {name: data for name, data in hub.store.repos[NAME].files.items() if name != "model.safetensors"}
    hub.add("max/pickled", {**files, "pytorch_model.bin": pickled})
    beside = {"training_args.bin": pickled, "optimizer.pt": pickled}
    hub.add("max/beside", {**hub.store.repos[NAME].files, **beside})
    for asking, options in ((client, {}), (stranger, TRUSTING)):
        assert asking.run(LOAD, name="max/pickled", options=options).error is not None
        assert asking.run(LOAD, name="max/beside", options=options).error is None
    (trained / "training_args.bin").write_bytes(pickled)
    assert client.command("push", str(trained), "--repo_id", "org/beside")[0] == 0
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"backbone": "hf-hub:max/elsewhere"}, "no architecture named"),
        ({"backbone": "local-dir:/etc"}, "no architecture named"),
        ({"backbone_kwargs": {"checkpoint_path": "/etc/passwd"}}, "must not hold 'checkpoint_path'"),
        ({"backbone_kwargs": {"pretrained": True}}, "must not hold 'pretrained'"),
        ({"backbone_kwargs": {"pretrained_cfg_overlay": {"file": "/etc/passwd"}}}, "'pretrained_cfg_overlay'"),
        ({"backbone_kwargs": {"pretrained_cfg": {"url": "http://evil.example"}}}, "'pretrained_cfg'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_configuration_names_no_other_weights(
    change: dict[str, Any], reason: str, hostile: Any, client: Client, stranger: Client
) -> None:
    trace = hostile("max/named", **change)
    refused = client.run(LOAD, name="max/named", options={})
    assert refused.error is not None
    assert reason in refused.error[1]
    assert stranger.run(LOAD, name="max/named", options={}).error is not None
    assert not trace.exists()


# -- other versions -------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_version_loads_and_is_pushed(
    hub: LocalHub, client: Client, stranger: Client, trained: Path
) -> None:
    """An older one knew fewer options, a newer one has some that are unknown here."""
    before = expected(trained)
    config = json.loads((trained / "config.json").read_text())
    for name in ("tap_channels", "tap_point", "include_shortcuts"):
        config.pop(name, None)
    config |= {"an_option_of_tomorrow": 3, "transformers_version": "5.0.0"}
    (trained / "config.json").write_text(json.dumps(config))
    results = {"task": "image-classification", "metrics": {"accuracy": 0.5}, "evaluated_images": 4}
    (trained / "results.json").write_text(json.dumps(results))
    assert expected(trained) == before
    assert client.command("push", str(trained), "--repo_id", "org/older")[0] == 0
    assert "| accuracy ↑ | 50.00 % |" in hub.store.repos["org/older"].files["README.md"].decode()
    for asking, options in ((client, {}), (stranger, TRUSTING)):
        done = asking.run(LOAD, name="org/older", options=options)
        assert done.error is None, done.error[2]
        assert tuple(done.answer[1:]) == before


def test_a_folder_whose_weights_lie_elsewhere_is_not_pushed(hub: LocalHub, client: Client, trained: Path) -> None:
    (trained.parent / "secret.safetensors").write_bytes(b"secret")
    index = {"metadata": {}, "weight_map": {"a": "../secret.safetensors"}}
    (trained / "model.safetensors.index.json").write_text(json.dumps(index))
    status, said = client.command("push", str(trained), "--repo_id", "org/leak")
    assert status == 2
    assert "lacks its weights" in said
    assert "org/leak" not in hub.store.repos


# -- the other tasks ------------------------------------------------------------------------------------------------


@pytest.fixture
def captioner(tmp_path: Path) -> Path:
    """A saved captioner with its tokenizer."""
    tokenizer = build_tokenizer(["a red bug", "a blue bug"], 1, 8)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"decoder_embedding_size": 16, "decoder_hidden_size": 24, "max_caption_length": 8}
    model = AnteHocForImageCaptioning.from_backbone(
        "test_resnet", image_size=64, vocab_size=len(tokenizer), **special, **sizes
    )
    for part in (model, tokenizer, AnteHocImageProcessor.from_backbone("test_resnet", image_size=64)):
        part.save_pretrained(tmp_path / "captioner")
    return tmp_path / "captioner"


@pytest.mark.slow
def test_snippets_of_the_other_tasks_run(hub: LocalHub, client: Client, stranger: Client, captioner: Path) -> None:
    code = """
from antehoc_hf import AnteHocForLandmarkDetection
model = AnteHocForLandmarkDetection.from_backbone("test_resnet", image_size=64, num_landmarks=2)
model.push_to_hub("org/points")
from antehoc_hf import AnteHocForImageClassification
options = {"map_head": "contributions", "num_labels": 2, "id2label": {0: "ant", 1: "bee"}}
AnteHocForImageClassification.from_backbone("test_resnet", image_size=64, **options).push_to_hub("org/each-class")
"""
    assert client.run(code).error is None
    status, said = client.command("push", str(captioner), "--repo_id", "org/words")
    assert status == 0, said
    Image.new("RGB", (90, 70)).save(stranger.home / "photo.jpg")
    for name, first in (("org/points", "tensor([["), ("org/words", ""), ("org/each-class", ("ant", "bee"))):
        card = hub.store.repos[name].files["README.md"].decode()
        snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
        assert snippet is not None
        done = stranger.run(snippet[1])
        assert done.error is None, done.error[2]
        lines = done.output.splitlines()
        assert any(line.startswith(first) for line in lines)
        assert lines[-1] == "torch.Size([1, 1, 64, 64])"
