"""Signing in with a key, in a real browser: the page asks for one, and goes on with what it was asked."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import BROWSER_MARKS, Pages, until

from models.api_keys import NewKey, Scope
from models.api_keys_store import KeyStore
from models.home import Home

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra dev)")

pytestmark = BROWSER_MARKS

IDENTIFY, CURATE = frozenset({Scope.IDENTIFY}), frozenset({Scope.IDENTIFY, Scope.CURATE})

KeyMaker = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def keyed_home(collection_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A copy of the small collection, for those with a key alone."""
    root = tmp_path_factory.mktemp("keyed") / "home"
    shutil.copytree(collection_home.root, root)
    return Home(root)


@pytest.fixture(scope="module")
def port(keyed_home: Home, serve_in_thread: Callable[..., int]) -> int:
    return serve_in_thread(keyed_home, access="keys", public_reading=False, explanations=False)


@pytest.fixture
def make_key(keyed_home: Home) -> KeyMaker:
    """Makes a key; gives its id and itself."""

    def make(name: str = "Field app", scopes: frozenset[Scope] = IDENTIFY, **limits: int) -> tuple[str, str]:
        with KeyStore.open(keyed_home) as store:
            kept, text = store.create(NewKey(name, scopes, **limits))
        return kept.key_id, text

    return make


@pytest.fixture
def pages(browser: "sync_api.Browser", port: int) -> Iterator[Pages]:
    opened = Pages(browser, port)
    yield opened
    opened.close()


def dialog(page: "sync_api.Page") -> "sync_api.Locator":
    found = page.get_by_role("dialog", name="Sign in with a key")
    found.wait_for()
    return found


def enter(page: "sync_api.Page", key: str) -> None:
    dialog(page)
    page.locator("#sign-in-key").fill(key)
    page.keyboard.press("Enter")


def send(page: "sync_api.Page", photo: Path) -> None:
    page.set_input_files("#files", str(photo))
    page.get_by_role("button", name="Identify").click()


def test_the_page_asks_for_a_key_and_then_answers(pages: Pages, photo: Path, make_key: KeyMaker) -> None:
    _, key = make_key(daily_quota=5)
    page = pages.open()
    page.get_by_role("button", name="Sign in").wait_for()
    uploads = []
    page.on("request", lambda request: uploads.append(request.url) if "identifications" in request.url else None)
    send(page, photo)
    assert "Identifying plants needs a key" in dialog(page).inner_text()
    assert page.evaluate("document.activeElement.id") == "sign-in-key"
    field = page.get_by_label("Key", exact=True)
    assert (field.get_attribute("type"), field.get_attribute("autocomplete")) == ("password", "off")
    assert uploads == []  # nothing is sent that would be refused
    enter(page, "vch_0123456789ab_" + "x" * 43)
    page.wait_for_selector("#sign-in-error:not([hidden])")
    assert "not one of this service" in page.locator("#sign-in-error").inner_text()
    assert page.evaluate("document.activeElement.id") == "sign-in-key"
    enter(page, f" {key} ")
    page.wait_for_selector("#answer:not([hidden])")
    assert page.locator("#sign-in-dialog").get_attribute("open") is None
    assert field.input_value() == ""
    until(page, "document.querySelector('#session-who').textContent.includes('4 of 5 left today')")
    assert "Field app" in page.locator("#session-who").inner_text()
    assert key not in page.evaluate("document.cookie + JSON.stringify({...localStorage, ...sessionStorage})")
    # Images of sheets that are not public come by the cookie.
    until(page, "document.querySelector('#sheet-figure .picture img').naturalWidth > 0")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in").wait_for()
    assert page.evaluate("document.activeElement.id") == "sign-in"
    assert page.locator("#answer").is_hidden()
    assert page.locator("#previews li").count() == 0


def test_whoever_gives_no_key_keeps_the_photos(pages: Pages, photo: Path, make_key: KeyMaker) -> None:
    page = pages.open()
    send(page, photo)
    dialog(page)
    page.keyboard.press("Escape")
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#error").inner_text() == "Identifying needs a key. Nothing was sent."
    assert page.locator("#previews li").count() == 1
    page.get_by_role("button", name="Sign in").click()
    enter(page, make_key()[1])
    page.get_by_role("button", name="Sign out").wait_for()
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#answer:not([hidden])")


