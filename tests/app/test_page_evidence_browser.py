"""What vouches for an answer, in a real browser: heat maps over photo and sheet, and both in large."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import BROWSER_MARKS, Pages, identify, until
from PIL import Image

from app.bundle_watch import load_serving
from models.home import Home

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra dev)")

pytestmark = BROWSER_MARKS

MAPS = ("/v1/explanations/1/photo-1.png", "/v1/explanations/1/sheet-1.png")
SWITCH = "Show what matches"


@pytest.fixture(scope="module")
def port(serve_in_thread: Callable[..., int]) -> int:
    return serve_in_thread()


@pytest.fixture
def pages(browser: "sync_api.Browser", port: int) -> Iterator[Pages]:
    opened = Pages(browser, port)
    yield opened
    opened.close()


class Explainer:
    """Stands in for the service where it is asked what matches; `held` keeps it from answering."""

    def __init__(self, page: "sync_api.Page") -> None:
        self.asked: list[str] = []
        self.are_kept = True
        self.explanation: dict[str, Any] | None = {
            "photo_position": 1,
            "photo_heat_map_url": MAPS[0],
            "sheet_heat_map_url": MAPS[1],
        }
        self.held: list[sync_api.Route] | None = None
        page.route("**/v1/explanations", self._answer)
        page.route(
            "**/v1/explanations/**", lambda route: fulfil_map(route) if self.are_kept else route.fulfill(status=404)
        )

    def release(self) -> None:
        held, self.held = self.held or [], None
        for route in held:
            self._fulfil(route)

    def _answer(self, route: "sync_api.Route") -> None:
        body = (route.request.post_data_buffer or b"").decode("latin-1")
        self.asked.append(body.partition('name="sheet_ids"\r\n\r\n')[2].partition("\r\n")[0])
        assert body.count('name="photos"') == 1
        if self.held is not None:
            self.held.append(route)
        else:
            self._fulfil(route)

    def _fulfil(self, route: "sync_api.Route") -> None:
        found = {"sheet_id": self.asked[-1], "explanation": self.explanation}
        route.fulfill(json={"bundle_id": "index", "explanations": [found]})


def fulfil_map(route: "sync_api.Route") -> None:
    """A map whose proportions are, as rounding has it, not quite those of its picture."""
    packed = io.BytesIO()
    Image.new("RGBA", (48, 65), (250, 140, 10, 120)).save(packed, "PNG")
    route.fulfill(content_type="image/png", body=packed.getvalue())


def switch(page: "sync_api.Page") -> "sync_api.Locator":
    return page.locator("#evidence").get_by_role("button", name=SWITCH)


def wait_for_maps(page: "sync_api.Page") -> None:
    until(page, "document.querySelectorAll('.pair .heat').length === 2")
    until(page, "[...document.querySelectorAll('.pair .heat')].every((map) => map.naturalWidth > 0)")


def assert_map_covers_picture(page: "sync_api.Page", within: str) -> None:
    """The heat map lies over all of the picture and over nothing else."""
    base, heat = (page.locator(f"{within} img{kind}").bounding_box() for kind in (":not(.heat)", ".heat"))
    assert base["width"] > 50
    assert heat == pytest.approx(base, abs=0.5)
    shown, natural = page.evaluate(
        """(within) => {
          const image = document.querySelector(`${within} img:not(.heat)`);
          return [image.offsetWidth / image.offsetHeight, image.naturalWidth / image.naturalHeight];
        }""",
        within,
    )
    assert shown == pytest.approx(natural, rel=0.02)


def test_heat_maps_lie_exactly_over_photo_and_sheet(pages: Pages, photo: Path) -> None:
    page = pages.open()
    explainer = Explainer(page)
    identify(page, photo)
    assert switch(page).get_attribute("aria-pressed") == "false"
    assert page.locator(".heat").count() == 0
    assert page.locator("#heat-legend").is_hidden()
    assert explainer.asked == []
    switch(page).focus()
    page.keyboard.press("Space")
    assert switch(page).get_attribute("aria-pressed") == "true"
    wait_for_maps(page)
    assert_map_covers_picture(page, "#photo-figure .picture")
    assert_map_covers_picture(page, "#sheet-figure .picture")
    assert "alike to the network" in page.locator("#heat-words").inner_text()
    assert "not whether it is right" in page.locator(".heat-caption").inner_text()
    assert page.get_by_role("button", name="Your photo, with what matches: enlarge").is_visible()
    switch(page).click()
    assert page.locator(".heat").count() == 0


def test_the_switch_holds_for_the_visit(pages: Pages, photo: Path) -> None:
    page = pages.open()
    Explainer(page)
    identify(page, photo)
    switch(page).click()
    page.reload()
    identify(page, photo)
    assert switch(page).get_attribute("aria-pressed") == "true"
    wait_for_maps(page)


def test_each_pair_is_looked_for_once_when_it_is_seen(pages: Pages, photo: Path) -> None:
    page = pages.open()
    explainer = Explainer(page)
    identify(page, photo, photo)
    switch(page).click()
    wait_for_maps(page)
    page.get_by_role("button", name="Sheet 2 of 3 sheets").click()
    wait_for_maps(page)
    page.get_by_role("button", name="Your photo 2", exact=True).click()
    wait_for_maps(page)
    assert len(explainer.asked) == 3
    assert explainer.asked[1] == explainer.asked[2] != explainer.asked[0]
    page.get_by_role("button", name="Sheet 1 of 3 sheets").click()
    page.get_by_role("button", name="Your photo 1", exact=True).click()
    wait_for_maps(page)
    page.locator("#candidates button").nth(1).click()
    wait_for_maps(page)
    switch(page).click()
    switch(page).click()
    wait_for_maps(page)
    assert len(set(explainer.asked)) == 3
    assert len(explainer.asked) <= 5


def test_the_page_says_that_it_is_looking_and_gives_up_what_is_no_longer_seen(pages: Pages, photo: Path) -> None:
    page = pages.open()
    explainer = Explainer(page)
    identify(page, photo)
    explainer.held = []
    switch(page).click()
    until(page, "document.querySelector('#heat-words').textContent.startsWith('Looking for')")
    assert page.locator("#heat-legend").is_hidden()
    page.get_by_role("button", name="Sheet 2 of 3 sheets").click()
    until(page, "document.querySelector('#heat-words').textContent.startsWith('Looking for')")
    explainer.held = explainer.held[-1:]
    explainer.release()
    wait_for_maps(page)
    assert "alike to the network" in page.locator("#heat-words").inner_text()


def test_a_service_without_heat_maps_has_no_switch_for_them(
    browser: "sync_api.Browser", serve_in_thread: Callable[..., int], photo: Path
) -> None:
    pages = Pages(browser, serve_in_thread(explanations=False))
    page = pages.open()
    identify(page, photo)
    assert page.get_by_role("button", name=SWITCH).count() == 0
    assert page.locator("#heat-words").is_hidden()
    page.locator("#sheet-figure .mount").click()
    assert page.locator("#viewer-heat").is_hidden()
    pages.close()


def test_why_there_are_no_heat_maps_is_told(pages: Pages, photo: Path) -> None:
    page = pages.open()
    explainer = Explainer(page)
    explainer.explanation = None
    identify(page, photo)
    switch(page).click()
    until(page, "document.querySelector('#heat-words').textContent.includes('cannot be read')")
    assert page.locator("#heat-legend").is_hidden()
    problem = {"type": "urn:voucher:problem:rate-exceeded", "title": "Too often", "detail": "wait a moment"}
    page.route("**/v1/explanations", lambda route: route.fulfill(status=429, json=problem))
    page.get_by_role("button", name="Sheet 2 of 3 sheets").click()
    until(page, "document.querySelector('#heat-words').textContent.includes('asks too often')")
    assert "off and on again" in page.locator("#heat-words").inner_text()
    page.unroute("**/v1/explanations")
    explainer = Explainer(page)
    switch(page).click()
    assert page.locator("#heat-words").is_hidden()
    switch(page).click()
    wait_for_maps(page)
    page.get_by_role("button", name="Sheet 1 of 3 sheets").click()
    until(page, "document.querySelector('#heat-words').textContent.includes('cannot be read')")
    assert len(explainer.asked) == 1


def test_heat_maps_that_are_gone_are_looked_for_again_on_demand(pages: Pages, photo: Path) -> None:
    page = pages.open()
    explainer = Explainer(page)
    explainer.are_kept = False
    identify(page, photo)
    switch(page).click()
    until(page, "document.querySelector('#heat-words').textContent.includes('for a while only')")
    assert page.locator(".heat").count() == 0
    assert page.locator("#heat-legend").is_hidden()
    explainer.are_kept = True
    switch(page).click()
    switch(page).click()
    wait_for_maps(page)


def test_heat_maps_are_switched_in_the_large_view_too(pages: Pages, photo: Path) -> None:
    page = pages.open()
    explainer = Explainer(page)
    explainer.held = []
    identify(page, photo)
    page.locator("#sheet-figure .mount").click()
    viewer = page.locator("#viewer")
    button = viewer.get_by_role("button", name=SWITCH)
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    until(page, "document.querySelector('#viewer-heat-words').textContent.startsWith('Looking for')")
    explainer.release()
    until(page, "document.querySelector('#viewer .heat')?.naturalWidth > 0")
    assert page.locator("#viewer-heat-words").is_hidden()
    page.locator("#viewer-in").click()
    assert_map_covers_picture(page, "#viewer-stage")
    page.keyboard.press("Escape")
    assert switch(page).get_attribute("aria-pressed") == "true"
    wait_for_maps(page)


def test_the_large_view_tells_what_is_known_of_a_sheet(pages: Pages, photo: Path) -> None:
    page = pages.open()
    identify(page, photo)
    chosen = next(i for i in range(3) if "CAY012345" in name_of_sheet(page, i))
    page.get_by_role("button", name=f"Sheet {chosen + 1} of 3 sheets").click()
    page.locator("#sheet-figure .mount").click()
    facts = page.locator("#viewer-facts")
    facts.get_by_role("link").wait_for()
    assert facts.locator("dd").all_inner_texts()[:4] == ["CAY", "herbarium", "CAY012345", "CC BY 4.0"]
    assert facts.get_by_role("link", name="96 × 128 pixels").get_attribute("target") == "_blank"
    page.keyboard.press("Escape")
    page.locator("#photo-figure .mount").click()
    assert facts.is_hidden()


def name_of_sheet(page: "sync_api.Page", index: int) -> str:
    page.locator("#sheet-figure .strip button").nth(index).click()
    return page.locator("#sheet-figure figcaption b").inner_text()


def test_photo_and_sheet_are_enlarged_together_or_each_for_itself(pages: Pages, photo: Path) -> None:
    page = pages.open()
    identify(page, photo)
    page.get_by_role("button", name="Compare in large").focus()
    page.keyboard.press("Enter")
    until(page, "[...document.querySelectorAll('#viewer img')].every((image) => image.offsetWidth > 0)")
    widths = "[...document.querySelectorAll('#viewer .viewer-picture')].map((each) => each.offsetWidth)"
    fitting = page.evaluate(widths)
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert page.evaluate(widths) == pytest.approx([2 * width for width in fitting], rel=0.02)
    page.keyboard.press("ArrowDown")  # the picture that has the focus moves, and the other with it
    tops = "[...document.querySelectorAll('#viewer .viewer-stage')].map((each) => each.scrollTop)"
    until(page, f"{tops}.every((top, index, all) => top > 0 && Math.abs(top - all[0]) < 80)")
    page.keyboard.press("0")
    assert page.evaluate(widths) == pytest.approx(fitting, rel=0.02)
    together = page.get_by_role("button", name="Move both together")
    assert together.get_attribute("aria-pressed") == "true"
    together.click()
    page.locator("#viewer-second").focus()
    page.keyboard.press("+")
    assert page.evaluate(widths) == pytest.approx([fitting[0], 1.5 * fitting[1]], rel=0.02)
    page.keyboard.press("Escape")
    assert page.locator("#viewer").get_attribute("open") is None
    assert page.evaluate("document.activeElement.id") == "compare-large"


def test_the_service_explains_and_the_page_shows_it(
    browser: "sync_api.Browser", trained_home: Home, serve_in_thread: Callable[..., int], photo: Path
) -> None:
    pages = Pages(browser, serve_in_thread(trained_home, load_serving, device="cpu", worker=False))
    page = pages.open()
    identify(page, photo)
    switch(page).click()
    wait_for_maps(page)
    assert_map_covers_picture(page, "#photo-figure .picture")
    assert_map_covers_picture(page, "#sheet-figure .picture")
    pages.close()


def test_pictures_that_are_seen_already_stay_and_keep_the_focus(pages: Pages, photo: Path) -> None:
    page = pages.open()
    explainer = Explainer(page)
    explainer.held = []
    identify(page, photo)
    page.evaluate("document.querySelectorAll('.mount').forEach((mount) => (mount.isTheSame = true))")
    page.locator("#sheet-figure .mount").focus()
    page.evaluate("document.querySelector('#heat-toggle').click()")
    until(page, "document.querySelector('#heat-toggle').getAttribute('aria-busy') === 'true'")
    explainer.release()
    wait_for_maps(page)
    assert page.evaluate("[...document.querySelectorAll('.pair .mount')].map((mount) => mount.isTheSame)") == [True] * 2
    assert page.evaluate("document.activeElement.closest('#sheet-figure') !== null")
    page.locator("#candidates button").nth(1).click()
    assert page.evaluate("document.querySelector('#photo-figure .mount').isTheSame") is True


def test_keys_enlarge_after_the_largest_and_the_picture_in_focus_is_marked(pages: Pages, photo: Path) -> None:
    page = pages.open()
    identify(page, photo)
    page.get_by_role("button", name="Compare in large").click()
    until(page, "[...document.querySelectorAll('#viewer img')].every((image) => image.offsetWidth > 0)")
    page.locator("#viewer-in").focus()
    for _ in range(9):
        page.keyboard.press("Enter")
    assert page.locator("#viewer-in").get_attribute("aria-disabled") == "true"
    largest = page.evaluate("document.querySelector('.viewer-picture').offsetWidth")
    page.keyboard.press("-")
    assert page.evaluate("document.querySelector('.viewer-picture').offsetWidth") < largest
    page.keyboard.press("0")
    page.locator("#viewer-stage").focus()
    colours = "[...document.querySelectorAll('.viewer-stage')].map((stage) => getComputedStyle(stage).borderTopColor)"
    focused, other = page.evaluate(colours)
    assert focused != other


def test_a_photo_that_the_browser_cannot_show_says_so_in_large_too(pages: Pages, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "green").save(tmp_path / "leaf.tif")
    page = pages.open()
    identify(page, tmp_path / "leaf.tif")
    page.get_by_role("button", name="Compare in large").click()
    until(page, "document.querySelector('#viewer-stage .viewer-picture').classList.contains('broken')")
    assert page.locator("#viewer-stage img").is_hidden()
