"""The views of curators in a real browser: sheets that come, go and move, builds and versions."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import BROWSER_MARKS, DESKTOP, OVERFLOW, PHONE, Pages, assert_sound, until
from tests_support import picture_bytes

from app.bundle_watch import load_serving
from indexer.build_gallery import build
from indexer.worker import Worker
from models.catalogue import Catalogue
from models.compute import Compute
from models.curation import Curator, NewSheet
from models.home import Home
from models.taxonomy import SpeciesId

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra dev)")

pytestmark = BROWSER_MARKS

COSTUS, PINUS = SpeciesId("105951"), SpeciesId("12254")

FOCUSED = "document.activeElement.id"


@pytest.fixture
def collection(collection_home: Home, tmp_path: Path) -> Home:
    """A copy of the small collection that a test may change."""
    shutil.copytree(collection_home.root, tmp_path / "collection")
    return Home(tmp_path / "collection")


@pytest.fixture
def port(collection: Home, serve_in_thread: Callable[..., int]) -> int:
    return serve_in_thread(collection)


@pytest.fixture
def pages(browser: "sync_api.Browser", port: int) -> Iterator[Pages]:
    opened = Pages(browser, port)
    yield opened
    # What the tests cut off or refuse by themselves is told in the console too.
    opened.close(lambda text: "net::ERR_FAILED" in text or "status of 503" in text)


@pytest.fixture
def sheet(encode: Callable[..., bytes], tmp_path: Path) -> Callable[[int], Path]:
    """A file with the image of a sheet, another one for each seed."""

    def write(seed: int) -> Path:
        path = tmp_path / f"sheet-{seed}.jpg"
        path.write_bytes(encode(seed, size=(300, 400)))
        return path

    return write


def sheets_of(home: Home, species_id: SpeciesId) -> list[Any]:
    with Catalogue.open(home) as catalogue:
        return list(catalogue.sheets(species_id))


def choose_species(page: "sync_api.Page", typed: str, field: str = "curate-species") -> None:
    page.locator(f"#{field}").fill(typed)
    page.wait_for_selector(f"#{field}-list [role=option]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")


def add(page: "sync_api.Page", *files: Path, typed: str = "costus") -> None:
    page.set_input_files("#curate-files", [str(file) for file in files])
    if not page.locator("#curate-species").input_value():
        choose_species(page, typed)
    page.get_by_role("button", name="Add to the collection").click()
    until(page, "document.querySelector('#curate-cancel').hidden && !document.querySelector('#curate-submit').hidden")


def outcomes(page: "sync_api.Page") -> list[str]:
    return page.locator("#curate-outcome-list b").all_inner_texts()


def test_sheets_are_added_with_the_keyboard_alone(pages: Pages, collection: Home, sheet: Callable[[int], Path]) -> None:
    page = pages.open(path="/#/curate")
    page.locator("#curate-files").focus()
    page.set_input_files("#curate-files", [str(sheet(21)), str(sheet(22))])
    for _ in range(20):
        if page.evaluate(FOCUSED) == "curate-species":
            break
        page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED) == "curate-species"
    page.keyboard.type("pin")
    page.wait_for_selector("#curate-species-list [role=option]")
    box = page.get_by_role("combobox", name="Species")
    assert box.get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    chosen = page.locator(f"#{box.get_attribute('aria-activedescendant')}")
    assert chosen.get_attribute("aria-selected") == "true"
    assert "Abies × borisii-regis" in chosen.inner_text()  # its family is Pinaceae
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert box.input_value() == "Pinus sylvestris L."
    assert box.get_attribute("aria-expanded") == "false"
    for text in ("CAY", "herbarium", "CAY77", "CC BY 4.0", "The garden", "Maria G."):
        page.keyboard.press("Tab")
        page.keyboard.type(text)
    page.keyboard.press("Enter")
    until(page, "document.activeElement.id === 'curate-outcomes-title'")
    assert outcomes(page) == ["Added", "Added"]
    assert page.locator("#curate-status").inner_text() == "2 sheets added"
    added = [s for s in sheets_of(collection, PINUS) if s.specimen.catalog_number == "CAY77"]
    assert [(s.specimen.institution_code, s.license, s.rights_holder) for s in added] == [
        ("CAY", "CC BY 4.0", "The garden")
    ] * 2
    assert added[0].specimen_key == added[1].specimen_key
    with Catalogue.open(collection) as catalogue:
        assert catalogue.revisions()[-1].actor == "Maria G."
    # What the next sheet has in common stays, its number goes; the name is known to the browser.
    assert page.locator("#curate-institution_code").input_value() == "CAY"
    assert page.locator("#curate-catalog_number").input_value() == ""
    page.reload()
    assert page.locator("#curate-species").input_value() == "Pinus sylvestris L."
    assert page.locator("#curate-rights_holder").input_value() == "The garden"
    assert page.locator("#curate-curator").input_value() == "Maria G."


def test_the_list_of_species_follows_the_keys_and_a_name_typed_in_full_is_enough(pages: Pages) -> None:
    page = pages.open(path="/#/curate")
    box = page.get_by_role("combobox", name="Species")
    box.focus()
    page.keyboard.press("ArrowDown")  # opens the list without a word typed
    page.wait_for_selector("#curate-species-list [role=option] >> nth=2")
    page.keyboard.press("ArrowUp")  # from the field to the last
    assert "Pinus" in page.locator("[role=option][aria-selected=true]").inner_text()
    page.keyboard.press("ArrowDown")  # and back into the field
    assert box.get_attribute("aria-activedescendant") is None
    page.keyboard.press("Escape")
    assert page.locator("#curate-species-list").is_hidden()
    box.fill("nothing like it")
    page.wait_for_selector("#curate-species-list [role=option]")
    assert page.locator("#curate-species-list [role=option]").all_inner_texts() == [
        "A species that is not here yet: nothing like it"
    ]
    box.fill("costus arabicus l.")
    page.keyboard.press("Tab")
    until(page, "document.querySelector('#curate-species').value === 'Costus arabicus L.'")


def test_a_species_that_is_not_here_yet_is_entered_with_its_sheets(
    pages: Pages, collection: Home, sheet: Callable[[int], Path]
) -> None:
    page = pages.open(path="/#/curate")
    page.set_input_files("#curate-files", [str(sheet(31)), str(sheet(32))])
    choose_species(page, "Viola odorata L.")
    assert page.locator("#curate-new").is_checked()
    assert page.evaluate(FOCUSED) == "curate-scientific_name"
    assert page.locator("#curate-scientific_name").input_value() == "Viola odorata L."
    assert page.locator("#curate-genus").input_value() == "Viola"
    page.get_by_role("button", name="Add to the collection").click()
    assert page.locator("#curate-family-error").inner_text() == "Give its family."
    assert page.evaluate(FOCUSED) == "curate-family"
    page.keyboard.type("Violaceae")
    page.keyboard.press("Enter")
    page.wait_for_selector("#curate-outcome-list li >> nth=1")
    assert outcomes(page) == ["Added", "Added"]
    with Catalogue.open(collection) as catalogue:
        (found,) = [s for s in catalogue.species() if s.scientific_name == "Viola odorata L."]
        assert (found.genus, found.family) == ("Viola", "Violaceae")
        assert len(list(catalogue.sheets(found.species_id))) == 2
    # From its first sheet on it is one of the collection.
    assert page.locator("#curate-known").is_checked()
    assert page.locator("#curate-species").input_value() == "Viola odorata L."
    page.locator("#curate-outcome-list a").first.click()
    page.wait_for_selector("#sheets-grid li >> nth=1")
    assert page.locator("#sheets-title").inner_text() == "Viola odorata L."
    assert "2 herbarium sheets" in page.locator("#sheets-count").inner_text()


def test_the_outcome_of_each_sheet_is_told(pages: Pages, collection: Home, sheet: Callable[[int], Path]) -> None:
    page = pages.open(path="/#/curate")
    add(page, sheet(41))
    add(page, sheet(41), sheet(42))
    assert outcomes(page) == ["Was here already", "Added"]
    with Catalogue.open(collection) as catalogue:
        ids = [s.sheet_id for s in catalogue.sheets(COSTUS)]
        Curator(catalogue, "Ada").remove(ids)
    add(page, sheet(41))
    assert outcomes(page) == ["Restored: it had been removed"]


def test_a_sheet_that_is_refused_stays_with_the_reason_and_keeps_no_other_out(
    pages: Pages, collection: Home, sheet: Callable[[int], Path], tmp_path: Path
) -> None:
    page = pages.open(path="/#/curate")
    add(page, sheet(51))
    disguised = tmp_path / "disguised.jpg"
    disguised.write_text("<svg/>")
    page.locator("#curate-species").fill("")
    page.locator("#curate-catalog_number").fill("X 9")
    add(page, sheet(51), disguised, sheet(52), typed="sylvestris")
    assert outcomes(page) == ["Added"]
    assert len(sheets_of(collection, PINUS)) == 2
    conflict, unreadable = page.locator("#curate-previews .preview-note").all_inner_texts()
    assert conflict.startswith("The image is in the catalogue as sheet")
    assert "105951" in conflict
    assert "JPEG, PNG, WebP or TIFF" in unreadable
    assert "disguised" not in unreadable
    assert page.locator("#curate-status").inner_text() == "1 sheet added, 2 sheets not added"
    assert page.locator("#curate-catalog_number").input_value() == "X 9"
    assert page.evaluate(FOCUSED) == "curate-submit"
    page.get_by_role("button", name="Remove sheet 2").click()
    assert page.locator("#curate-previews li").count() == 1


def test_what_is_missing_or_wrong_is_told_at_its_field_and_nothing_is_lost(
    pages: Pages, collection: Home, sheet: Callable[[int], Path]
) -> None:
    page = pages.open(path="/#/curate")
    page.get_by_role("button", name="Add to the collection").click()
    assert page.locator("#curate-files-error").inner_text() == "Choose at least one sheet."
    assert page.locator("#curate-species-error").inner_text() == "Choose a species from the list."
    assert page.evaluate(FOCUSED) == "curate-files"
    page.set_input_files("#curate-files", str(sheet(61)))
    assert page.locator("#curate-files-error").is_hidden()
    choose_species(page, "costus")
    assert page.locator("#curate-species-error").is_hidden()
    page.locator("#curate-rights_holder").fill("a\u202eb")
    page.get_by_role("button", name="Add to the collection").click()
    page.wait_for_selector("#curate-rights_holder-error:not([hidden])")
    assert "control characters" in page.locator("#curate-rights_holder-error").inner_text()
    field = page.get_by_label("Rights holder")
    assert field.get_attribute("aria-invalid") == "true"
    assert page.evaluate(FOCUSED) == "curate-rights_holder"
    assert page.locator("#curate-previews li").count() == 1
    page.locator("#curate-new").check()
    page.locator("#curate-scientific_name").fill("Costus arabicus L.")
    page.locator("#curate-scientific_name").press("Tab")
    page.locator("#curate-family").fill("Costaceae")
    page.locator("#curate-species_id").fill("another")
    page.locator("#curate-rights_holder").fill("B")
    page.get_by_role("button", name="Add to the collection").click()
    page.wait_for_selector("#curate-scientific_name-error:not([hidden])")
    assert "105951" in page.locator("#curate-scientific_name-error").inner_text()
    assert page.locator("#curate-species_id").input_value() == "another"
    assert len(sheets_of(collection, COSTUS)) == 3


def test_an_upload_that_breaks_off_or_is_stopped_keeps_the_sheets(
    pages: Pages, collection: Home, sheet: Callable[[int], Path]
) -> None:
    page = pages.open(path="/#/curate")
    page.route("**/v1/sheets", lambda route: route.abort())
    add(page, sheet(71), sheet(72))
    assert "cannot be reached" in page.locator("#curate-error").inner_text()
    assert page.locator("#curate-previews li").count() == 2
    page.unroute("**/v1/sheets")
    held = []
    page.route("**/v1/sheets", lambda route: held.append(route))  # the answer does not come
    page.get_by_role("button", name="Add to the collection").click()
    assert page.evaluate(FOCUSED) == "curate-cancel"
    page.keyboard.press("Enter")
    page.wait_for_selector("#curate-error:not([hidden])")
    assert "Stopped." in page.locator("#curate-error").inner_text()
    page.unroute("**/v1/sheets")
    page.get_by_role("button", name="Add to the collection").click()
    page.wait_for_selector("#curate-outcome-list li >> nth=1")
    assert len(sheets_of(collection, COSTUS)) == 5


def test_sheets_are_taken_by_the_view_that_is_open(pages: Pages, sheet: Callable[[int], Path]) -> None:
    page = pages.open(path="/#/curate")
    paste = """() => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array([1, 2])], "pasted", { type: "image/jpeg" }));
      document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(paste)
    counts = "[...document.querySelectorAll('.previews')].map((list) => list.children.length)"
    assert page.evaluate(counts) == [0, 1]
    page.get_by_role("link", name="Identify").click()
    page.evaluate(paste)
    assert page.evaluate(counts) == [1, 1]


