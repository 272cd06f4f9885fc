"""As much of W3C WebDriver as the tests of the page need: Chromium through its own chromedriver, no package."""

import base64
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --force-device-scale-factor=1"
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element in the protocol
KEYS = {"enter": "\ue007", "home": "\ue011", "end": "\ue010", "right": "\ue014", "tab": "\ue004"}


class Browser:
    """A headless Chromium with a profile of its own.

    Args:
        profile: an empty folder.
        width, height (`int`): of the page in pixels; below 500 a phone is emulated.
    """

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._driver = subprocess.Popen([str(CHROMEDRIVER), f"--port={port}"], stdout=subprocess.DEVNULL)
        self._address = f"http://127.0.0.1:{port}"
        flags = [*_FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        options: dict[str, Any] = {"binary": CHROMIUM, "args": flags}
        if width < 500:  # no window is that narrow
            metrics = {"width": width, "height": height, "pixelRatio": 1.0, "touch": True}
            options["mobileEmulation"] = {"deviceMetrics": metrics}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        try:
            self._wait_for_driver()
            found = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._driver.kill()
            raise
        self._address += f"/session/{found['sessionId']}"

    def close(self) -> None:
        """Ends the browser and its driver."""
        try:
            self._call("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(10)

    def open(self, url: str) -> None:
        """Goes to a page."""
        self._call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def text(self, css: str) -> str:
        """Of the first element, empty if there is none."""
        return str(self.run(f"return document.querySelector({json.dumps(css)})?.innerText ?? ''"))

    def type(self, css: str, keys: str) -> None:
        """Keys into an element; into one of files, a path."""
        found = self._call("POST", "/element", {"using": "css selector", "value": css})
        self._call("POST", f"/element/{found[_ELEMENT]}/value", {"text": keys})

    def press(self, keys: str) -> None:
        """Keys where the focus is."""
        found = self._call("GET", "/element/active")
        self._call("POST", f"/element/{found[_ELEMENT]}/value", {"text": keys})

    def click(self, css: str) -> None:
        """On an element."""
        found = self._call("POST", "/element", {"using": "css selector", "value": css})
        self._call("POST", f"/element/{found[_ELEMENT]}/click", {})

    def requested(self) -> set[str]:
        """Every address the page has asked for since the last call."""
        entries = self._call("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}

    def errors(self) -> list[str]:
        """What the page's scripts complained of since the last call."""
        return [e["message"] for e in self._call("POST", "/se/log", {"type": "browser"}) if e["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        """Of what is visible."""
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def wait(self, css: str, text: str, seconds: float = 40) -> str:
        """Until an element's text holds these words; returns the text."""
        end = time.monotonic() + seconds
        while text not in (shown := self.text(css)):
            assert time.monotonic() < end, f"{css} does not say {text!r} but {shown!r}"
            time.sleep(0.2)
        return shown

    def _wait_for_driver(self) -> None:
        for _ in range(100):
            try:
                if self._call("GET", "/status")["ready"]:
                    return
            except URLError:
                time.sleep(0.1)
        raise RuntimeError("chromedriver does not start.")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._address + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except HTTPError as error:
            raise RuntimeError(json.loads(error.read())["value"]["message"]) from None
