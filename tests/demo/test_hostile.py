"""Requests of people who mean no good, against the running page, without gradio's own client."""

import http.server
import io
import json
import os
import socket
import threading
import time
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the page needs gradio")

from antehoc_hf.demo import limits, uploads
from antehoc_hf.demo.page import open_page
from antehoc_hf.demo.uploads import LARGEST_FILE, REFUSED, RefusedError, checked_value, read_upload, upload_folder

META = {"_type": "gradio.FileData"}


def png(size=(80, 60)):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(
        stream, "PNG"
    )
    return stream.getvalue()


@pytest.fixture(scope="module")
def page(folders):
    opened = open_page([str(folders / "classes")], wait=False)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def visitor(page):
    return Visitor(page)


class Visitor:
    """Sends what it likes."""

    def __init__(self, page):
        self.page, self.address = page, page.local_url.rstrip("/")

    def send(self, path, body=None, headers=None, method=None):
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **(headers or {})}
        with urlopen(Request(self.address + path, data, given, method=method), timeout=60) as answer:
            return answer.read().decode()

    def status(self, path, *args, **kwargs):
        try:
            self.send(path, *args, **kwargs)
        except HTTPError as error:
            return error.code
        return 200

    def answer_to_head(self, path, header):
        """The status that a request is answered with of which only the head was sent."""
        parts = urlsplit(self.address)
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{header}\r\n\r\n".encode())
            return int(connection.recv(100).split()[1])

    def upload(self, content, name="photo.png"):
        boundary = "x1y2z3"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        body = head.encode() + b"Content-Type: image/png\r\n\r\n" + content + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return json.loads(self.send("/gradio_api/upload", body, headers))[0]

    def look(self, image, model="classes", threshold=0, opacity=1):
        """Through `/call/look`: the kind of the last event and its data, without the page's own state."""
        body = {"data": [image, model, threshold, opacity]}
        event = json.loads(self.send("/gradio_api/call/look", body))["event_id"]
        last = self.send(f"/gradio_api/call/look/{event}").strip().rsplit("event: ", 1)[1]
        kind, data = last.split("\n", 1)
        answer = json.loads(data.removeprefix("data: "))
        return kind, answer[1:] if kind == "complete" else answer

    def join(self, function, data, session):
        """Through `/queue/join`, as the page's own script: the message that ends it."""
        body = {"data": data, "fn_index": function, "session_hash": session, "event_data": None}
        self.send("/gradio_api/queue/join", body)
        answer = self.send(f"/gradio_api/queue/data?session_hash={session}")
        messages = [
            json.loads(line.removeprefix("data: ")) for line in answer.splitlines() if line.startswith("data: ")
        ]
        return next(message for message in messages if message["msg"] == "process_completed")

    def functions(self):
        """Number and name of whatever the page lets be called."""
        config = json.loads(self.send("/config"))
        return {one["id"]: one for one in config["dependencies"]}


@pytest.fixture(scope="module")
def places(tmp_path_factory, visitor):
    """Files that must not be had, and some that are not there."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "private.png").write_bytes(png())
    own = upload_folder()
    (own / "deep").mkdir()
    os.mkfifo(folder / "pipe")
    os.mkfifo(own / "deep" / "pipe.png")
    (own / "deep" / "link.png").symlink_to(folder / "private.png")
    (own / "linked").symlink_to(folder)
    (own / "deep" / "inner.png").symlink_to(own / "deep" / "inner-target.png")
    (own / "deep" / "inner-target.png").write_bytes(png())
    (own / "deep" / "huge.png").touch()
    os.truncate(own / "deep" / "huge.png", LARGEST_FILE + 1)
    (own.parent / f"{own.name}-sibling").mkdir()
    (own.parent / f"{own.name}-sibling" / "private.png").write_bytes(png())
    return {"server": folder, "own": own}


HOSTILE = {
    "a picture of the server's": "{server}/private.png",
    "no such file": "{server}/nothing.png",
    "a text": "/etc/passwd",
    "a folder": "/etc",
    "zeros without end": "/dev/zero",
    "the process's memory": "/proc/self/environ",
    "standard input": "/dev/stdin",
    "a pipe": "{server}/pipe",
    "a pipe among the uploads": "{own}/deep/pipe.png",
    "a link among the uploads": "{own}/deep/link.png",
    "a link to an upload": "{own}/deep/inner.png",
    "a linked folder among the uploads": "{own}/linked/private.png",
    "no such upload": "{own}/0123/photo.png",
    "the folder of uploads": "{own}",
    "a folder among the uploads": "{own}/deep",
    "upwards": "{own}/../{server}/private.png",
    "upwards and back": "{own}/deep/../deep/inner-target.png",
    "a folder with the same beginning": "{own}-sibling/private.png",
    "too large": "{own}/deep/huge.png",
    "relative": "photo.png",
    "relative, upwards": "../../../../etc/passwd",
    "at home": "~/.bashrc",
    "nothing": "",
    "a null byte": "{own}/deep/inner-target.png\0.jpg",
    "very long": "{own}/" + "a" * 5000,
    "a half of a sign": "{own}/\ud800.png",
    "a file's address": "file:///etc/passwd",
    "data": "data:image/png;base64,iVBORw0KGgo=",
    "another server": "http://127.0.0.1:{port}/photo.png",
    "another server, quietly": "HTTP://127.0.0.1:{port}/photo.png",
    "the cloud's own address": "http://169.254.169.254/latest/meta-data/",
    "a share": "\\\\server\\share\\photo.png",
}


@pytest.fixture(scope="module")
def elsewhere():
    """A server that counts who asks it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png())

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()


