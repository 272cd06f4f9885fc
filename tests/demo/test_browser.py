"""The page in a browser: upload, threshold, models, keyboard, a phone's width, and nothing fetched from elsewhere."""

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_driver = importlib.util.spec_from_file_location("webdriver", Path(__file__).with_name("webdriver.py"))
webdriver = importlib.util.module_from_spec(_driver)
_driver.loader.exec_module(webdriver)

pytest.importorskip("gradio", reason="the page needs gradio")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (webdriver.CHROMIUM and webdriver.CHROMEDRIVER), reason="needs chromium and chromium-driver"
    ),
]
KEYS = webdriver.KEYS


@pytest.fixture(scope="module")
def address(folders) -> Iterator[str]:
    from antehoc_hf.demo.page import open_page

    page = open_page([str(folders / kind) for kind in ("classes", "landmarks", "captions")], wait=False)
    yield page.local_url
    page.close()


@pytest.fixture
def browser(tmp_path, address):
    opened = webdriver.Browser(tmp_path / "profile")
    try:
        opened.open(address)
        opened.wait("#faithfulness", "One image proves")
        yield opened
    finally:
        opened.close()


def upload(browser, path) -> None:
    if browser.run("return document.querySelector('#image button[aria-label=\"Remove Image\"]') !== null"):
        browser.click('#image button[aria-label="Remove Image"]')
        browser.wait("#answer", "Drop an image")
    browser.type("#image input[type=file]", str(path))


def test_the_page_shows_an_example_and_fetches_nothing_from_elsewhere(browser, address):
    assert "Prediction" in browser.text("#answer")
    assert "antehoc" in browser.text("#comparison")
    elsewhere = [
        url for url in browser.requested() if not url.startswith((address.rstrip("/"), "data:", "blob:", "chrome"))
    ]
    assert elsewhere == []
    assert browser.errors() == []


def test_upload_threshold_and_models(browser, photo, tmp_path):
    pytest.importorskip("scipy")
    photo.save(tmp_path / "photo.png")
    upload(browser, tmp_path / "photo.png")
    browser.wait("#answer", "Prediction")
    browser.type("#threshold input[type=range]", KEYS["right"] * 10)
    browser.wait("#regions", "of the image is left")
    assert browser.run("return document.querySelector('#picture img').alt").endswith("reaches 0.5.")
    browser.type("#threshold input[type=range]", KEYS["home"])
    browser.wait("#regions", "Raise the threshold")
    for name, heading in (("landmarks", "Landmarks"), ("captions", "Caption")):
        browser.type("#model input", "\ue009a\ue009" + name + KEYS["enter"])
        browser.wait("#answer", heading)
        browser.wait("#described", name)


def test_a_bad_file_and_then_a_good_one(browser, photo, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    photo.save(tmp_path / "photo.png")
    upload(browser, tmp_path / "bad.png")
    alert = browser.wait("[role=alert]", "can't be read")
    assert alert.startswith("The image can't be read: not an image, or damaged")
    assert browser.text("#answer") == ""
    upload(browser, tmp_path / "photo.png")
    browser.wait("#answer", "Prediction")
    assert browser.text("[role=alert]") == ""


def test_everything_is_reached_by_keyboard(browser):
    reached, unseen = set(), set()
    for _ in range(40):
        browser.press(KEYS["tab"])
        where, outline = browser.run(
            "const e = document.activeElement, part = e.closest('#model, #image, #examples, #threshold, #methods');"
            "return [part?.id ?? '', getComputedStyle(e).outlineStyle]"
        )
        reached.add(where)
        if where and outline == "none":
            unseen.add(where)
    assert {"model", "image", "examples", "threshold", "methods"} <= reached
    assert not unseen, "the focus must be seen"
    unnamed = "return [...document.querySelectorAll('#examples button')].filter(b => !b.ariaLabel).length"
    assert browser.run(unnamed) == 0
    before = browser.text("#answer .number")
    browser.type("#examples button:nth-of-type(3)", KEYS["enter"])
    end = time.monotonic() + 20
    while browser.text("#answer .number") in (before, ""):
        assert time.monotonic() < end, "another example gives another prediction"


def test_a_phone(tmp_path, address):
    opened = webdriver.Browser(tmp_path / "profile", width=390, height=844)
    try:
        opened.open(address)
        opened.wait("#faithfulness", "One image proves")
        assert opened.run("return window.innerWidth") == 390
        assert opened.run("return document.documentElement.scrollWidth") <= 390
        small = "return [...document.querySelectorAll('p, td, li')].filter(e => e.innerText && "
        assert opened.run(small + "parseFloat(getComputedStyle(e).fontSize) < 12).map(e => e.innerText)") == []
    finally:
        opened.close()