def test_a_key_that_is_revoked_meanwhile_is_asked_for_again(
    pages: Pages, photo: Path, make_key: KeyMaker, keyed_home: Home
) -> None:
    key_id, key = make_key("Old key")
    page = pages.open()
    page.get_by_role("button", name="Sign in").click()
    enter(page, key)
    page.get_by_role("button", name="Sign out").wait_for()
    with KeyStore.open(keyed_home) as store:
        store.revoke(key_id)
    page.wait_for_timeout(2500)  # a running service may remember a key for two seconds
    send(page, photo)
    assert "The key “Old key” is good no longer." in dialog(page).inner_text()
    enter(page, make_key("New key")[1])
    page.wait_for_selector("#answer:not([hidden])")
    assert "New key" in page.locator("#session-who").inner_text()


def test_a_day_that_is_used_up_is_told_in_words(pages: Pages, photo: Path, make_key: KeyMaker) -> None:
    page = pages.open()
    send(page, photo)
    enter(page, make_key(daily_quota=1)[1])
    page.wait_for_selector("#answer:not([hidden])")
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#error:not([hidden])")
    words = page.locator("#error").inner_text()
    assert words.startswith("Your key has identified as many plants today as it may. Try again in ")
    assert words.rstrip(".").split()[-1].rstrip("s") in ("second", "minute", "hour")


def test_curating_asks_for_a_key_of_its_own(pages: Pages, make_key: KeyMaker) -> None:
    page = pages.open(path="/#/curate")
    assert "Curating needs a key with the scope curate" in dialog(page).inner_text()
    page.keyboard.press("Escape")
    notice = page.locator("#curate [data-curation-off]")
    assert "Curating needs a key with the scope curate." in notice.inner_text()
    assert page.locator("#curate-submit").is_disabled()
    assert page.locator("#build").is_hidden()
    notice.get_by_role("button", name="Sign in").click()
    enter(page, make_key("Only looks")[1])
    page.wait_for_selector("#sign-in-error:not([hidden])")
    assert "this key is for: identify" in page.locator("#sign-in-error").inner_text()
    page.get_by_role("button", name="Not now").click()
    assert "The key “Only looks” is for other things" in notice.inner_text()
    page.get_by_role("link", name="Versions").first.click()
    page.locator("#versions").get_by_role("button", name="Sign in with another key").click()
    enter(page, make_key("Maria", CURATE)[1])
    until(page, "document.querySelector('#versions-list').textContent.includes('Nothing is built yet')")
    assert page.locator("#versions [data-curation-off]").is_hidden()
    page.get_by_role("link", name="Curate", exact=True).click()
    until(page, "document.querySelector('#build-words').textContent.startsWith('4 changes')")
    # Events of a build come by the cookie.
    with page.expect_response("**/events") as events:
        page.get_by_role("button", name="Build now").click()
    assert events.value.status == 200
    page.get_by_role("button", name="Cancel the build").click()
    until(page, "document.querySelector('#build-words').textContent.startsWith('The build was cancelled')")
    page.get_by_role("button", name="Sign out").click()
    page.locator("#identify").wait_for()
    assert page.locator("#sign-in-dialog").get_attribute("open") is None


def test_a_collection_that_is_not_public_is_shown_to_those_with_a_key(pages: Pages, make_key: KeyMaker) -> None:
    page = pages.open(path="/#/species")
    dialog(page)
    page.get_by_role("button", name="Not now").click()
    page.wait_for_selector("#notice:not([hidden])")
    assert "needs a key" in page.locator("#notice").inner_text()
    page.get_by_label("Find a species").fill("costus")  # whoever has said no is not asked again by this view
    page.wait_for_timeout(500)
    assert page.locator("#sign-in-dialog").get_attribute("open") is None
    page.get_by_role("button", name="Sign in").click()
    enter(page, make_key()[1])
    page.wait_for_selector("#species-list a")
    page.locator("#species-list a").first.click()
    until(page, "document.querySelectorAll('#sheets-grid img').length === 3")
    until(page, "[...document.querySelectorAll('#sheets-grid img')].every((image) => image.naturalWidth > 0)")


def test_where_no_keys_are_needed_nobody_is_asked_to_sign_in(
    browser: "sync_api.Browser", serve_in_thread: Callable[..., int]
) -> None:
    pages = Pages(browser, serve_in_thread())
    page = pages.open()
    until(page, "document.querySelector('#bundle').textContent !== ''")
    assert page.locator("#session").is_hidden()
    pages.close()
