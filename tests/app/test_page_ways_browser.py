"""Ways through the page, in a real browser: to and fro, by keyboard, and what is said of what went wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import BROWSER_MARKS, Pages, identify, until

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra dev)")

pytestmark = BROWSER_MARKS


@pytest.fixture(scope="module")
def port(serve_in_thread: Callable[..., int]) -> int:
    return serve_in_thread(max_request_bytes=100_000)


@pytest.fixture
def pages(browser: "sync_api.Browser", port: int) -> Iterator[Pages]:
    opened = Pages(browser, port)
    yield opened
    opened.close()


def test_the_skip_link_stays_in_the_view(pages: Pages) -> None:
    page = pages.open(path="/#/species")
    page.wait_for_selector("#species-list li")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.locator("#species").is_visible()
    assert page.evaluate("location.hash") == "#/species"


def test_views_have_titles_of_their_own(pages: Pages) -> None:
    page = pages.open()
    titles = [page.title()]
    for path in ("#/species", "#/species/105951", "#/versions"):
        page.evaluate(f"location.hash = '{path}'")
        until(page, f"document.title !== {titles[-1]!r}")
        titles.append(page.title())
    assert titles[0] == "What is this plant? – voucher"
    until(page, "document.title === 'Versions – voucher'")


def test_whoever_comes_back_to_the_answer_is_where_it_was_left(pages: Pages, photo: Path) -> None:
    page = pages.open({"width": 800, "height": 500})
    identify(page, photo)
    link = page.get_by_role("link", name="All sheets of this species")
    link.scroll_into_view_if_needed()
    before = page.evaluate("window.scrollY")
    assert before > 100
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#sheets-grid li")
    page.go_back()
    until(page, f"Math.abs(window.scrollY - {before}) < 3")
    assert page.evaluate("document.activeElement.textContent") == "All sheets of this species"


def test_complaints_end_with_what_they_are_about(pages: Pages) -> None:
    page = pages.open(path="/#/species/nowhere")
    until(page, "!document.querySelector('#notice').hidden")
    assert page.locator("#sheets-title").inner_text() == "No such species"
    page.get_by_role("link", name="All species").click()
    page.wait_for_selector("#species-list li")
    assert page.locator("#notice").is_hidden()
    page.evaluate("location.hash = '#/species/%'")
    until(page, "document.querySelector('#sheets-title').textContent === 'No such species'")


def test_a_search_that_failed_is_forgotten_when_one_succeeds(pages: Pages) -> None:
    page = pages.open(path="/#/species")
    page.wait_for_selector("#species-list li")
    page.route("**/v1/species?q=pin**", lambda route: route.fulfill(status=404, body="{}"))
    page.locator("#species-query").fill("pin")
    until(page, "!document.querySelector('#notice').hidden")
    page.locator("#species-query").fill("cost")
    until(page, "document.querySelector('#notice').hidden")
    assert "found" in page.locator("#species-count").inner_text()


def test_too_many_bytes_together_are_told_before_they_are_sent(pages: Pages, tmp_path: Path) -> None:
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.jpg")
        files[-1].write_bytes(b"\xff\xd8" + bytes(15_000))
    page = pages.open()
    page.locator("#files").set_input_files(files)
    until(page, "document.querySelector('#error').textContent.includes('together')")
    assert page.locator("#previews li").count() == 2
    heic = tmp_path / "phone.heic"
    heic.write_bytes(b"ftypheic")
    page.locator("#files").set_input_files(heic)
    until(page, "document.querySelector('#error').textContent.includes('HEIC')")


def test_the_chooser_of_sheets_shows_that_it_has_the_focus(pages: Pages) -> None:
    page = pages.open(path="/#/curate")
    chooser = page.locator("#curate-files")
    sync_api.expect(chooser).to_be_enabled()  # not before it is known who asks
    sync_api.expect(page.locator("#build-words")).not_to_be_empty()  # nothing comes between any more
    chooser.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    sync_api.expect(chooser).to_be_focused()
    sync_api.expect(page.locator("label[for='curate-files']")).to_have_css("outline-style", "solid")