def filled(text, places, elsewhere):
    return text.format(server=places["server"], own=places["own"], port=elsewhere[0])


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_is_no_upload_is_refused_with_the_same_words(visitor, places, elsewhere, name):
    path = filled(HOSTILE[name], places, elsewhere)
    real = visitor.upload(png())
    forms = [
        {"path": path},
        {"path": path, "meta": META},
        {"path": path, "url": path, "meta": META, "orig_name": path, "mime_type": "image/png", "size": 1},
        {"path": path, "is_stream": True, "meta": META},
    ]
    begun = time.perf_counter()
    found = [visitor.look(form) for form in forms]
    assert time.perf_counter() - begun < 10
    assert {json.dumps(one, sort_keys=True) for one in found} == {json.dumps(refusal(visitor), sort_keys=True)}
    # What else a file object may say changes nothing about the upload it names.
    kind, data = visitor.look({"path": real, "url": path, "orig_name": path, "meta": META})
    assert (kind, "Prediction" in data[1]) == ("complete", True)
    assert elsewhere[1] == [], "the page asked another server"


def refusal(visitor):
    kind, data = visitor.look({"path": "/nowhere"})
    assert (kind, data["error"]) == ("error", REFUSED)
    return kind, data


@pytest.mark.parametrize(
    "image",
    [
        "/etc/passwd", 5, True, [], {}, [{"path": "/etc/passwd"}], {"path": None}, {"path": 5}, {"path": ["/etc"]},
        {"path": {"path": "/etc/passwd", "meta": META}}, {"url": "http://127.0.0.1/", "meta": META},
        {"path": "", "image": {"path": "/etc/passwd", "meta": META}}, {"__type__": "update", "value": "/etc/passwd"},
    ],
    ids=str,
)  # fmt: skip
def test_other_forms_of_an_image(visitor, image):
    assert visitor.look(image) == refusal(visitor)


@pytest.mark.parametrize(
    "value",
    [{"path": "{path}", "meta": META}, [{"path": "{path}", "meta": META}], {"path": "{path}"}, "{path}", None, [[[]]]],
    ids=str,
)
@pytest.mark.parametrize("place", ["model", "threshold", "opacity"])
def test_files_in_place_of_other_values(visitor, places, elsewhere, value, place):
    photo = {"path": visitor.upload(png()), "meta": META}
    answers = set()
    for path in (f"http://127.0.0.1:{elsewhere[0]}/a.png", f"{places['server']}/private.png", "/nowhere"):
        kind, data = visitor.look(photo, **{place: json.loads(json.dumps(value).replace("{path}", path))})
        text = json.dumps(data).replace(path, "")
        assert kind == "error" or "Something went wrong" in text or "must be in" in text, text
        answers.add(text)
    assert len(answers) == 1
    assert elsewhere[1] == []


def test_every_function_of_the_page_refuses_files(visitor, places, elsewhere):
    inner = [{"path": f"{places['server']}/private.png"}, {"path": f"http://127.0.0.1:{elsewhere[0]}/a", "meta": META}]
    tried = 0
    for number, function in visitor.functions().items():
        if not function["backend_fn"]:
            continue
        for form in inner:
            data = [form] * len(function["inputs"])
            ended = visitor.join(number, data, f"hostile{number}{tried}")
            text = json.dumps(ended)
            assert "private" not in text.replace(json.dumps(data), "")
            assert not ended["success"] or "Drop an image" in text or "data:image" not in text
            tried += 1
    assert tried >= 10
    assert elsewhere[1] == []


def test_state_is_the_servers_own(visitor, places):
    compare = next(
        number for number, one in visitor.functions().items() if one["backend_fn"] and len(one["inputs"]) == 2
    )
    ended = visitor.join(compare, [{"path": "/etc/passwd", "meta": META}, ["antehoc"]], "fresh")
    assert ended["success"]
    assert "Drop an image" in ended["output"]["data"][0]