def test_a_sheet_is_removed_and_brought_back(pages: Pages, collection: Home) -> None:
    page = pages.open(path="/#/species/105951")
    page.wait_for_selector("#sheets-grid li >> nth=2")
    page.get_by_role("button", name="Remove CAY herbarium CAY012345").click()
    dialog = page.get_by_role("dialog", name="Remove this sheet?")
    assert "Answers still name it until the next build" in dialog.inner_text()
    assert page.evaluate(FOCUSED) == "ask-no"
    dialog.get_by_label("Your name").fill("Maria G.")
    dialog.get_by_role("button", name="Remove it").click()
    page.wait_for_selector("#sheets-grid .gone")
    assert len(sheets_of(collection, COSTUS)) == 2
    assert "was removed" in page.locator("#toast-words").inner_text()
    assert page.evaluate(FOCUSED) == "toast-undo"
    until(page, "document.querySelector('#sheets-count').textContent.startsWith('2 herbarium')")
    page.keyboard.press("Enter")
    until(page, "!document.querySelector('#sheets-grid .gone')")
    assert page.locator("#toast").is_hidden()
    assert len(sheets_of(collection, COSTUS)) == 3
    with Catalogue.open(collection) as catalogue:
        assert [r.actor for r in catalogue.revisions()[-2:]] == ["Maria G.", "Maria G."]


