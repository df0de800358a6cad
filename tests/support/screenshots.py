"""Takes the README's pictures of the page, of the invented flora alone.

Run `make demo` first, then from the root of the repository:

    .venv/bin/python tests/support/screenshots.py --home HOME_OF_THE_DEMO --species SPECIES_ID

The home is copied; what the pictures show of curators is done to the copy.
"""

import argparse
import csv
import io
import queue
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from browser import running_browser, until
from PIL import Image, ImageOps

from app.serve import build_server
from app.settings import Settings
from indexer.build_gallery import build
from models.catalogue import Catalogue
from models.compute import Compute
from models.curation import Curator, NewSheet, NewSpecies
from models.home import Home
from models.specimens import Specimen

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DESKTOP = {"width": 1120, "height": 900}
PHONE = {"width": 360, "height": 740}
COLOURS = 256
QUALITY = 82
NEW_SPECIES = NewSpecies("Umbravella fabulosa", "Umbravella", "Umbravellaceae", "umbravella-fabulosa")


def main() -> None:
    parser = argparse.ArgumentParser(description="Takes the README's pictures of the page.")
    parser.add_argument("--home", type=Path, required=True, help="where `make demo` has left a trained network")
    parser.add_argument("--species", required=True, help="whose test photos are asked about")
    parser.add_argument("--to", type=Path, default=Path("docs/images"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        shutil.copytree(asked.home, home.root)
        photos = test_photos(home.root / "flora", asked.species)[:2]
        other = next(each for each in sorted((home.root / "flora" / "sheet").iterdir()) if each.name != asked.species)
        curate(home, sorted(other.iterdir()))
        with serving(home) as address, running_browser() as browser:
            take_all(browser, address, photos, asked.to)


def test_photos(flora: Path, species_id: str) -> list[Path]:
    """Photos of a species that training has not seen."""
    with (flora / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["species_id"] == species_id and row["split"] == "test"]
    return [flora / row["path"] for row in rows if row["path"].startswith("field/")]


def curate(home: Home, sheets: list[Path]) -> None:
    """A new species from mirrored sheets, a few corrections, a build of each, and changes that no build has seen."""
    mirrored = [mirror(path) for path in sheets[:7]]
    compute = Compute.resolve("cpu", precision="float32")
    with Catalogue.open(home) as catalogue:
        maria, okafor = Curator(catalogue, "Maria Gombos"), Curator(catalogue, "J. Okafor")
        details = {"license": "CC BY 4.0", "rights_holder": "Garden of Inventions"}
        maria.add(
            [
                NewSheet(image, NEW_SPECIES, Specimen("DEMO", None, f"U{n}"), **details)
                for n, image in enumerate(mirrored[:4])
            ]
        )
        build(home, catalogue, compute, built_by="Maria Gombos")
        first, second, *_ = (species.species_id for species in catalogue.species())
        okafor.remove([sheet.sheet_id for sheet in list(catalogue.sheets(first))[:2]])
        okafor.move(next(catalogue.sheets(first)).sheet_id, second)
        build(home, catalogue, compute, built_by="J. Okafor")
        maria.add([NewSheet(image, second, Specimen("DEMO", None, f"V{n}")) for n, image in enumerate(mirrored[4:])])


def mirror(path: Path) -> bytes:
    packed = io.BytesIO()
    with Image.open(path) as image:
        ImageOps.mirror(image).save(packed, "PNG")
    return packed.getvalue()


@contextmanager
def serving(home: Home) -> Iterator[str]:
    """Address of a service over `home`."""
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
    server = build_server(Settings(home=home.root, port=0, device="cpu", worker=False), addresses.put)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield addresses.get(timeout=120)
    finally:
        server.should_exit = True
        thread.join(30)


def take_all(browser: "Browser", address: str, photos: list[Path], to: Path) -> None:
    def open_page(viewport: dict[str, int], **options: object) -> "Page":
        context = browser.new_context(viewport=viewport, locale="en-GB", reduced_motion="reduce", **options)
        page = context.new_page()
        page.goto(address)
        return page

    page = open_page(DESKTOP)
    identify(page, photos)
    page.evaluate("document.activeElement.blur()")
    keep(page, to / "page.jpg")
    page.goto(f"{address}#/curate")
    fill_form(page, photos[0].parents[2] / "sheet" / photos[0].parent.name)
    keep(page, to / "curator.png")
    page.goto(f"{address}#/versions")
    page.locator(".version summary").nth(1).click()
    page.wait_for_selector(".changes-result tbody tr")
    page.evaluate("document.activeElement.blur()")
    keep(page, to / "versions.png")
    phone = open_page(PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    keep_phone(phone, photos, to / "phone.jpg")


def identify(page: "Page", photos: list[Path]) -> None:
    page.set_input_files("#files", [str(path) for path in photos])
    page.locator("#submit").click()
    page.wait_for_selector("#answer:not([hidden])")
    page.locator("#heat-toggle").click()
    wait_for_pictures(page)


def wait_for_pictures(page: "Page") -> None:
    until(page, "document.querySelectorAll('.pair .heat').length === 2")
    until(page, "[...document.querySelectorAll('#answer img')].every((image) => image.naturalWidth > 0)")
    page.wait_for_timeout(300)


def fill_form(page: "Page", sheets: Path) -> None:
    page.wait_for_selector("#recent-list li")
    page.set_input_files("#curate-files", [str(path) for path in sorted(sheets.iterdir())[7:10]])
    for name, text in (("institution_code", "DEMO"), ("catalog_number", "V3"), ("license", "CC BY 4.0")):
        page.locator(f"#curate-{name}").fill(text)
    page.locator("#curate-curator").fill("Maria Gombos")
    page.locator("#curate-species").fill("om")
    page.wait_for_selector("#curate-species-list [role=option]")
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(300)


def keep(page: "Page", path: Path) -> None:
    """The whole page."""
    write(Image.open(io.BytesIO(page.screenshot(full_page=True))), path)


def write(image: Image.Image, path: Path) -> None:
    """Views with photos as JPEG, others as PNG in few colours, which is a third of the bytes."""
    if path.suffix == ".jpg":
        image.convert("RGB").save(path, quality=QUALITY, subsampling=0, optimize=True)
    else:
        image.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def keep_phone(page: "Page", photos: list[Path], path: Path) -> None:
    """Three views of a phone beside each other: what is asked, the answer, and what vouches for it."""
    screens = []

    def take() -> None:
        page.wait_for_timeout(300)
        screens.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))

    page.set_input_files("#files", [str(each) for each in photos])
    page.locator("#status").wait_for()
    take()
    page.locator("#submit").tap()
    page.wait_for_selector("#answer:not([hidden])")
    page.evaluate("document.activeElement.blur()")
    take()
    page.locator("#heat-toggle").tap()
    wait_for_pictures(page)
    page.evaluate("document.querySelector('#evidence').scrollIntoView()")
    take()
    gap, (width, height) = 40, screens[0].size
    together = Image.new("RGB", (3 * width + 2 * gap, height), (214, 204, 178))
    for index, screen in enumerate(screens):
        together.paste(screen, (index * (width + gap), 0))
    smaller = together.resize((together.width * 5 // 8, together.height * 5 // 8), Image.Resampling.LANCZOS)
    write(smaller, path)


if __name__ == "__main__":
    main()