@pytest.mark.parametrize("path", ["/gradio_api/run/look", "/gradio_api/api/look"])
def test_nothing_goes_past_the_queue(visitor, path):
    photo = {"path": visitor.upload(png()), "meta": META}
    assert visitor.status(path, {"data": [photo, "classes", 0, 1]}) == 404


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file={server}/private.png", "/gradio_api/file=/etc/passwd", "/gradio_api/file=http://127.0.0.1:{port}/",
        "/gradio_api/file=HTTP://127.0.0.1:{port}/", "/gradio_api/file=http%3A//127.0.0.1:{port}/",
        "/gradio_api/proxy=http://127.0.0.1:{port}/", "/gradio_api/file={own}/linked/private.png",
        "/gradio_api/file={own}/../{server}/private.png", "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/run-history/buckets", "/monitoring/summary", "/gradio_api/custom_component/a/client/b/c",
        "/static/../../../../etc/passwd", "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd", "/gradio_api/file/etc/passwd",
    ],
)  # fmt: skip
def test_addresses_that_give_nothing(visitor, places, elsewhere, path):
    assert visitor.status(filled(path, places, elsewhere)) in (400, 403, 404, 422)
    assert elsewhere[1] == []


@pytest.mark.parametrize("path", ["process_recording", "component_server", "vibe-edit", "run-history/connect"])
def test_what_gradio_offers_besides_is_closed(visitor, path):
    assert visitor.status(f"/gradio_api/{path}", {}) == 404


def test_files_and_bodies_have_a_largest_size(visitor):
    photo = visitor.upload(png() + b"\0" * 1000)  # bytes after an image's end are harmless
    assert visitor.look({"path": photo})[0] == "complete"
    assert visitor.answer_to_head("/gradio_api/upload", f"Content-Length: {LARGEST_FILE + 2**17}") == 413
    assert visitor.answer_to_head("/gradio_api/call/look", f"Content-Length: {limits.LARGEST_BODY + 1}") == 413


def test_visitors_cannot_fill_the_disk(visitor, monkeypatch):
    content = png()
    for limit in ("MOST_FILES", "MOST_BYTES"):
        monkeypatch.setattr(uploads, limit, 1)
        with pytest.raises(HTTPError, match="507"):
            visitor.upload(content)
        monkeypatch.undo()
    assert visitor.look({"path": visitor.upload(content)})[0] == "complete"


def test_a_body_without_a_length_is_not_read(visitor):
    assert visitor.answer_to_head("/gradio_api/upload", "Transfer-Encoding: chunked") == 411


@pytest.mark.parametrize(
    "content", [b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>", b"MZ"]
)
def test_uploads_that_are_no_images(visitor, content):
    kind, data = visitor.look({"path": visitor.upload(content)})
    assert kind == "complete"
    assert "The image can&#x27;t be read: not an image" in data[0]["value"]


@pytest.mark.parametrize("size", [(60000, 1), (1, 60000)])
def test_a_thin_image_takes_no_longer_than_others(visitor, size):
    photo = visitor.upload(png(size))
    begun = time.perf_counter()
    assert visitor.look({"path": photo})[0] == "complete"
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("threshold", [-1, 2, "nan", "x", [], 10**400, True, None])
def test_thresholds_that_are_none(visitor, threshold):
    photo = {"path": visitor.upload(png())}
    kind, data = visitor.look(photo, threshold=threshold)
    assert kind == "error" or "must be in" in data[0]["value"] or threshold is True or "went wrong" in data[0]["value"]


@pytest.mark.parametrize("model", [["classes"], "../classes", "", None, 0, True, ["classes", "classes"]], ids=str)
def test_models_that_are_none(visitor, capfd, model):
    kind, data = visitor.look({"path": visitor.upload(png())}, model=model)
    assert kind == "error", data
    assert "Traceback" not in capfd.readouterr().err


def test_the_queue_is_limited(page, visitor, monkeypatch):
    assert page._queue.max_size == limits.MOST_WAITING
    monkeypatch.setattr(page._queue, "max_size", 0)
    assert visitor.status("/gradio_api/call/look", {"data": [None, "classes", 0, 1]}) == 503


def test_a_request_ends_when_its_time_is_up(visitor, monkeypatch):
    photo = {"path": visitor.upload(png())}
    monkeypatch.setattr(limits, "LONGEST_REQUEST", 0.0)
    kind, data = visitor.look(photo)
    assert kind == "complete"
    assert "This takes longer than the 0 seconds that a request may take." in data[0]["value"]
    monkeypatch.undo()
    assert "Prediction" in visitor.look(photo)[1][1]


def test_the_check_itself(places):
    real = upload_folder() / "deep" / "inner-target.png"
    assert read_upload(str(real)) == real.read_bytes()
    assert checked_value(["a", 1, 0.5, True], "several") == ["a", 1, 0.5, True]
    for value in (str(real), {"path": real}, {"path": str(real.parent)}):
        with pytest.raises(RefusedError):
            checked_value(value, "image")


def test_uploads_are_kept_in_a_folder_of_this_process(tmp_path, monkeypatch):
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    folder = uploads.upload_folder.__wrapped__()
    assert folder.stat().st_mode & 0o077 == 0, "for nobody else on this machine"
    assert list(folder.iterdir()) == []
