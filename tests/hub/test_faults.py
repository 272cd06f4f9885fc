"""What goes wrong between here and the Hub: survived where that can be, and one sentence where it cannot."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from client import Client
from local_hub import Fault, LocalHub
from PIL import Image

from antehoc_hf.model_cards.travel import travelling_files

LOAD = """
from transformers import AutoModelForImageClassification
tell(AutoModelForImageClassification.from_pretrained(name).config.num_labels)
"""


def contents(folder: Path) -> dict[str, str]:
    """Every file but the card, which a push writes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("README.md",)]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def told_once(said: str) -> str:
    """The one line that an error ends in."""
    assert "Traceback" not in said
    [line] = [line for line in said.splitlines() if line.startswith("antehoc ")]
    return line


# -- pushing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault("create", 503),
        Fault("create", 500, times=3),
        Fault("validate-yaml", 502),
        Fault("preupload", 503),
        Fault("lfs-put", 0),
        Fault("commit", 503, times=2),
        Fault("commit", 429, headers={"Retry-After": "1"}),
        Fault("commit", 0),
        Fault("commit", 0, after=True),
        Fault("resolve", 500, method="GET"),
    ],
    ids=lambda fault: f"{fault.route}-{fault.status}{'-after' if fault.after else ''}",
)
def test_a_push_survives(fault: Fault, hub: LocalHub, client: Client, trained: Path) -> None:
    name = f"org/survives-{fault.route}-{fault.status}-{fault.after}".lower()
    hub.add(name, {"README.md": b"This model card has been automatically generated."})
    with hub.fault(fault):
        status, said = client.command("push", str(trained), "--repo_id", name)
        assert fault.times == 0
    assert status == 0, said
    repo = hub.store.repos[name]
    assert repo.files["model.safetensors"] == (trained / "model.safetensors").read_bytes()
    assert repo.messages == ["initial commit", "files", "Upload model"]  # once, even where the answer was lost


def test_a_rate_limit_is_respected(hub: LocalHub, client: Client, trained: Path) -> None:
    code = """
import time
from pathlib import Path
from antehoc_hf.model_cards import push_folder
from antehoc_hf.model_cards.publish import create_repository
start = time.monotonic()
push_folder(Path(folder), create_repository("org/limited"))
tell(time.monotonic() - start)
"""
    with hub.fault(Fault("commit", 429, headers={"Retry-After": "2"})):
        done = client.run(code, folder=str(trained))
    assert done.error is None, done.error[2]
    assert done.answer >= 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("commit", 503, times=99), "the Hub is not well (HTTP 503): try again later"),
        (Fault("commit", 0, times=99), "cannot be reached or broke off"),
        (Fault("commit", 429, times=99), "rate limit"),
        (Fault("commit", 409, times=99), "was changed by somebody else"),
        (Fault("create", 500, times=99), "the Hub is not well (HTTP 500)"),
        (Fault("lfs-batch", 403, times=99), "may not write to org/fails"),
        (Fault("preupload", 401, times=99), "does not accept the access token"),
        (Fault("lfs-put", 403, times=99), "may not write to org/fails"),
        (Fault("commit", 404, times=99), "nothing of that name on the Hub (org/fails)"),
        (Fault("commit", 400, times=99), "the Hub refuses it"),
    ],
    ids=lambda value: f"{value.route}-{value.status}" if isinstance(value, Fault) else "",
)
def test_a_push_that_fails_loses_nothing_and_says_what_to_run(
    fault: Fault, reason: str, hub: LocalHub, client: Client, trained: Path
) -> None:
    before = contents(trained)
    arguments = ["push", str(trained), "--repo_id", "org/fails", "--license", "my own"]
    with hub.fault(fault):
        status, said = client.command(*arguments)
    assert status == 2
    sentence = told_once(said)
    assert reason.lower() in sentence.lower()
    again = f"`antehoc push {trained} --repo_id org/fails --license 'my own'`"
    assert again in sentence
    after = contents(trained)
    assert {name: after[name] for name in before} == before
    assert client.command(*arguments)[0] == 0