def test_removed_sheets_are_listed_and_restored(pages: Pages, collection: Home) -> None:
    with Catalogue.open(collection) as catalogue:
        first, second, _ = catalogue.sheets(COSTUS)
        Curator(catalogue, "Ada").remove([first.sheet_id, second.sheet_id])
    page = pages.open(path="/#/species/105951")
    page.get_by_role("link", name="Removed sheets of this species").click()
    page.wait_for_selector("#sheets-grid li >> nth=1")
    assert page.locator("#sheets-title").inner_text() == "Removed sheets of Costus arabicus L."
    page.get_by_role("button", name="Restore").first.click()
    until(page, "document.querySelectorAll('#sheets-grid .gone').length === 1")
    assert first.sheet_id in [s.sheet_id for s in sheets_of(collection, COSTUS)]
    page.get_by_role("link", name="Back to its sheets").click()
    until(page, "document.querySelector('#sheets-count').textContent.startsWith('2 herbarium')")


def test_a_sheet_is_moved_from_the_large_view_with_its_specimen(pages: Pages, collection: Home) -> None:
    with Catalogue.open(collection) as catalogue:
        known = next(s for s in catalogue.sheets(COSTUS) if s.specimen.institution_code == "CAY")
        (other,) = Curator(catalogue, "Ada").add([NewSheet(picture_bytes(3), COSTUS, known.specimen)])
    page = pages.open(path="/#/species/105951")
    page.locator(f"[data-sheet-id='{known.sheet_id}'] .mount").click()
    viewer = page.locator("#viewer")
    viewer.get_by_text("Move …").click()
    dialog = page.get_by_role("dialog", name="Move to another species")
    dialog.wait_for()
    assert viewer.get_attribute("open") is None
    dialog.get_by_role("button", name="Move it").click()
    assert "Choose a species" in dialog.get_by_role("alert").inner_text()
    choose_species(page, "sylv", "ask-species")
    dialog.get_by_role("button", name="Move it").click()
    until(page, "document.querySelectorAll('#sheets-grid .gone').length === 2")
    assert "with 1 other sheet of its specimen" in page.locator("#toast-words").inner_text()
    assert "Moved to Pinus sylvestris L." in page.locator("#sheets-grid .gone").first.inner_text()
    assert {known.sheet_id, other.sheet.sheet_id} <= {s.sheet_id for s in sheets_of(collection, PINUS)}
    page.get_by_role("button", name="Undo").click()
    until(page, "document.querySelectorAll('#sheets-grid .gone').length === 0")
    assert len(sheets_of(collection, COSTUS)) == 4


