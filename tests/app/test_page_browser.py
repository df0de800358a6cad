"""The page in a real browser."""

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import BROWSER_MARKS, PHONE, Pages, identify, record_forms, until

from models.catalogue import Catalogue
from models.curation import Curator, NewSheet, NewSpecies
from models.home import Home
from models.taxonomy import SpeciesId

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra dev)")

pytestmark = BROWSER_MARKS

DROP = """([encoded, type]) => {
  const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "dropped", { type }));
  const event = (name) => new DragEvent(name, { dataTransfer: transfer, bubbles: true, cancelable: true });
  const target = document.querySelector("#form");
  for (const name of ["dragenter", "dragover", "drop"]) target.dispatchEvent(event(name));
}"""

PASTE = """([encoded, type]) => {
  const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "pasted", { type }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def port(serve_in_thread: Callable[..., int]) -> int:
    return serve_in_thread(explanations=False)


@pytest.fixture
def open_page(browser: "sync_api.Browser", port: int) -> Iterator[Callable[..., "sync_api.Page"]]:
    """Opens the page; in the end no request went elsewhere, and nothing broke the policy or failed."""
    pages = Pages(browser, port)
    yield pages.open
    pages.close()


def test_a_chosen_photo_gets_candidates_reason_and_sheets(open_page, photo: Path) -> None:
    page = open_page()
    assert page.get_by_role("button", name="Identify").is_disabled()
    identify(page, photo)
    assert page.locator("#answer-title").inner_text() == "Costus arabicus L."
    assert page.locator("#answer-title i").inner_text() == "Costus arabicus"
    decision = page.locator("#decision").inner_text()
    assert decision == "The herbarium sheets decided. The sheets are close to the photo."
    assert page.locator("#outcome").is_hidden()
    chosen = page.locator("#prediction-set").inner_text().replace("\u00a0", "")
    assert chosen == "Set of 90% coverage: Costus arabicus L., Pinus sylvestris L. It holds for the tested."
    candidates = page.locator("#candidates .candidate")
    assert candidates.count() == 3
    assert "60%" in candidates.first.inner_text().replace("\u00a0", "")
    assert "Costus · Costaceae" in candidates.first.inner_text()
    assert "no field photos" not in candidates.first.inner_text()
    assert "Known from herbarium sheets only" in candidates.nth(1).inner_text()
    assert "Added after training" in candidates.nth(2).inner_text()
    assert "similarity 0.70" in page.locator("#sheet-figure figcaption").inner_text()
    until(page, "document.querySelector('#sheet-figure .mount img').naturalWidth > 0")
    assert page.evaluate("document.querySelector('#photo-figure .mount img').naturalWidth") == 300
    assert page.evaluate("document.activeElement.id") == "answer-title"


def test_sheets_and_candidates_can_be_switched(open_page, photo: Path) -> None:
    page = open_page()
    identify(page, photo, photo)
    assert page.locator("#photo-figure .strip button").count() == 2
    page.locator("#photo-figure .strip button").nth(1).click()
    assert "Your photo 2" in page.locator("#photo-figure figcaption").inner_text()
    page.locator("#sheet-figure .strip button").nth(2).click()
    assert "similarity 0.50" in page.locator("#sheet-figure figcaption").inner_text()
    page.locator(".candidate").nth(1).click()
    assert "Pinus sylvestris" in page.locator("#evidence-title").inner_text()
    assert page.locator("#sheet-figure .strip").count() == 0
    page.locator(".candidate").nth(2).click()
    assert "No sheets" in page.locator("#sheet-figure").inner_text()


def test_a_photo_is_zoomed_and_left_with_the_keyboard(open_page, photo: Path) -> None:
    page = open_page()
    identify(page, photo)
    page.locator("#sheet-figure .mount").focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#viewer-image').naturalWidth > 0")
    assert page.locator("#viewer").get_attribute("open") is not None
    page.locator("#viewer-facts a").wait_for()
    width = "document.querySelector('#viewer-image').offsetWidth"
    until(page, f"{width} > 0")
    fitting = page.evaluate(width)
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert page.evaluate(width) == pytest.approx(2 * fitting, rel=0.02)
    page.locator("#viewer-stage").click(position={"x": 100, "y": 100})
    assert page.evaluate(width) == pytest.approx(fitting, rel=0.02)
    page.keyboard.press("Escape")
    assert page.locator("#viewer").get_attribute("open") is None
    assert page.evaluate("document.activeElement.className") == "mount"


@pytest.mark.parametrize("way", [DROP, PASTE])
def test_a_dropped_or_pasted_photo_is_taken(open_page, photo: Path, way: str) -> None:
    page = open_page()
    page.evaluate(way, [base64.b64encode(photo.read_bytes()).decode(), "image/jpeg"])
    assert page.locator("#previews li").count() == 1
    assert page.locator("#status").inner_text() == "1 photo chosen"
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#answer:not([hidden])")
    assert page.locator(".candidate").count() == 3


def test_photos_can_be_taken_out_and_no_more_than_five_go_in(open_page, photo: Path) -> None:
    page = open_page()
    page.set_input_files("#files", [str(photo)] * 6)
    assert page.locator("#previews li").count() == 5
    assert "Only 5 photos" in page.get_by_role("alert").inner_text()
    page.get_by_role("button", name="Remove photo 5").click()
    assert page.locator("#previews li").count() == 4
    assert page.locator("#error").is_hidden()
    for _ in range(4):
        page.get_by_role("button", name="Remove photo 1").click()
    assert page.get_by_role("button", name="Identify").is_disabled()


def test_a_file_that_is_no_photo_is_refused_in_plain_words(open_page, photo: Path, tmp_path: Path) -> None:
    page = open_page()
    text = tmp_path / "notes.txt"
    text.write_text("no photo")
    page.set_input_files("#files", str(text))
    assert "not a photo" in page.get_by_role("alert").inner_text()
    disguised = tmp_path / "disguised.jpg"
    disguised.write_text("<svg/>")
    page.set_input_files("#files", [str(photo), str(disguised)])
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#error:not([hidden])")
    message = page.get_by_role("alert").inner_text()
    assert "Photo 2" in message
    assert "JPEG, PNG, WebP or TIFF" in message
    assert "disguised" not in message
    page.get_by_role("button", name="Remove photo 2").click()
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#answer:not([hidden])")


def test_an_upload_can_be_cancelled(open_page, photo: Path) -> None:
    page = open_page()
    held = []
    page.route("**/v1/identifications", lambda route: held.append(route))  # the answer does not come
    page.set_input_files("#files", str(photo))
    with page.expect_request("**/v1/identifications"):
        page.get_by_role("button", name="Identify").click()
    page.get_by_role("button", name="Cancel").click()
    sync_api.expect(page.locator("#status")).to_have_text("Cancelled.")
    held[0].abort()
    page.unroute("**/v1/identifications")
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#answer:not([hidden])")


def test_the_herbarium_is_searched_and_shows_all_sheets_of_a_species(open_page, photo: Path) -> None:
    page = open_page()
    identify(page, photo)
    page.get_by_role("link", name="All sheets of this species").click()
    page.wait_for_selector("#sheets-grid li >> nth=2")
    assert page.locator("#sheets-title").inner_text() == "Costus arabicus L."
    assert "3 herbarium sheets" in page.locator("#sheets-count").inner_text()
    assert "CAY herbarium CAY012345" in page.locator("#sheets-grid").inner_text()
    page.get_by_role("link", name="The herbarium").click()
    page.wait_for_selector("#species-list li >> nth=2")
    page.get_by_label("Find a species").fill("pinaceae")
    until(page, "document.querySelectorAll('#species-list li').length === 2")
    page.get_by_role("link", name="Abies").click()
    until(page, "document.querySelector('#sheets-count').textContent.startsWith('0 herbarium sheets')")
    page.get_by_role("link", name="Identify").click()
    page.locator("#answer-title").wait_for(state="visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(open_page, photo: Path, scheme: str) -> None:
    page = open_page(PHONE, has_touch=True, is_mobile=True, color_scheme=scheme)
    overflow = "document.documentElement.scrollWidth - window.innerWidth"
    assert page.evaluate(overflow) <= 0
    assert page.get_by_text("Take a photo").is_visible()
    identify(page, photo, photo, photo)
    assert page.evaluate(overflow) <= 0
    left, right = (page.locator(f"#{side}-figure .mount").bounding_box() for side in ("photo", "sheet"))
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == pytest.approx(right["y"], abs=2)
    page.locator("#sheet-figure .mount").tap()
    until(page, "document.querySelector('#viewer').open")
    assert page.locator("#viewer-close").bounding_box()["x"] + 30 < PHONE["width"]
    page.locator("#viewer-close").tap()
    page.get_by_role("link", name="The herbarium").tap()
    page.wait_for_selector("#species-list li")
    assert page.evaluate(overflow) <= 0


def test_every_control_has_a_name_and_the_status_is_announced(open_page, photo: Path) -> None:
    page = open_page()
    identify(page, photo)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, a, img")].filter((control) => {
          const name = control.getAttribute("aria-label") ?? control.alt ?? control.textContent;
          const labelled = control.labels?.length || control.closest("button[aria-label]");
          return !name.trim() && !labelled && !control.closest("#viewer");
        }).map((control) => control.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("#status").get_attribute("aria-live") == "polite"
    status = page.locator("#status").inner_text()
    assert re.fullmatch(r"Answered in ([1-9]\d* milliseconds?|[1-9]\d*\.\d seconds)", status), status


@pytest.fixture(scope="module")
def large_port(
    collection_home: Home,
    serve_in_thread: Callable[..., int],
    encode: Callable[..., bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> int:
    """Of a service over more species, and more sheets of one, than go on a page."""
    root = tmp_path_factory.mktemp("large") / "home"
    shutil.copytree(collection_home.root, root)
    with Catalogue.open(Home(root)) as catalogue:
        curator = Curator(catalogue, "Ada")
        for number in range(70):
            curator.add_species(NewSpecies(f"Viola speciosa{number:02}", "Viola", "Violaceae", f"viola-{number}"))
        curator.add([NewSheet(encode(100 + number), SpeciesId("viola-1")) for number in range(30)])
    return serve_in_thread(Home(root), explanations=False)


def test_species_and_sheets_come_page_by_page(browser: "sync_api.Browser", large_port: int) -> None:
    pages = Pages(browser, large_port)
    page = pages.open(path="/#/species")
    until(page, "document.querySelectorAll('#species-list li').length === 60")
    assert page.locator("#species-count").inner_text() == "73 species"
    page.get_by_role("button", name="More species").focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#species-list li').length === 73")
    assert page.get_by_role("button", name="More species").count() == 0
    assert page.evaluate("document.activeElement === document.querySelectorAll('#species-list a')[60]")
    page.get_by_label("Find a species").fill("speciosa01")
    until(page, "document.querySelectorAll('#species-list li').length === 1")
    assert page.locator("#species-count").inner_text() == "1 name found"
    page.locator("#species-list a").click()
    until(page, "document.querySelectorAll('#sheets-grid li').length === 24")
    assert page.evaluate("document.activeElement.id") == "sheets-title"
    page.get_by_role("button", name="More sheets").click()
    until(page, "document.querySelectorAll('#sheets-grid li').length === 30")
    assert "30 herbarium sheets" in page.locator("#sheets-count").inner_text()
    pages.close()


def test_a_species_page_tells_how_answers_know_it(open_page) -> None:
    page = open_page(path="/#/species")
    page.wait_for_selector("#species-list li >> nth=2")
    assert page.locator("#species-list .species-facts").all_inner_texts() == [
        "Pinaceae · 0 sheets · added after training",
        "Costaceae · 3 sheets · trained with photos",
        "Pinaceae · 1 sheet · known from sheets alone",
    ]
    known = page.locator("#sheets-known")
    for name, words in (
        ("Costus", "Field photos of this species were in training"),
        ("Pinus", "no field photos of it were in training, so percentages for it are less certain"),
        ("Abies", "answers find it through its sheets alone"),
    ):
        page.get_by_role("link", name=name).click()
        known.wait_for()
        assert words in known.inner_text()
        page.get_by_role("link", name="The herbarium").click()


def test_a_species_that_no_build_has_taken_in_is_not_in_answers_yet(
    browser: "sync_api.Browser", large_port: int
) -> None:
    pages = Pages(browser, large_port)
    page = pages.open(path="/#/species/viola-1")
    page.locator("#sheets-known").wait_for()
    assert "do not know this species yet" in page.locator("#sheets-known").inner_text()
    pages.close()


def test_the_large_view_of_a_sheet_tells_its_institution_number_and_licence(open_page) -> None:
    page = open_page(path="/#/species/105951")
    page.get_by_role("button", name="CAY herbarium CAY012345: enlarge").click()
    page.locator("#viewer-facts a").wait_for()
    facts = page.locator("#viewer-facts").inner_text()
    for known in ("Institution\nCAY", "Catalogue number\nCAY012345", "Licence\nCC BY 4.0", "96 × 128 pixels"):
        assert known in facts
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").endswith("enlarge")


def test_photos_are_put_in_order_and_told_what_they_show(open_page, photo: Path, encode: Callable[..., bytes]) -> None:
    page = open_page()
    others = [photo.with_name(f"{seed}.png") for seed in (1, 2)]
    for seed, path in enumerate(others, 1):
        path.write_bytes(encode(seed, "PNG", size=(50 * seed, 50)))
    sent = record_forms(page)
    page.set_input_files("#files", [str(photo), *map(str, others)])
    widths = "[...document.querySelectorAll('#previews img')].map((image) => image.naturalWidth)"
    until(page, f"{widths}.join() === '300,50,100'")
    page.get_by_label("What photo 3 shows").select_option("Flower")
    page.get_by_role("button", name="Move photo 3 forward").focus()
    page.keyboard.press("Enter")
    until(page, f"{widths}.join() === '300,100,50'")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Move photo 2 forward"
    page.keyboard.press("Enter")
    until(page, f"{widths}.join() === '100,300,50'")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Move photo 1 back"
    assert page.get_by_label("What photo 1 shows").input_value() == "flower"
    assert page.get_by_role("button", name="Move photo 3 back").is_disabled()
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#answer:not([hidden])")
    assert [value for name, value in sent()[0] if name == "organs"] == ["flower", "auto", "auto"]
    assert "Your photo 1\nflower" in page.locator("#photo-figure figcaption").inner_text()
    assert page.evaluate("document.querySelector('#photo-figure .mount img').naturalWidth") == 100


def test_without_javascript_the_page_says_what_to_do(open_page) -> None:
    page = open_page(java_script_enabled=False)
    words = page.locator("noscript").inner_text()
    assert "This page needs JavaScript" in words
    assert "POST /v1/identifications" in words


def test_the_page_says_where_photos_are_kept(
    browser: "sync_api.Browser",
    collection_home: Home,
    serve_in_thread: Callable[..., int],
    tmp_path: Path,
) -> None:
    shutil.copytree(collection_home.root, tmp_path / "home")
    pages = Pages(browser, serve_in_thread(Home(tmp_path / "home"), keep_photos=True))
    assert "keeps the photos that are sent" in pages.open().locator(".privacy").inner_text()
    pages.close()


def test_nothing_is_lost_when_another_view_is_looked_at(open_page, photo: Path) -> None:
    page = open_page()
    identify(page, photo)
    page.get_by_role("link", name="Versions").click()
    page.locator("#versions").wait_for()
    page.get_by_role("link", name="Identify").click()
    page.locator("#answer-title").wait_for()
    assert page.locator("#previews li").count() == 1
