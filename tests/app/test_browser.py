"""The page in a real browser, as people use it: `python -m pytest -n 0 -m browser`, with Chromium installed."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import UNCLOSED, Served
from tests.scripts.sample_script import photo

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install -e '.[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    UNCLOSED,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
LABELS = ["Seed", "Steps", "default", "published", "off", "Example poses", "Poses or keypoints"]
FOLDED = ["Width", "Height", "linear", "Sound"]
DESKTOP, PHONE = (1280, 1000), (390, 844)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, served: Served) -> Iterator:
    """Opens the page as another visitor."""
    opened = []

    def visit(size: tuple[int, int] = DESKTOP, theme: str = "light"):
        page = browser.new_context(viewport={"width": size[0], "height": size[1]}).new_page()
        page.set_default_timeout(60_000)
        page.abroad = []
        page.on("request", lambda request: page.abroad.append(request.url) if abroad(request.url, served) else None)
        page.goto(f"{served.address}?__theme={theme}")
        page.get_by_role("button", name="Animate").wait_for()
        opened.append(page)
        return page

    yield visit
    for page in opened:
        assert not page.abroad  # nothing is fetched from elsewhere
        page.context.close()


def abroad(url: str, served: Served) -> bool:
    return not url.startswith((served.address, "data:", "blob:"))


def quickly(page, steps: int = 2) -> None:
    page.get_by_label("Steps").fill(str(steps))
    page.get_by_label("off", exact=True).check()


def press(page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def said(page):
    return page.locator(".block.said")


def test_upload_check_and_animate(visit, tmp_path: Path):
    page = visit()
    page.locator("input[type=file]").first.wait_for(state="attached")
    page.get_by_label("Remove Image").click()
    page.locator("input[type=file]").first.set_input_files(photo(tmp_path / "me.png"))
    page.locator("img[src*='me.png']").first.wait_for()
    quickly(page)
    press(page, "Check")
    page.get_by_text("Checked; nothing was animated").wait_for()
    assert "me.png, 80x80 pixels used" in page.locator(".block.checked").inner_text()
    assert page.get_by_alt_text("frame 0").is_visible()
    press(page, "Animate")
    page.get_by_text("Made 32 frames of 64x64").wait_for()
    page.wait_for_function("document.querySelector('video')?.readyState >= 2")
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("KB")).first.click()
    assert '"seed": 0' in download.value.path().read_text()
    assert not page.get_by_text("Error", exact=True).is_visible()


def test_cancel_and_again(visit, served: Served):
    page = visit()
    quickly(page, 100)
    press(page, "Animate")
    page.get_by_text("step 1 of 100").wait_for()
    press(page, "Cancel")
    page.get_by_text("Cancelled").wait_for()
    quickly(page)
    press(page, "Check")
    page.get_by_text("Checked; nothing was animated").wait_for()
    assert not list(served.workshop.jobs.iterdir())


def test_a_bad_file_is_told_of(visit, tmp_path: Path):
    page = visit()
    (tmp_path / "bad.json").write_text("{")
    page.get_by_label("Poses or keypoints").check()
    page.locator("input[type=file]:not([accept*='image']):not([accept*='video'])").first.set_input_files(
        tmp_path / "bad.json"
    )
    page.get_by_text("bad").first.wait_for()
    press(page, "Check")
    said(page).get_by_text("bad.json").wait_for()
    assert "/" not in said(page).inner_text()


def test_two_visitors_at_once(visit, served: Served):
    one, two = visit(), visit()
    for page in (one, two):
        quickly(page)
    one.get_by_label("Steps").fill("100")
    press(one, "Animate")
    one.get_by_text("step 1 of 100").wait_for()
    press(two, "Check")
    two.get_by_text(re.compile(r"queue: \d/\d")).wait_for()
    press(one, "Cancel")
    two.get_by_text("Checked; nothing was animated").wait_for()
    assert one.get_by_text("Checked").count() == 0
    one.get_by_text("Cancelled").wait_for()


def test_every_input_has_a_label_and_is_reached_by_keys(visit):
    page = visit()
    page.get_by_role("button", name="Size and alignment").click()
    for label in LABELS + FOLDED:
        assert page.get_by_label(label, exact=label != "Width").first.is_visible(), label
    bare = page.evaluate(
        """[...document.querySelectorAll('input:not([type=file]), select, textarea')].filter(e => e.offsetParent
        && !(e.labels?.length || e.ariaLabel || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML)"""
    )
    assert bare == []
    page.locator("body").click(position={"x": 1, "y": 1})
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(e => e.labels?.[0]?.innerText || e.ariaLabel || e.innerText)(document.activeElement)"
            ).strip()
        )
    for name in ("Check", "Animate", "Cancel", "default", "Example poses", "Size and alignment", "Seed"):
        assert any(text.startswith(name) for text in reached), (name, reached)


@pytest.mark.parametrize(("size", "theme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_axe_finds_nothing(visit, size, theme):
    page = visit(size, theme)
    for folded in ("Size and alignment", "Settings of an earlier video"):
        page.get_by_role("button", name=folded).click()
    press(page, "Check")
    page.get_by_text("Checked; nothing was animated").wait_for()
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 10
    assert [f"{v['id']}: {[node['html'][:200] for node in v['nodes']]}" for v in found["violations"]] == []


def test_on_a_phone_nothing_scrolls_sideways(visit):
    page = visit(PHONE)
    quickly(page)
    press(page, "Check")
    page.get_by_text("Checked; nothing was animated").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