def test_escape_leaves_the_list_then_the_question(pages: Pages, collection: Home) -> None:
    page = pages.open(path="/#/species/105951")
    page.get_by_role("button", name="Move CAY herbarium CAY012345 to").click()
    page.wait_for_selector("#ask[open]")
    page.locator("#ask-species").fill("pin")
    page.wait_for_selector("#ask-species-list [role=option]")
    page.keyboard.press("Escape")
    assert page.locator("#ask").get_attribute("open") is not None
    page.keyboard.press("Escape")
    assert page.locator("#ask").get_attribute("open") is None
    assert len(sheets_of(collection, COSTUS)) == 3


def test_a_change_that_is_refused_is_told_in_the_question(pages: Pages, collection: Home) -> None:
    page = pages.open(path="/#/species/105951")
    page.get_by_role("button", name="Remove CAY herbarium CAY012345").click()
    page.locator("#ask-curator").fill("a\u202eb")
    page.locator("#ask-yes").click()
    page.wait_for_selector("#ask-error:not([hidden])")
    assert "control characters" in page.locator("#ask-error").inner_text()
    assert page.locator("#ask").get_attribute("open") is not None
    assert len(sheets_of(collection, COSTUS)) == 3


def test_a_build_is_asked_for_and_cancelled_while_it_waits(pages: Pages) -> None:
    page = pages.open(path="/#/curate")
    until(page, "document.querySelector('#build-words').textContent === '4 changes are not in the index yet.'")
    page.get_by_role("button", name="Build now").click()
    until(page, "document.querySelector('#build-words').textContent.startsWith('The build waits for its turn')")
    assert page.evaluate(FOCUSED) == "build-cancel"
    # Another view, and a page that was just opened, find the same build.
    page.get_by_role("link", name="Versions").first.click()
    page.wait_for_selector("#versions #build-running:not([hidden])")
    page.reload()
    page.wait_for_selector("#versions #build-running:not([hidden])")
    page.get_by_role("button", name="Cancel the build").click()
    until(page, "document.querySelector('#build-words').textContent.startsWith('The build was cancelled. 4 changes')")
    assert page.get_by_role("button", name="Build now").is_visible()


