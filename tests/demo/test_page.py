"""`antehoc demo`: words without gradio, and with it the page as a visitor's browser calls it."""

import json
import sys
import tempfile
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from antehoc_hf.cli import main


def test_without_gradio_it_says_what_to_install(folders, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were not installed
    assert main(["demo", "--model", str(folders / "classes")]) == 2
    assert capsys.readouterr().err == (
        "antehoc demo: The demo page needs gradio: install it with `pip install 'antehoc-hf[demo]'`.\n"
    )


def test_a_port_that_cannot_be(folders, capsys):
    assert main(["demo", str(folders / "classes"), "--port", "99999"]) == 2
    assert "port must be in 1 … 65535" in capsys.readouterr().err


def test_no_model_anywhere(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gradio", reason="the page needs gradio")
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 2
    assert "There is no model: name one with --model" in capsys.readouterr().err


@pytest.fixture(scope="module")
def page(folders):
    pytest.importorskip("gradio", reason="the page needs gradio")
    from antehoc_hf.demo.page import open_page

    opened = open_page([str(folders / kind) for kind in ("classes", "landmarks", "captions")], wait=False)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def look(page):
    """Calls the page as its own script does: image, model and threshold → answer and regions."""
    from gradio_client import Client, handle_file

    client = Client(page.local_url, verbose=False, download_files=False)

    def called(path, model="classes", threshold=0.0, opacity=1.0):
        results = client.predict(handle_file(str(path)), model, threshold, opacity, api_name="/look")
        alert, answer, _, regions = results[:4]
        return alert["value"], answer, regions

    yield called
    client.close()


@pytest.fixture
def file(photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_every_task_answers(look, file):
    alert, answer, regions = look(file)
    assert (alert, "Prediction" in answer, "Raise the threshold" in regions) == ("", True, True)
    assert "Landmarks" in look(file, "landmarks")[1]
    assert "Caption" in look(file, "captions")[1]


def test_a_threshold_cuts(look, file):
    pytest.importorskip("scipy")
    assert "of the image is left" in look(file, threshold=0.5)[2]


def test_a_bad_file_is_one_sentence(look, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    alert, answer, regions = look(tmp_path / "bad.png")
    assert "The image can&#x27;t be read: not an image, or damaged" in alert
    assert str(tmp_path) not in alert
    assert (answer, regions) == ("", "")


def test_a_port_that_is_taken(page, folders, capsys):
    assert main(["demo", str(folders / "classes"), "--port", page.local_url.rstrip("/").rsplit(":", 1)[1]]) == 2
    error = capsys.readouterr().err
    assert "The page cannot be opened at 127.0.0.1, port" in error
    assert len(error.splitlines()) == 1 or "Loading weights" in error


def test_examples_of_ones_own(folders, file, tmp_path):
    pytest.importorskip("gradio", reason="the page needs gradio")
    from antehoc_hf.demo.examples import example_files

    (tmp_path / "copies").mkdir()
    copies = example_files(tmp_path / "copies", [file])
    assert [copy.rsplit("/", 1)[1] for copy in copies] == ["photo.png"]
    assert len(example_files(tmp_path / "copies")) == 6
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="not an image, or damaged"):
        example_files(tmp_path / "copies", [tmp_path / "bad.png"])


def test_the_page_shows_copies_of_its_examples_and_leaves_no_folder_behind(page, folders, file, tmp_path, monkeypatch):
    from antehoc_hf.demo.page import build_page

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    blocks = build_page([str(folders / "classes")], [file])
    assert list((tmp_path / "temporary").iterdir()) == []
    shown = json.dumps(blocks.get_config_file(), default=str)
    assert "photo.png" in shown
    assert str(tmp_path) not in shown, "the page must not open the user's folder"


def test_the_servers_own_files_are_not_to_be_had(page, folders):
    secret = folders / "classes" / "config.json"
    with pytest.raises(HTTPError, match="403"):
        urlopen(f"{page.local_url}gradio_api/file={secret}")
    foreign = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    call = f"{page.local_url}gradio_api/call/look"
    body = json.dumps({"data": [foreign, "classes", 0, 1]}).encode()
    with urlopen(Request(call, body, {"Content-Type": "application/json"})) as answer:
        event = json.loads(answer.read())["event_id"]
    with urlopen(f"{call}/{event}") as answer:
        assert answer.read().decode().startswith("event: error")
