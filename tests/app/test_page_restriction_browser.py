"""“Only among …” in a real browser: answers restricted to genera, families and checklists."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import BROWSER_MARKS, Pages, identify, record_forms, until

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra dev)")

pytestmark = BROWSER_MARKS


@pytest.fixture(scope="module")
def port(serve_in_thread: Callable[..., int]) -> int:
    return serve_in_thread(explanations=False)


@pytest.fixture
def page(browser: "sync_api.Browser", port: int) -> Iterator["sync_api.Page"]:
    """The page, with “Only among …” unfolded."""
    pages = Pages(browser, port)
    page = pages.open()
    page.get_by_text("Only among …").click()
    yield page
    pages.close()


def choose(page: "sync_api.Page", typed: str, position: int = 1) -> None:
    page.get_by_role("combobox", name="Genus or family").fill(typed)
    page.wait_for_selector("#restrict-taxon-list [role=option]")
    for _ in range(position):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")


def type_checklist(page: "sync_api.Page", text: str) -> str:
    """Types a checklist; gives what is told of it."""
    page.get_by_label("Checklist").fill(text)
    page.locator("#restrict-found span").first.wait_for()
    return page.locator("#restrict-found").inner_text()


def fields_sent(sent: Callable[[], list[list[list[str]]]]) -> dict[str, str]:
    names = ("species_ids", "genera", "families")
    return {name: value for name, value in sent()[-1] if name in names}


def candidates(page: "sync_api.Page") -> list[str]:
    return page.locator(".candidate-name").all_inner_texts()


def test_a_family_is_chosen_with_the_keyboard_and_the_answer_says_so(page: "sync_api.Page", photo: Path) -> None:
    sent = record_forms(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "restrict-taxon"
    page.keyboard.type("pin")
    page.wait_for_selector("#restrict-taxon-list [role=option]")
    assert page.locator("#restrict-taxon-list [role=option]").all_inner_texts() == [
        "Pinaceae\nfamily, 2 species",
        "Pinus\ngenus, 1 species",
    ]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#restrict-summary").inner_text() == "Pinaceae"
    assert page.locator("#answer").is_hidden()
    identify(page, photo)
    assert fields_sent(sent) == {"families": "Pinaceae"}
    assert candidates(page) == ["Pinus sylvestris L.", "Abies × borisii-regis Mattf."]
    words = page.locator("#restricted").inner_text().replace("\u00a0", "")
    assert words.startswith("Only among family Pinaceae: the percentages are of these alone.")
    assert "25% of the probability lies with other species" in words
    # What is asked for next is another question.
    page.get_by_role("button", name="Take out family Pinaceae").click()
    assert page.locator("#answer").is_hidden()
    assert page.locator("#restrict-summary").inner_text() == "all species"
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#answer:not([hidden])")
    assert len(candidates(page)) == 3
    assert page.locator("#restricted").is_hidden()


def test_of_a_genus_and_a_family_any_will_do(page: "sync_api.Page", photo: Path) -> None:
    sent = record_forms(page)
    choose(page, "costus")
    choose(page, "pinac")
    assert page.locator("#restrict-taxa button").count() == 2
    identify(page, photo)
    assert set(fields_sent(sent)["species_ids"].split(",")) == {"105951", "12254", "a/b"}
    assert len(candidates(page)) == 3


def test_a_checklist_is_read_as_people_write_it(page: "sync_api.Page", photo: Path) -> None:
    sent = record_forms(page)
    told = type_checklist(page, "costus  arabicus\nAbies × borisii-regis Mattfeld\n\nViola alba; 12254\nRosa sp.")
    assert "3 species of this checklist can be named" in told
    assert "left out (2): Viola alba, Rosa sp." in told
    assert page.locator("#restrict-summary").inner_text() == "a checklist of 3"
    told = type_checklist(page, "Costus arabicus L., Pinus sylvestris subsp. nova")
    until(page, "document.querySelector('#restrict-found').textContent.includes('subsp. nova')")
    identify(page, photo)
    assert fields_sent(sent) == {"species_ids": "105951"}
    assert candidates(page) == ["Costus arabicus L."]
    assert "Only among a checklist of 1 species" in page.locator("#restricted").inner_text()
    choose(page, "pinaceae")
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#restrict-error:not([hidden])")
    assert "No species of the checklist is of these genera" in page.locator("#restrict-error").inner_text()
    page.get_by_role("button", name="Ask among all species again").click()
    assert page.evaluate("document.activeElement.id") == "restrict-taxon"
    assert page.get_by_label("Checklist").input_value() == ""
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#answer:not([hidden])")
    assert len(candidates(page)) == 3


def test_a_checklist_of_nothing_known_is_not_sent(page: "sync_api.Page", photo: Path) -> None:
    sent = record_forms(page)
    type_checklist(page, "Viola alba")
    page.set_input_files("#files", str(photo))
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#restrict-error:not([hidden])")
    assert "no species that answers can name" in page.locator("#restrict-error").inner_text()
    assert page.evaluate("document.activeElement.id") == "restrict-checklist"
    assert sent() == []
    assert page.get_by_role("button", name="Identify").is_enabled()


def test_that_most_lies_outside_is_told_loudly(page: "sync_api.Page", photo: Path) -> None:
    body = {
        "outcome": "species",
        "calibrated": True,
        "roll_up": {"taxon_rank": "species", "name": "Pinus sylvestris L.", "probability": 0.9, "species_count": 1},
        "prediction_set": None,
        "decision": {"source": "fusion", "reason": "So it is."},
        "probability_outside": 0.73,
        "candidates": [],
        "milliseconds": 5,
    }
    page.route("**/v1/identifications", lambda route: route.fulfill(json=body))
    choose(page, "pinus")
    identify(page, photo)
    restricted = page.locator("#restricted")
    assert "likelier another species: 73%" in restricted.inner_text().replace("\u00a0", "")
    assert "notice" in restricted.get_attribute("class")
    assert page.locator("#evidence").is_hidden()


def test_what_the_service_does_not_know_is_told_where_it_can_be_mended(page: "sync_api.Page", photo: Path) -> None:
    problem = {
        "type": "urn:voucher:problem:invalid-candidates",
        "title": "No",
        "status": 422,
        "detail": "genera: the index holds none of 'Pinus'",
    }
    page.route("**/v1/identifications", lambda route: route.fulfill(status=422, json=problem))
    choose(page, "pinus")
    page.get_by_text("Only among …").click()
    page.set_input_files("#files", str(photo))
    page.get_by_role("button", name="Identify").click()
    page.wait_for_selector("#restrict-error:not([hidden])")
    assert page.locator("#restrict-error").inner_text().startswith("the index holds none of 'Pinus'")
    assert page.evaluate("document.querySelector('#restrict').open")
    assert page.evaluate("document.activeElement.id") == "restrict-taxon"


def test_enter_takes_the_only_match_and_sends_nothing(page: "sync_api.Page", photo: Path) -> None:
    sent = record_forms(page)
    page.locator("#files").set_input_files(photo)
    page.get_by_role("combobox", name="Genus or family").fill("abies")
    until(page, "document.querySelectorAll('#restrict-taxon-list [role=option]').length === 1")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#restrict-summary').textContent === 'Abies'")
    assert sent() == []
    assert page.locator("#answer").is_hidden()


def test_a_name_that_is_typed_in_full_counts_without_being_chosen(page: "sync_api.Page", photo: Path) -> None:
    sent = record_forms(page)
    page.locator("#files").set_input_files(photo)
    page.get_by_role("combobox", name="Genus or family").fill("pinaceae")
    page.get_by_role("button", name="Identify", exact=True).click()
    page.wait_for_selector("#answer:not([hidden])")
    assert fields_sent(sent) == {"families": "Pinaceae"}
    assert page.locator("#restrict-summary").inner_text() == "Pinaceae"


def press_identify(page: "sync_api.Page") -> None:
    """Presses the button near its upper edge, and holds it."""
    button = page.get_by_role("button", name="Identify", exact=True)
    button.scroll_into_view_if_needed()
    box = button.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 4)
    page.mouse.down()


def test_what_is_pressed_does_not_move_away_when_the_field_is_left(page: "sync_api.Page", photo: Path) -> None:
    sent = record_forms(page)
    page.locator("#files").set_input_files(photo)
    taxon = page.get_by_role("combobox", name="Genus or family")
    taxon.fill("pin")
    page.wait_for_selector("#restrict-taxon-list [role=option]")  # the list of species is there
    taxon.fill("pinaceae")
    press_identify(page)
    page.wait_for_timeout(200)  # people hold a button for a tenth of a second and more
    page.mouse.up()
    page.wait_for_selector("#answer:not([hidden])")
    assert fields_sent(sent) == {"families": "Pinaceae"}


def test_what_is_pressed_does_not_move_away_when_a_checklist_is_read(page: "sync_api.Page", photo: Path) -> None:
    sent = record_forms(page)
    page.locator("#files").set_input_files(photo)
    press_identify(page)
    # Read after a pause, which would have to end just now; typing during the press is the same thing.
    page.evaluate(
        """() => {
          const checklist = document.querySelector("#restrict-checklist");
          checklist.value = "Pinus sylvestris";
          checklist.dispatchEvent(new Event("input", { bubbles: true }));
        }"""
    )
    page.wait_for_timeout(1000)
    page.mouse.up()
    page.wait_for_selector("#answer:not([hidden])")
    assert len(fields_sent(sent)["species_ids"].split(",")) == 1


def test_a_field_that_is_left_with_the_keyboard_is_read_at_once(page: "sync_api.Page") -> None:
    page.get_by_role("combobox", name="Genus or family").fill("pinaceae")
    page.keyboard.press("Tab")
    until(page, "document.querySelector('#restrict-summary').textContent === 'Pinaceae'")


def test_a_name_that_nobody_knows_is_not_passed_over(page: "sync_api.Page", photo: Path) -> None:
    sent = record_forms(page)
    page.locator("#files").set_input_files(photo)
    page.get_by_role("combobox", name="Genus or family").fill("zzz")
    until(page, "document.querySelector('.combobox-status:not(.visually-hidden)')?.textContent === 'Nothing found'")
    page.get_by_role("button", name="Identify", exact=True).click()
    until(page, "document.querySelector('#restrict-error').textContent.includes('“zzz” is no genus or family')")
    assert page.evaluate("document.activeElement.id") == "restrict-taxon"
    assert sent() == []