def job(state: str, **changed: Any) -> dict[str, Any]:
    times = {"created_at": "2026-05-03T10:00:00Z", "started_at": None, "finished_at": None}
    empty = {"progress": None, "result": None, "reason": None}
    return {
        "job_id": "build-1",
        "kind": "build-index",
        "state": state,
        "requested_by": "Maria",
        **times,
        **empty,
    } | changed


RUNNING = job(
    "running",
    progress={"stage": "sheets", "done": 40, "total": 100, "per_second": 4.0, "seconds_left": 15.0},
)


def stand_in(page: "sync_api.Page", path: str, *bodies: dict[str, Any]) -> None:
    """Answers requests for `path` with these bodies in turn, then on with the last."""
    left = list(bodies)

    def answer(route: "sync_api.Route") -> None:
        route.fulfill(json=left.pop(0) if len(left) > 1 else left[0])

    page.route(path, answer)


def test_progress_is_told_by_events_and_by_asking_where_they_fail(pages: Pages) -> None:
    page = pages.open()
    event = f"event: job\ndata: {json.dumps(RUNNING)}\n\n"
    page.route("**/v1/jobs/build-1/events", lambda r: r.fulfill(content_type="text/event-stream", body=event))
    stand_in(page, "**/v1/jobs?limit=20", {"jobs": [job("queued")]}, {"jobs": [RUNNING]})
    reason = "top-1 fell from 60.0 to 40.0 %; see `voucher bundles show`"
    done = {"bundle_id": "index-2", "added": 2, "removed": 1, "moved": 0, "activated": False, "held_back": reason}
    # The stream has ended after one event, so the page asks.
    halfway = {**RUNNING, "progress": {**RUNNING["progress"], "done": 80, "seconds_left": 5.0}}
    stand_in(page, "**/v1/jobs/build-1", RUNNING, halfway, job("succeeded", result=done))
    page.get_by_role("link", name="Curate").click()
    until(page, "document.querySelector('#build-left').textContent === '40 of 100, 15 seconds left'")
    assert page.locator("#build-stage").inner_text() == "Sheets"
    assert page.evaluate("document.querySelector('#build-progress').value") == pytest.approx(0.4)
    assert "A build for Maria is under way" in page.locator("#build-words").inner_text()
    until(page, "document.querySelector('#build-left').textContent === '80 of 100, 5 seconds left'")
    until(page, "document.querySelector('#build-words').textContent.startsWith('Built (')")
    words = page.locator("#build-words").inner_text()
    assert words == (
        "Built (2 sheets added, 1 removed), and not put into service: "
        "top-1 fell from 60.0 to 40.0 %; see voucher bundles show."
    )
    assert page.get_by_role("link", name="See the versions").is_visible()


