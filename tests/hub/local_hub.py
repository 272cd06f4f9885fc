"""A small Hub on 127.0.0.1, for the stock clients of `huggingface_hub` and `transformers`.

It takes pushes (create, preupload, large files, commits) and serves downloads (info, tree, resolve with redirects,
ranges and ETags), knows private and gated repositories, and fails on demand: see [`Fault`].

As a program, `python local_hub.py` serves until it is killed and prints its address.
"""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_store import Blob, Refused, Repo, Store, is_large

_NAME = r"(?P<repo>[^/]+/[^/]+?)"
_KIND = r"(?:models|datasets)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES: tuple[tuple[str, str, str], ...] = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate-yaml"),
    ("POST", rf"/api/{_KIND}/{_NAME}/preupload/{_REVISION}", "preupload"),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", "lfs-batch"),
    ("PUT", r"/large/(?P<oid>\w+)", "lfs-put"),
    ("GET", r"/large/(?P<oid>\w+)", "large"),
    ("POST", rf"/api/{_KIND}/{_NAME}/commit/{_REVISION}", "commit"),
    ("POST", rf"/api/{_KIND}/{_NAME}/branch/{_REVISION}", "branch"),
    ("GET", rf"/api/{_KIND}/{_NAME}/refs", "refs"),
    ("GET", rf"/api/{_KIND}/{_NAME}/tree/{_REVISION}(?:/(?P<path>.*))?", "tree"),
    ("POST", rf"/api/{_KIND}/{_NAME}/paths-info/{_REVISION}", "paths-info"),
    ("GET", rf"/api/{_KIND}/{_NAME}/revision/{_REVISION}", "info"),
    ("GET", rf"/api/{_KIND}/{_NAME}", "info"),
    ("GET", rf"(?:/datasets)?/{_NAME}/resolve/{_REVISION}/(?P<path>.+)", "resolve"),
)


@dataclass
class Fault:
    """What goes wrong at the next requests of a route.

    Args:
        route: `"commit"`, `"lfs-put"`, `"resolve"` (asking for a file), `"large"` (its content) and so on.
        status: answered instead; 0: the connection is cut, in the middle of the body where there is one.
        times: how often.
        headers: of the answer.
        after: the request is carried out all the same; only its answer is lost.
        method: only requests of this method, such as `"HEAD"`.
    """

    route: str
    status: int = 0
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    method: str | None = None


