"""Debian's Chromium, for tests of the page: nothing may break the page's policy, fail, or leave the service's host."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")

# Without the background switches Chromium calls home at every start.
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}

BROWSER_MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM} (Debian: apt-get install chromium)"),
]


@contextmanager
def running_browser() -> Iterator["Browser"]:
    """Chromium, closed in the end."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra dev)")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=SWITCHES)
        yield opened
        opened.close()


class Pages:
    """Opens pages of the service at `port`, each in a context of its own, and watches them."""

    def __init__(self, browser: "Browser", port: int) -> None:
        self._browser, self._port = browser, port
        self._contexts: list[Any] = []
        self._requested: list[str] = []
        self._complaints: list[str] = []

    def open(self, viewport: dict[str, int] = DESKTOP, *, path: str = "/", **options: Any) -> "Page":
        """The page at `path`, as a new visitor sees it."""
        context = self._browser.new_context(viewport=viewport, locale="en-GB", reduced_motion="reduce", **options)
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("request", lambda request: self._requested.append(request.url))
        page.on("console", lambda message: self._complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self._complaints.append(str(error)))
        page.goto(f"http://127.0.0.1:{self._port}{path}")
        return page

    def close(self, tolerated: Callable[[str], bool] = lambda text: False) -> None:
        """In the end no request went elsewhere, and nothing broke the policy or failed."""
        for context in self._contexts:
            context.close()
        here = (f"http://127.0.0.1:{self._port}/", f"blob:http://127.0.0.1:{self._port}/")
        assert self._requested
        assert [url for url in self._requested if not url.startswith(here)] == []
        # A refused upload is an error message of the network; anything else is a fault of the page.
        refused = "the server responded with a status of 4"
        assert [text for text in self._complaints if refused not in text and not tolerated(text)] == []


def until(page: "Page", expression: str) -> None:
    """Wait until `expression` is true; Playwright's own way needs eval, which the page's policy forbids."""
    deadline = time.monotonic() + 15
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"never true: {expression}"
        page.wait_for_timeout(30)


def record_forms(page: "Page") -> Callable[[], list[list[list[str]]]]:
    """Has the fields of forms that are uploaded from now on remembered; gives them, without files, in their order.

    Chromium does not tell what is in a body that holds files.
    """
    page.evaluate(
        """() => {
          window.sentForms = [];
          const send = XMLHttpRequest.prototype.send;
          XMLHttpRequest.prototype.send = function (form) {
            window.sentForms.push([...form.entries()].filter(([, value]) => typeof value === "string"));
            return send.call(this, form);
          };
        }"""
    )
    return lambda: page.evaluate("window.sentForms")


OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"


def assert_sound(page: "Page") -> None:
    """No rule of accessibility that axe knows is broken, and nothing is wider than the window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python (extra dev)")
    found = axe.Axe().run(page).response["violations"]
    assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found] == []
    assert page.evaluate(OVERFLOW) <= 0


def identify(page: "Page", *files: Path) -> None:
    """Asks what the plant of these photos is, and waits for the answer."""
    page.set_input_files("#files", [str(file) for file in files])
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#answer:not([hidden])")