def test_a_build_that_fails_says_why_and_can_be_asked_for_again(pages: Pages) -> None:
    page = pages.open()
    failed = job(
        "failed", reason="there is no trained model; run `voucher train` first", finished_at="2026-05-03T10:01:00Z"
    )
    page.route("**/v1/jobs/build-1/events", lambda route: route.fulfill(status=503, body=""))
    stand_in(page, "**/v1/jobs?limit=20", {"jobs": [RUNNING]}, {"jobs": [failed]})
    stand_in(page, "**/v1/jobs/build-1", failed)
    page.get_by_role("link", name="Curate").click()
    page.wait_for_selector("#build-error:not([hidden])")
    error = page.locator("#build-error").inner_text()
    assert error.startswith("The build of 3 May 2026")
    assert error.endswith("failed: there is no trained model; run voucher train first")
    assert page.get_by_role("button", name="Build now").is_visible()


@pytest.fixture
def living_home(tiny_home: Home) -> Iterator[Home]:
    """The tiny home with a worker that builds."""
    worker, ready = Worker(tiny_home, device="cpu"), threading.Event()
    thread = threading.Thread(target=worker.run, args=(lambda _: ready.set(),))
    thread.start()
    assert ready.wait(30)
    yield tiny_home
    worker.stop.set()
    thread.join(30)


def test_a_sheet_goes_into_service_and_the_version_before_comes_back(
    browser: "sync_api.Browser", living_home: Home, serve_in_thread: Callable[..., int], sheet: Callable[[int], Path]
) -> None:
    pages = Pages(browser, serve_in_thread(living_home, load_serving, device="cpu", worker=False))
    page = pages.open(path="/#/curate")
    until(page, "document.querySelector('#build-words').textContent === 'Everything that was changed is in the index.'")
    before = page.locator("#bundle").inner_text()
    page.locator("#curate-new").check()
    page.locator("#curate-scientific_name").fill("Viola odorata L.")
    page.locator("#curate-genus").fill("Viola")
    page.locator("#curate-family").fill("Violaceae")
    page.locator("#curate-curator").fill("Maria G.")
    page.set_input_files("#curate-files", [str(sheet(81)), str(sheet(82))])
    page.get_by_role("button", name="Add to the collection").click()
    until(page, "document.querySelector('#build-words').textContent === '2 changes are not in the index yet.'")
    page.get_by_role("button", name="Build now").click()
    until(page, "document.querySelector('#build-words').textContent === 'In service: 2 sheets added.'")
    after = page.locator("#bundle").inner_text()
    assert after != before
    page.get_by_role("link", name="See the versions").click()
    page.wait_for_selector("#versions-list .version >> nth=1")
    latest, first = page.locator("#versions-list .version").all()
    assert "In service" in latest.inner_text()
    assert "built by Maria G." in latest.inner_text()
    assert "+2 −0 ↔0" in latest.inner_text()
    assert "photos" in latest.locator("dd").nth(3).inner_text()
    assert "built from nothing" in first.inner_text()
    latest.locator("summary").click()
    latest.locator("tbody tr").wait_for()
    assert latest.locator("tbody tr").all_inner_texts() == ["Viola odorata L.New\t2\t–\t–\t–"]
    assert "Maria G. added 2 sheets" in latest.locator(".recent-list").inner_text()
    # The list is asked for anew all the time; what is unfolded stays so.
    with page.expect_response("**/v1/bundles"):
        pass
    page.wait_for_timeout(200)
    assert latest.locator("tbody tr").count() == 1

    first.get_by_role("button", name="Go back to this version").click()
    dialog = page.get_by_role("dialog", name="Go back to this version?")
    assert "nothing is deleted" in dialog.inner_text()
    dialog.get_by_role("button", name="Go back to this version").click()
    until(page, "document.querySelector('#versions-status').textContent.endsWith('is in service.')")
    assert page.locator("#bundle").inner_text() == before
    until(page, "document.querySelectorAll('.version')[1].textContent.includes('In service')")
    assert page.get_by_role("button", name="Serve this version").count() == 1
    pages.close()