@pytest.mark.slow  # huggingface_hub tries again for 23 s
def test_a_connection_that_is_always_cut_in_mid_upload(hub: LocalHub, client: Client, trained: Path) -> None:
    before = contents(trained)
    with hub.fault(Fault("lfs-put", 0, times=99)):
        status, said = client.command("push", str(trained), "--repo_id", "org/cut")
    assert status == 2
    sentence = told_once(said)
    assert "cannot be reached or broke off" in sentence
    assert f"`antehoc push {trained} --repo_id org/cut`" in sentence
    assert hub.store.repos["org/cut"].files == {}
    assert {name: contents(trained)[name] for name in before} == before


def test_a_disk_that_is_full_while_the_card_is_written(hub: LocalHub, client: Client, trained: Path) -> None:
    (trained / "README.md").write_text("This model card has been automatically generated.")
    code = """
import resource, signal
from antehoc_hf.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # the card is larger
try:
    tell(main(["push", folder, "--repo_id", "org/full"]))
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
"""
    done = client.run(code, folder=str(trained))
    assert (done.error, done.answer) == (None, 2)
    assert "no space left" in told_once(done.output)
    assert (trained / "README.md").read_text() == "This model card has been automatically generated."
    assert not list(trained.glob("*.tmp"))
    assert hub.store.repos["org/full"].files == {}
    assert client.command("push", str(trained), "--repo_id", "org/full")[0] == 0


def test_a_persons_card_is_not_taken_for_missing(hub: LocalHub, client: Client, trained: Path) -> None:
    repo = hub.add("org/theirs", {"README.md": b"# Mine"})
    for fault in (Fault("resolve", 500, times=99), Fault("resolve", 0, times=99), Fault("resolve", 403, times=99)):
        with hub.fault(fault):
            assert client.command("push", str(trained), "--repo_id", "org/theirs")[0] == 2
    assert repo.files == {"README.md": b"# Mine"}


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "There is no access token here: log in with `hf auth login`"),
        ("hf_wrong", "does not accept the access token"),
        ("hf_reads", "needs the role 'write'"),
        ("hf_max", "may not write to org/"),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_who_may_not_push_is_reported_why(
    token: str | None, reason: str, exists: bool, hub: LocalHub, client: Client, trained: Path
) -> None:
    name = f"org/mine-{exists}".lower()
    if exists:
        hub.add(name, {})
    status, said = client.command("push", str(trained), "--repo_id", name, environment={"HF_TOKEN": token})
    assert status == 2
    assert reason in told_once(said)
    assert not (hub.store.repos[name].files if exists else name in hub.store.repos)


def test_a_private_repository_of_others_looks_missing(hub: LocalHub, client: Client, trained: Path) -> None:
    hub.add("max/secret", {"README.md": b"x"}, private=True)
    status, said = client.command("push", str(trained), "--repo_id", "max/secret")
    assert status == 2
    assert "may not write to max/secret" in told_once(said)


@pytest.mark.parametrize("name", ["a/b/c", "no spaces", "-begins", "a--b", "../up"])
def test_senseless_names_are_refused(name: str, hub: LocalHub, client: Client, trained: Path) -> None:
    asked = len(hub.log)
    status, said = client.command("push", str(trained), f"--repo_id={name}")
    assert status == 2
    assert "is not a name of a repository" in told_once(said)
    assert len(hub.log) == asked


def test_a_hub_that_is_down(client: Client, hub: LocalHub, trained: Path) -> None:
    code = """
from huggingface_hub import constants
import antehoc_hf.model_cards.publish as publish
from antehoc_hf.cli import main
class Api(publish.HfApi):
    def __init__(self, **options):
        super().__init__(endpoint="http://127.0.0.1:9", **options)
before, publish.HfApi = publish.HfApi, Api
try:
    tell(main(["push", folder]))
finally:
    publish.HfApi = before
"""
    done = client.run(code, folder=str(trained))
    assert (done.error, done.answer) == (None, 2)
    assert "cannot be reached or broke off (ConnectError): try again later" in told_once(done.output)


