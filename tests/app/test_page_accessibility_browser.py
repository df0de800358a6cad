"""Every view of the page in a real browser, by the rules of axe: light, dark and on a phone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import BROWSER_MARKS, DESKTOP, PHONE, Pages, assert_sound, identify, until

from app.bundle_watch import load_serving
from models.api_keys import NewKey, Scope
from models.api_keys_store import KeyStore
from models.home import Home

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra dev)")

pytestmark = BROWSER_MARKS

LOOKS = [(DESKTOP, {}), (DESKTOP, {"color_scheme": "dark"}), (PHONE, {"has_touch": True, "is_mobile": True})]
NAMES = ["desktop", "dark", "phone"]


@pytest.fixture(scope="module")
def open_port(trained_home: Home, serve_in_thread: Callable[..., int]) -> int:
    return serve_in_thread(trained_home, load_serving, device="cpu", worker=False)


@pytest.fixture(scope="module")
def key(collection_home: Home, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str]:
    """A home that needs keys, and one that opens it."""
    home = Home(tmp_path_factory.mktemp("keyed") / "home")
    shutil.copytree(collection_home.root, home.root)
    with KeyStore.open(home) as store:
        scopes = frozenset({Scope.IDENTIFY})
        return home, store.create(NewKey("An app with a long name", scopes, daily_quota=100))[1]


@pytest.fixture(scope="module")
def keyed_port(key: tuple[Home, str], serve_in_thread: Callable[..., int]) -> int:
    return serve_in_thread(key[0], access="keys", explanations=False)


@pytest.mark.parametrize(("viewport", "options"), LOOKS, ids=NAMES)
def test_identifying_keeps_the_rules(
    browser: "sync_api.Browser", open_port: int, photo: Path, viewport: dict[str, int], options: dict[str, Any]
) -> None:
    pages = Pages(browser, open_port)
    page = pages.open(viewport, **options)
    until(page, "document.querySelector('#bundle').textContent !== ''")
    assert_sound(page)
    page.set_input_files("#files", [str(photo)] * 3)
    page.get_by_text("Only among …").click()
    page.get_by_role("combobox", name="Genus or family").fill("a")
    page.wait_for_selector("#restrict-taxon-list [role=option]")
    page.keyboard.press("ArrowDown")
    assert_sound(page)
    page.keyboard.press("Enter")
    page.get_by_label("Checklist").fill("Nothing known")
    page.wait_for_selector("#restrict-found:not([hidden])")
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#restrict-error:not([hidden])")
    assert_sound(page)
    page.get_by_role("button", name="Ask among all species again").click()
    page.get_by_role("button", name="Remove photo 3").click()
    identify(page)
    page.locator("#heat-toggle").click()
    until(page, "document.querySelectorAll('.pair .heat').length === 2")
    assert_sound(page)
    page.locator("#sheet-figure .mount").click()
    page.locator("#viewer-facts a").wait_for()
    assert_sound(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Compare in large").click()
    assert_sound(page)
    close = page.locator("#viewer-close").bounding_box()
    assert close["x"] + close["width"] <= viewport["width"]
    pages.close()


@pytest.mark.parametrize(("viewport", "options"), LOOKS, ids=NAMES)
def test_the_herbarium_keeps_the_rules(
    browser: "sync_api.Browser", open_port: int, viewport: dict[str, int], options: dict[str, Any]
) -> None:
    pages = Pages(browser, open_port)
    page = pages.open(viewport, path="/#/species", **options)
    page.wait_for_selector("#species-list a")
    assert_sound(page)
    page.locator("#species-list a").first.click()
    page.wait_for_selector("#sheets-grid li")
    page.locator("#sheets-known").wait_for()
    assert_sound(page)
    page.locator("#sheets-grid .mount").first.click()
    page.locator("#viewer-facts a").wait_for()
    assert_sound(page)
    pages.close()


@pytest.mark.parametrize(("viewport", "options"), LOOKS, ids=NAMES)
def test_signing_in_keeps_the_rules(
    browser: "sync_api.Browser",
    keyed_port: int,
    key: tuple[Home, str],
    viewport: dict[str, int],
    options: dict[str, Any],
) -> None:
    pages = Pages(browser, keyed_port)
    page = pages.open(viewport, path="/#/versions", **options)
    page.locator("#sign-in-dialog").wait_for()
    page.get_by_role("button", name="Sign in").last.click()
    page.wait_for_selector("#sign-in-error:not([hidden])")
    assert_sound(page)
    page.keyboard.press("Escape")
    assert_sound(page)
    page.evaluate("location.hash = '#/curate'")
    page.locator("#sign-in-key").fill(key[1])
    page.keyboard.press("Enter")
    page.wait_for_selector("#sign-in-error:not([hidden])")
    page.get_by_role("button", name="Not now").click()
    page.get_by_role("button", name="Sign out").wait_for()
    assert_sound(page)
    pages.close()


def test_the_whole_way_to_an_answer_goes_by_keyboard(browser: "sync_api.Browser", open_port: int, photo: Path) -> None:
    pages = Pages(browser, open_port)
    page = pages.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.set_input_files("#files", [str(photo)] * 2)
    passed = []
    while not passed or passed[-1] != "submit":
        page.keyboard.press("Tab")
        passed.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert len(passed) < 20
    # The nameless one is “Only among …”.
    assert passed == ["remove", "organ", "place later", "remove", "organ", "place earlier", "files", "", "submit"]
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "answer-title"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "candidate"
    pages.close()