def test_versions_say_what_is_damaged_or_held_back_and_what_the_service_makes_of_it(
    browser: "sync_api.Browser", tiny_home: Home, serve_in_thread: Callable[..., int]
) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        species = next(catalogue.sheets()).species_id
        compute = Compute.resolve("cpu", precision="float32")
        made = []
        for seed in (9, 10):
            Curator(catalogue, "Ada").add([NewSheet(picture_bytes(seed), species)])
            made.append(build(tiny_home, catalogue, compute, activate_it=False).bundle_id)
    held, damaged = made
    next((tiny_home.indexes / damaged).glob("*.json")).unlink()
    pages = Pages(browser, serve_in_thread(tiny_home, load_serving, device="cpu", worker=False))
    page = pages.open(path="/#/")

    def hold_back(route: "sync_api.Route") -> None:
        body = route.fetch().json()
        for bundle in body["bundles"]:
            bundle["held_back"] = "it fell; see `voucher bundles show`" if bundle["bundle_id"] == held else None
        route.fulfill(json=body)

    page.route("**/v1/bundles", hold_back)
    page.get_by_role("link", name="Versions").click()
    page.wait_for_selector("#versions-list .version >> nth=2")
    broken, kept = (page.locator(f".version[aria-labelledby='version-{bundle_id}']") for bundle_id in (damaged, held))
    assert "Damaged" in broken.inner_text()
    assert "It cannot be served" in broken.inner_text()
    assert broken.get_by_role("button").count() == 0
    assert "Held back" in kept.inner_text()
    assert "It was not put into service by itself: it fell; see voucher bundles show." in kept.inner_text()
    kept.get_by_role("button", name="Serve this version").click()
    assert "It was held back: it fell" in page.get_by_role("dialog", name="Serve this version?").inner_text()
    page.keyboard.press("Escape")
    ready = {"status": "ready", "bundle_id": "x", "model_id": "m", "species_count": 3, "complaint": "no space left"}
    page.route("**/readyz", lambda route: route.fulfill(json=ready))
    page.wait_for_selector("#versions-complaint:not([hidden])")
    complaint = page.locator("#versions-complaint").inner_text()
    assert complaint.endswith("cannot be served; the one before goes on answering. no space left")
    pages.close()


def test_without_leave_everything_can_be_looked_at_and_nothing_changed(
    browser: "sync_api.Browser", collection: Home, serve_in_thread: Callable[..., int]
) -> None:
    pages = Pages(browser, serve_in_thread(collection, host="0.0.0.0", access="open"))
    page = pages.open(path="/#/curate")
    page.wait_for_selector("#curate [data-curation-off]:not([hidden])")
    notice = page.locator("#curate [data-curation-off]").inner_text()
    assert "the service listens for other machines without asking for keys" in notice
    assert "VOUCHER_ACCESS=keys" in notice
    assert "a curator's key" in notice
    assert page.get_by_role("button", name="Add to the collection").is_disabled()
    assert page.locator("#curate-species").is_disabled()
    until(page, "document.querySelector('#build-words').textContent.startsWith('4 changes')")
    assert page.get_by_role("button", name="Build now").count() == 0
    page.get_by_role("link", name="Versions").first.click()
    words = page.locator("#versions [data-curation-off]")
    words.wait_for()
    assert "you can look at everything" in words.inner_text().lower()
    page.evaluate("location.hash = '#/species/105951'")
    page.wait_for_selector("#sheets-grid li >> nth=2")
    assert page.get_by_role("button", name="Remove CAY").count() == 0
    assert page.get_by_role("link", name="Removed sheets").count() == 0
    pages.close()