def test_folders_that_are_no_whole_model_are_not_pushed(hub: LocalHub, client: Client, trained: Path) -> None:
    asked = len(hub.log)

    def refused(folder: Path) -> str:
        status, said = client.command("push", str(folder), "--repo_id", "org/torn")
        assert status == 2
        return told_once(said)

    weights = trained / "model.safetensors"
    whole = weights.read_bytes()
    for size in (0, 5, 100, len(whole) - 1):
        weights.write_bytes(whole[:size])
        assert "model.safetensors is cut short or damaged" in refused(trained)
    weights.unlink()
    assert "lacks its weights (model.safetensors)" in refused(trained)
    weights.write_bytes(whole)
    (trained / "taps.py").unlink()
    assert "lacks taps.py, part of the model's code" in refused(trained)
    (trained / "config.json").write_text('{"model_type": "resnet"}')
    assert "a model of type 'resnet'" in refused(trained)
    (trained / "config.json").write_text("{")
    assert "config.json is damaged" in refused(trained)
    assert "there is no config.json" in refused(trained / "checkpoint-3")
    assert "is not a folder" in refused(trained / "nowhere")
    assert len(hub.log) == asked


# -- loading --------------------------------------------------------------------------------------------------------


@pytest.fixture
def there(hub: LocalHub, trained: Path) -> str:
    """The name of a model on the Hub that no client has in its cache."""
    name = f"org/there-{len(hub.store.repos)}"
    hub.add(name, {path: (trained / path).read_bytes() for path in travelling_files(trained)})
    return name


@pytest.mark.parametrize(
    "fault",
    [Fault("large", 0, method="GET"), Fault("resolve", 0, method="GET"), Fault("info", 503)],
    ids=["cut-in-the-middle", "cut-at-once", "info-503"],
)
def test_a_download_survives(fault: Fault, there: str, hub: LocalHub, client: Client) -> None:
    with hub.fault(fault):
        done = client.run(LOAD, name=there)
        assert fault.times == 0
    assert done.error is None, done.error[2]
    assert done.answer == 3


def explained(client: Client, name: str, token: str | None = "hf_jane") -> str:
    """How `antehoc explain` ends with that model."""
    photo = client.home / "photo.png"
    Image.new("RGB", (64, 64)).save(photo)
    environment = {"HF_TOKEN": token}
    status, said = client.command("explain", str(photo), "--model", name, "-o", "out", environment=environment)
    assert status == 2
    return told_once(said)


def test_models_that_cannot_be_had(there: str, hub: LocalHub, client: Client) -> None:
    files = hub.store.repos[there].files
    hub.add("max/gated", files, gated=True)
    hub.add("max/private", files, private=True)
    assert "max/gated is gated: ask for access at" in explained(client, "max/gated")
    assert "is private and your token may not see it" in explained(client, "max/private")
    assert "there is no max/missing" in explained(client, "max/missing")
    assert "does not accept the access token" in explained(client, "max/private", "hf_wrong")


@pytest.mark.slow  # huggingface_hub tries again for 23 s
def test_a_hub_that_is_not_well(there: str, hub: LocalHub, client: Client) -> None:
    with hub.fault(Fault("resolve", 500, times=99), Fault("info", 500, times=99)):
        assert "the Hub is not well (HTTP 500)" in explained(client, there)


def test_torn_weights_are_one_sentence(hub: LocalHub, client: Client, there: str, trained: Path) -> None:
    weights = trained / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    files = dict(hub.store.repos[there].files)
    hub.add("max/torn", {**files, "model.safetensors": files["model.safetensors"][:5000]})
    for name in (str(trained), "max/torn"):
        done = client.run(LOAD, name=name)
        assert done.error[0] == "OSError"
        assert f"The weights in {name!r} are cut short or damaged" in done.error[1]
        assert "\n" not in done.error[1]
        assert "are cut short or damaged" in explained(client, name)


def test_a_full_disk_while_loading_is_one_sentence(hub: LocalHub, client: Client, there: str) -> None:
    hub.add("max/large", hub.store.repos[there].files)
    code = """
import resource, signal
from antehoc_hf.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # the weights are larger
try:
    tell(main(["explain", "photo.png", "--model", "max/large", "-o", "out"]))
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
"""
    Image.new("RGB", (64, 64)).save(client.home / "photo.png")
    done: Any = client.run(code)
    assert (done.error, done.answer) == (None, 2)
    assert "no space left" in told_once(done.output)
    assert client.run(LOAD, name="max/large").answer == 3  # with space again, it loads