class LocalHub:
    """The server, with its `store`, its `faults` and a `log` of (method, route, path, status)."""

    def __init__(self) -> None:
        self.store = Store()
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str, str, int]] = []
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # Another host for the client: it must not send its token there.
        self.storage_url = f"http://localhost:{self._server.server_port}"
        self.tokens_in_storage = 0

    def __enter__(self) -> "LocalHub":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Any, token: str | None = "hf_jane") -> dict[str, str]:
        """For a process that talks to this Hub alone, from an empty cache; uploads by plain HTTP, not Xet."""
        known = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return {**known, **quiet, **({"HF_TOKEN": token} if token else {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"})}

    def add(self, name: str, files: dict[str, bytes], **kind: Any) -> Repo:
        """A repository with files in it; `private=True`, `gated=True`."""
        repo = self.store.repos[name] = Repo(name, **kind)
        repo.record("main", {path: Blob(data, is_large(path, len(data))) for path, data in files.items()}, "files")
        return repo

    def asked(self, route: str) -> int:
        """How many requests a route had."""
        return sum(entry[1] == route for entry in self.log)

    @contextmanager
    def fault(self, *faults: Fault) -> Iterator[None]:
        """Those faults and no others, for a while."""
        self.faults = list(faults)
        try:
            yield
        finally:
            self.faults = []

    def next_fault(self, route: str, method: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.route == route and fault.times > 0 and fault.method in (None, method):
                    fault.times -= 1
                    return fault
        return None


class _Cut(Exception):
    """The connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    # -- one request --------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        path, self.query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        method = "GET" if self.command == "HEAD" else self.command
        self.status = 0
        route, groups = next(
            ((name, match.groupdict()) for verb, pattern, name in _ROUTES
             if verb == method and (match := re.fullmatch(pattern, path))),
            ("unknown", {}),
        )  # fmt: skip
        fault = self.hub.next_fault(route, self.command)
        self.cut_answer = fault is not None and fault.status == 0 and route == "large" and self.command == "GET"
        try:
            body = self._read(half=fault is not None and fault.status == 0 and not (fault.after or self.cut_answer))
            if fault is not None and fault.status:
                raise Refused(fault.status, "the Hub is not well", **fault.headers)  # type: ignore[arg-type]
            given = {name: unquote(value) for name, value in groups.items() if value is not None}
            self._answer_route(route, given, body, silently=fault is not None and fault.after)
        except Refused as refusal:
            self._refuse(refusal, fault)
        except _Cut:
            self.close_connection = True
            self.connection.close()
        with self.hub.lock:
            self.hub.log.append((self.command, route, unquote(path), self.status))

    def _read(self, half: bool) -> bytes:
        """The whole body, by length or in chunks; half of it and then no more if the connection is to be cut."""
        length = int(self.headers.get("Content-Length") or 0)
        if half:
            self.rfile.read(length // 2)
            raise _Cut
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(length)
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer_route(self, route: str, groups: dict[str, str], body: bytes, silently: bool) -> None:
        act: Callable[..., Any] | None = getattr(self, "_" + route.replace("-", "_"), None)
        if act is None:
            raise Refused(404, f"{self.path} is nothing here")
        with self.hub.lock:
            if route in ("large", "lfs-put"):
                user = None
                self.hub.tokens_in_storage += "Authorization" in self.headers
            else:
                user = self.hub.store.user(self.headers.get("Authorization"))
            answer = act(user, body, **groups)
        if silently:
            raise _Cut
        if answer is not None:
            self._send(200, json.dumps(answer).encode())

    def _refuse(self, refusal: Refused, fault: Fault | None) -> None:
        headers = dict(fault.headers) if fault is not None else {}
        headers |= {"X-Error-Message": refusal.message}
        if refusal.code:
            headers["X-Error-Code"] = refusal.code
        body = {"error": refusal.message}
        if "url" in refusal.body:
            body["url"] = f"{self.hub.url}/{refusal.body['url']}"
        self._send(refusal.status, json.dumps(body).encode(), **headers)

    def _send(self, status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> None:
        self.status = status
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.cut_answer:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            raise _Cut
        self.wfile.write(body)

    # -- pushing ------------------------------------------------------------------------------------------------

    def _whoami(self, user: str | None, body: bytes) -> Any:
        if user is None:
            raise Refused(401, "Invalid username or password.")
        store = self.hub.store
        orgs = [{"name": name} for name, members in store.members.items() if user in members]
        role = "read" if user in store.read_only else "write"
        return {"type": "user", "name": user, "orgs": orgs, "auth": {"accessToken": {"role": role}}}

    def _create(self, user: str | None, body: bytes) -> Any:
        asked = json.loads(body)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        name = self.hub.store.create(user, asked["name"], asked.get("organization"), private)
        return {"url": f"{self.hub.url}/{name}"}

    def _validate_yaml(self, user: str | None, body: bytes) -> Any:
        return {"errors": [], "warnings": []}

    def _preupload(self, user: str | None, body: bytes, repo: str, revision: str) -> Any:
        stored = self.hub.store.writable(user, repo)
        present = stored.commits[stored.resolve(revision)]
        files = []
        for file in json.loads(body)["files"]:
            path, mode = file["path"], "lfs" if is_large(file["path"], file["size"]) else "regular"
            oid = present[path].oid if path in present else None
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **({"oid": oid} if oid else {})})
        return {"files": files}

    def _lfs_batch(self, user: str | None, body: bytes, repo: str) -> Any:
        self.hub.store.writable(user, repo)
        objects = []
        for asked in json.loads(body)["objects"]:
            entry: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.store.large:
                entry["actions"] = {"upload": {"href": f"{self.hub.storage_url}/large/{asked['oid']}", "header": {}}}
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    def _lfs_put(self, user: str | None, body: bytes, oid: str) -> Any:
        if Blob(body, True).oid != oid:
            raise Refused(400, "the content is not what was announced")
        self.hub.store.large[oid] = body
        return {}

    def _commit(self, user: str | None, body: bytes, repo: str, revision: str) -> Any:
        stored = self.hub.store.writable(user, repo)
        files = dict(stored.commits[stored.resolve(revision)])
        message = ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.store.large:
                    raise Refused(400, f"{value['path']} was never uploaded")
                files[value["path"]] = Blob(self.hub.store.large[value["oid"]], True)
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = stored.record(revision, files, message)
        return {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{sha}"}

    def _branch(self, user: str | None, body: bytes, repo: str, revision: str) -> Any:
        stored = self.hub.store.writable(user, repo)
        if revision in stored.branches:
            raise Refused(409, f"Reference already exists: refs/heads/{revision}")
        start = (json.loads(body) if body else {}).get("startingPoint") or "main"
        stored.branches[revision] = stored.resolve(start)
        return {}

    # -- reading ------------------------------------------------------------------------------------------------

    def _info(self, user: str | None, body: bytes, repo: str, revision: str = "main") -> Any:
        stored = self.hub.store.readable(user, repo)
        sha = stored.resolve(revision)
        siblings = [{"rfilename": path} for path in sorted(stored.commits[sha])]
        about = {
            "id": repo,
            "modelId": repo,
            "author": repo.split("/")[0],
            "sha": sha,
            "private": stored.private,
            "tags": [],
            "siblings": siblings,
        }
        return {**about, "gated": "manual" if stored.gated else False, "downloads": 0, "likes": 0}

    def _refs(self, user: str | None, body: bytes, repo: str) -> Any:
        stored = self.hub.store.readable(user, repo)
        named = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in stored.branches.items()
        ]
        return {"branches": named, "tags": [], "converts": []}

    def _tree(self, user: str | None, body: bytes, repo: str, revision: str, path: str = "") -> Any:
        stored = self.hub.store.readable(user, repo)
        files = stored.commits[stored.resolve(revision)]
        below = [name for name in sorted(files) if name.startswith(f"{path}/" if path else "")]
        if path and not below:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        start = len(path) + 1 if path else 0
        folders = {name[:end] for name in below for end, sign in enumerate(name) if sign == "/" and end > start}
        if self.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            below, folders = (
                [name for name in names if "/" not in name[start:]] for names in (below, sorted(folders))
            )
        return [
            *({"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)),
            *(_listed(name, files[name]) for name in below),
        ]

    def _paths_info(self, user: str | None, body: bytes, repo: str, revision: str) -> Any:
        stored = self.hub.store.readable(user, repo)
        files = stored.commits[stored.resolve(revision)]
        form = parse_qs(body.decode())
        asked = json.loads(body)["paths"] if body.startswith(b"{") else form.get("paths", [])
        return [_listed(name, files[name]) for name in asked if name in files]

    def _resolve(self, user: str | None, body: bytes, repo: str, revision: str, path: str) -> None:
        stored = self.hub.store.downloadable(user, repo)
        sha = stored.resolve(revision)
        blob = stored.commits[sha].get(path)
        headers = {"X-Repo-Commit": sha}
        if blob is None:
            self._send(404, b'{"error": "Entry not found"}', **headers, **{"X-Error-Code": "EntryNotFound"})
        elif blob.large:
            self.hub.store.large[blob.oid] = blob.content
            linked = {"X-Linked-Size": str(len(blob.content)), "X-Linked-ETag": f'"{blob.oid}"'}
            self._send(302, b"", **headers, **linked, Location=f"{self.hub.storage_url}/large/{blob.oid}")
        else:
            self._send_content(blob, **headers)

    def _large(self, user: str | None, body: bytes, oid: str) -> None:
        if oid not in self.hub.store.large:
            raise Refused(404, "no such content")
        self._send_content(Blob(self.hub.store.large[oid], True))

    def _send_content(self, blob: Blob, **headers: str) -> None:
        """All of it, or from where the client asks to go on."""
        headers |= {"ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._send(200, blob.content, "application/octet-stream", **headers)
            return
        start, end = int(wanted[1]), int(wanted[2] or len(blob.content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(blob.content)}"
        self._send(206, blob.content[start : end + 1], "application/octet-stream", **headers)


def _listed(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.git_oid}
    if blob.large:
        entry["lfs"] = {"oid": blob.oid, "size": len(blob.content), "pointerSize": 134}
    return entry


if __name__ == "__main__":
    with LocalHub() as served:
        print(served.url, flush=True)
        while True:
            time.sleep(1)