def test_leave_that_was_taken_back_meanwhile_is_told(
    pages: Pages, collection: Home, sheet: Callable[[int], Path]
) -> None:
    page = pages.open(path="/#/curate")
    detail = "curation is off: the request came through a proxy; serve with VOUCHER_ACCESS=keys"
    problem = {"type": "urn:voucher:problem:curation-off", "title": "No", "status": 403, "detail": detail}
    page.route("**/v1/sheets", lambda route: route.fulfill(status=403, json=problem))
    page.locator("#curate-institution_code").fill("CAY")
    add(page, sheet(91))
    assert "came through a proxy" in page.locator("#curate [data-curation-off]").inner_text()
    assert page.locator("#curate-institution_code").input_value() == "CAY"
    assert page.locator("#curate-previews li").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_views_of_curators_without_scrolling_sideways(
    pages: Pages, collection: Home, sheet: Callable[[int], Path], scheme: str
) -> None:
    page = pages.open(PHONE, path="/#/curate", has_touch=True, is_mobile=True, color_scheme=scheme)
    page.wait_for_selector("#recent-list li")
    assert page.evaluate(OVERFLOW) <= 0
    page.locator("#curate-new").check()
    page.locator("#curate-known").check()
    page.set_input_files("#curate-files", [str(sheet(seed)) for seed in (1, 2, 3, 4)])
    page.locator("#curate-species").fill("s")
    page.wait_for_selector("#curate-species-list [role=option]")
    assert page.evaluate(OVERFLOW) <= 0
    page.locator("#curate-species-list [role=option]").first.tap()
    page.get_by_role("button", name="Add to the collection").tap()
    until(page, "document.querySelector('#curate-cancel').hidden")
    assert page.evaluate(OVERFLOW) <= 0
    page.evaluate("location.hash = '#/species/105951'")
    page.wait_for_selector("#sheets-grid li >> nth=2")
    page.get_by_text("Remove", exact=True).first.tap()
    assert page.evaluate(OVERFLOW) <= 0
    page.get_by_role("button", name="Remove it").tap()
    page.wait_for_selector("#toast:not([hidden])")
    assert page.evaluate(OVERFLOW) <= 0
    box = page.locator("#toast").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]


@pytest.mark.parametrize(("viewport", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")])
def test_no_view_breaks_the_rules_of_accessibility_or_is_wider_than_the_window(
    browser: "sync_api.Browser",
    tiny_home: Home,
    serve_in_thread: Callable[..., int],
    sheet: Callable[[int], Path],
    viewport: dict[str, int],
    scheme: str,
) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        species = next(catalogue.sheets()).species_id
        Curator(catalogue, "Ada").add([NewSheet(picture_bytes(9), species)])
        build(tiny_home, catalogue, Compute.resolve("cpu", precision="float32"))
    pages = Pages(browser, serve_in_thread(tiny_home, load_serving, device="cpu", worker=False))
    page = pages.open(viewport, path="/#/versions", color_scheme=scheme)

    page.locator(".version summary").first.click()
    page.locator(".changes select").select_option(index=1)
    page.wait_for_selector(".changes-result tbody tr")
    assert_sound(page)
    page.evaluate("location.hash = '#/curate'")
    page.wait_for_selector("#recent-list li")
    page.get_by_role("button", name="Add to the collection").click()  # with what is missing, told
    assert_sound(page)
    page.locator("#curate-new").check()
    assert_sound(page)
    page.locator("#curate-known").check()
    page.set_input_files("#curate-files", str(sheet(1)))
    page.locator("#curate-species").fill("a")
    page.wait_for_selector("#curate-species-list [role=option]")
    page.keyboard.press("ArrowDown")
    assert_sound(page)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Add to the collection").click()
    page.wait_for_selector("#curate-outcome-list li")
    assert_sound(page)
    page.get_by_role("button", name="Build now").click()
    page.wait_for_selector("#build-running:not([hidden])")
    assert_sound(page)
    page.evaluate("location.hash = '#/species'")
    page.wait_for_selector("#species-list a")
    page.locator("#species-list a").first.click()
    page.wait_for_selector("#sheets-grid li")
    assert_sound(page)
    page.get_by_text("Move …").first.click()
    page.wait_for_selector("#ask[open]")
    assert_sound(page)
    page.keyboard.press("Escape")
    page.get_by_text("Remove", exact=True).first.click()
    page.get_by_role("button", name="Remove it").click()
    page.wait_for_selector("#sheets-grid .gone")
    assert_sound(page)
    pages.close()
