"""The catalogue: what was written comes back, whole transactions only, and clear words when it is not usable."""

import hashlib
import sqlite3
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from models import catalogue as catalogue_module
from models.catalogue import Catalogue, CatalogueCounts, SpeciesCounts
from models.catalogue_database import create_database
from models.errors import CatalogueError, UnknownSheet, UnknownSpecies
from models.home import Home
from models.specimens import FieldPhoto, Image, Organ, Role, Sheet, Specimen, Split
from models.taxonomy import Species, SpeciesId

ROSE = Species(SpeciesId("rose"), "Rosa canina L.", "Rosa", "Rosaceae")
MINT = Species(SpeciesId("mint"), "Mentha aquatica L.")
BARE = Species(SpeciesId("bare"), "bare")


def image(number: int) -> Image:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Image(digest, hashlib.sha256(digest.encode()).hexdigest(), ".jpg", 30, 20, 1000 + number)


def sheet(number: int, species: Species = ROSE, **fields: object) -> Sheet:
    one = image(number)
    return Sheet(one.image_id, species.species_id, one, **({"specimen_key": one.image_id} | fields))  # type: ignore[arg-type]


def photo(number: int, species: Species = ROSE, **fields: object) -> FieldPhoto:
    one = image(number)
    return FieldPhoto(one.image_id, species.species_id, one, **({"observation_key": one.image_id} | fields))  # type: ignore[arg-type]


@pytest.fixture
def home(empty_home: Home) -> Home:
    return empty_home


@pytest.fixture
def sqlite_home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def filled(home: Home) -> Home:
    return fill(home)


def fill(home: Home) -> Home:
    with Catalogue.open(home, create=True) as catalogue, catalogue.writing() as writer:
        writer.put_species([ROSE, MINT, BARE])
        writer.add_sheets([sheet(1), sheet(2, split=Split.TEST), sheet(3, MINT)])
        writer.add_field_photos([photo(4), photo(5), photo(6, MINT, split=Split.TEST)])
    return home


def test_absent_catalogue_asks_for_an_import(home: Home) -> None:
    with pytest.raises(CatalogueError, match="run `voucher import` first"):
        Catalogue.open(home)
    assert not home.root.exists()


def test_created_catalogue_is_empty_and_opens_again(home: Home) -> None:
    for create in (True, False, True):
        with Catalogue.open(home, create=create) as catalogue:
            assert catalogue.counts() == CatalogueCounts(0, 0, 0)
            assert catalogue.species() == []
            assert list(catalogue.sheets()) == []
    left = list(home.root.iterdir()) if home.root.exists() else []
    assert [p.name for p in left if not p.name.startswith("catalogue.sqlite")] == []
    assert bool(left) == (home.database_url is None)


def test_sheets_and_photos_come_back_as_they_were(home: Home) -> None:
    whole = sheet(
        1,
        specimen_key="P:herb:00123",
        specimen=Specimen("P", "herb", "00123"),
        split=Split.VALIDATION,
        license="CC BY 4.0",
        rights_holder="MNHN",
        source_path="sheet/été/1 a.jpg",
    )
    view = photo(2, observation_key="obs 7", organ=Organ.FLOWER, license="CC0", rights_holder="Ada", source_path="x")
    with Catalogue.open(home, create=True) as catalogue:
        with catalogue.writing() as writer:
            writer.put_species([ROSE])
            writer.add_sheets([whole])
            writer.add_field_photos([view])
        assert list(catalogue.sheets()) == [whole]
        assert list(catalogue.field_photos()) == [view]
        assert catalogue.get_sheet(whole.sheet_id) == whole
        assert catalogue.get_specimens([whole.sheet_id, "nothing"]) == {whole.sheet_id: whole.specimen}
        assert catalogue.find_image(view.image.source_sha256) == view.image
        assert catalogue.find_image("0" * 64) is None
        assert catalogue.image_store.root == home.images


def test_species_are_listed_by_id_and_found_by_it(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        assert catalogue.species() == [BARE, MINT, ROSE]
        assert catalogue.get_species(ROSE.species_id) == ROSE
        with pytest.raises(UnknownSpecies, match="'oak'"):
            catalogue.get_species(SpeciesId("oak"))
        with pytest.raises(UnknownSheet, match="'nothing'"):
            catalogue.get_sheet("nothing")
        with pytest.raises(UnknownSheet):
            catalogue.get_sheet(photo(4).photo_id)


def test_specimens_are_those_of_the_sheets_that_are_there(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        sheets = {found.sheet_id: found.specimen for found in catalogue.sheets()}
        assert catalogue.get_specimens([]) == {}
        # Of every number of ids the statement is another one, and it is used again.
        for count in [*range(1, len(sheets) + 1), *range(1, len(sheets) + 1)]:
            asked = list(sheets)[:count]
            assert catalogue.get_specimens([*asked, "nothing"]) == {sheet_id: sheets[sheet_id] for sheet_id in asked}
        many = [f"nothing-{number}" for number in range(500)]
        assert catalogue.get_specimens([*many, *sheets]) == sheets


def test_specimens_that_cannot_be_read_are_a_fault_of_the_catalogue(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        sheet_ids = [found.sheet_id for found in catalogue.sheets()]
        with catalogue.writing() as writer:
            writer.connection.execute(text("ALTER TABLE sheets RENAME COLUMN catalog_number TO something_else"))
        with pytest.raises(CatalogueError, match="catalog_number"):
            catalogue.get_specimens(sheet_ids)
        # The connection can be used again.
        assert catalogue.find_image("0" * 64) is None


@pytest.mark.parametrize("empty_home", ["postgresql"], indirect=True)
def test_a_connection_that_ends_while_specimens_are_asked_for_is_taken_no_more(
    filled: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Catalogue.open(filled) as catalogue:
        sheet_ids = [found.sheet_id for found in catalogue.sheets()]
        asked = catalogue._specimens_by_id

        class Ending:
            string = "SELECT pg_terminate_backend(pg_backend_pid()) WHERE %(id_0)s IS NOT NULL"
            positiontup = None

        with monkeypatch.context() as patch:
            patch.setattr(asked, "_compiled", lambda _: Ending)
            with pytest.raises(CatalogueError, match="check that the server runs"):
                catalogue.get_specimens(sheet_ids)
        assert set(catalogue.get_specimens(sheet_ids)) == set(sheet_ids)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_counts_keep_the_test_split_apart(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        assert catalogue.counts() == CatalogueCounts(species=3, sheets=3, field_photos=3)
        assert catalogue.species_counts() == {
            "bare": SpeciesCounts(),
            "mint": SpeciesCounts(sheets=1, test_field_photos=1),
            "rose": SpeciesCounts(sheets=1, test_sheets=1, field_photos=2),
        }
        for species_id, counts in catalogue.species_counts().items():
            assert catalogue.species_counts(species_id) == {species_id: counts}
        assert catalogue.species_counts(SpeciesId("oak")) == {}


def test_images_are_ordered_by_id_and_filtered_by_species(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        ids = [s.sheet_id for s in catalogue.sheets()]
        assert ids == sorted(ids)
        assert len(ids) == 3
        assert [s.sheet_id for s in catalogue.sheets(MINT.species_id)] == [sheet(3).sheet_id]
        assert {p.photo_id for p in catalogue.field_photos(ROSE.species_id)} == {photo(4).photo_id, photo(5).photo_id}
        assert list(catalogue.sheets(SpeciesId("oak"))) == []


def test_digest_changes_with_every_change_of_a_sheet_and_with_nothing_else(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        before = catalogue.content_digest()
        with catalogue.writing() as writer:
            writer.add_field_photos([photo(9)])
            writer.change(Role.SHEET, sheet(1).sheet_id, {"license": "CC0"})
        assert catalogue.content_digest() == before
        with catalogue.writing() as writer:
            writer.add_sheets([sheet(10)])
        added = catalogue.content_digest()
        with catalogue.writing() as writer:
            writer.change(Role.SHEET, sheet(10).sheet_id, {"species_id": MINT.species_id})
        assert len({before, added, catalogue.content_digest()}) == 3


def test_species_values_are_filled_in_but_not_taken_away(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        with catalogue.writing() as writer:
            assert writer.put_species([Species(ROSE.species_id, "rose"), BARE]) == (0, 0)
            assert writer.put_species([Species(MINT.species_id, "Mentha aquatica L.", "Mentha")]) == (0, 1)
            assert writer.put_species([Species(SpeciesId("oak"), "Quercus robur L.")]) == (1, 0)
        assert catalogue.get_species(ROSE.species_id) == ROSE
        assert catalogue.get_species(MINT.species_id).genus == "Mentha"


def test_known_images_are_found_by_either_digest(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue, catalogue.writing() as writer:
        found = writer.find([image(1).source_sha256, "f" * 64], [image(6).stored_sha256])
        assert {(k.image, k.role, k.species_id) for k in found} == {
            (image(1), Role.SHEET, "rose"),
            (image(6), Role.FIELD, "mint"),
        }


def test_torn_plants_are_those_with_two_species_or_two_splits(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue, catalogue.writing() as writer:
        assert writer.torn_plants(10) == []
        writer.add_sheets([sheet(20, specimen_key="A"), sheet(21, MINT, specimen_key="A")])
        writer.add_sheets([sheet(22, specimen_key="B"), sheet(23, specimen_key="B")])
        writer.add_field_photos(
            [photo(24, observation_key="C", split=Split.TEST), photo(25, observation_key="C", source_path="p")]
        )
        torn = writer.torn_plants(10)
        assert [(t.role, t.plant_key) for t in torn] == [(Role.SHEET, "A"), (Role.FIELD, "C")]
        assert set(torn[1].sides) == {("rose", None, "p"), ("rose", "test", None)}


def test_failed_transaction_leaves_nothing(filled: Home) -> None:
    def fail_halfway(catalogue: Catalogue) -> None:
        with catalogue.writing() as writer:
            writer.add_sheets([sheet(30)])
            raise KeyboardInterrupt

    with Catalogue.open(filled) as catalogue:
        before = catalogue.content_digest()
        with pytest.raises(KeyboardInterrupt):
            fail_halfway(catalogue)
        assert catalogue.content_digest() == before


def test_same_image_twice_is_refused(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        with pytest.raises(CatalogueError, match=r"(?i)unique"), catalogue.writing() as writer:
            writer.add_sheets([sheet(1)])
        with pytest.raises(CatalogueError, match=r"(?i)foreign key"), catalogue.writing() as writer:
            writer.add_sheets([sheet(31, Species(SpeciesId("oak"), "oak"))])
        assert catalogue.counts().sheets == 3


def test_reader_sees_the_catalogue_as_it_was_when_it_began(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module, "_CHUNK_ROWS", 1)
    with Catalogue.open(filled) as catalogue:
        reader = catalogue.sheets()
        first = next(reader)
        with catalogue.writing() as writer:
            writer.add_sheets([sheet(number) for number in range(40, 60)])
        assert len([first, *reader]) == 3
        assert len(list(catalogue.sheets())) == 23


def test_streaming_a_large_catalogue_keeps_memory_flat(home: Home) -> None:
    with Catalogue.open(home, create=True) as catalogue:
        with catalogue.writing() as writer:
            writer.put_species([ROSE])
            writer.add_sheets([sheet(number) for number in range(12_000)])
        list(catalogue.sheets(SpeciesId("oak")))
        tracemalloc.start()
        try:
            assert sum(1 for _ in catalogue.sheets()) == 12_000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8_000_000  # all rows at once take more than 20 MB


def test_threads_share_one_catalogue(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue, ThreadPoolExecutor(24) as pool:
        expected = catalogue.content_digest()
        streams = [catalogue.sheets() for _ in range(24)]
        assert {next(s).sheet_id for s in pool.map(iter, streams)} == {next(catalogue.sheets()).sheet_id}
        assert set(pool.map(lambda _: catalogue.content_digest(), range(60))) == {expected}
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]


def test_writers_wait_for_each_other(home: Home) -> None:
    def add(number: int) -> None:
        with Catalogue.open(home, create=True) as catalogue, catalogue.writing() as writer:
            writer.put_species([ROSE])
            writer.add_sheets([sheet(number)])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(12)))
    with Catalogue.open(home) as catalogue:
        assert catalogue.counts() == CatalogueCounts(1, 12, 0)


def test_committed_work_is_synchronised_to_disk(sqlite_home: Home) -> None:
    with Catalogue.open(sqlite_home, create=True) as catalogue, catalogue._engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 30_000}


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be one" * 50, b"SQLite format 3\0" * 90]
)
def test_damaged_catalogue_is_reported(sqlite_home: Home, content: bytes) -> None:
    home = sqlite_home
    home.root.mkdir()
    home.catalogue_file.write_bytes(content)
    with pytest.raises(CatalogueError, match="cannot be read or written"):
        Catalogue.open(home)


def test_damage_behind_the_header_is_reported_when_it_is_met(sqlite_home: Home) -> None:
    home = sqlite_home
    with Catalogue.open(home, create=True) as catalogue, catalogue.writing() as writer:
        writer.put_species([ROSE])
        writer.add_sheets([sheet(number) for number in range(300)])
    content = bytearray(home.catalogue_file.read_bytes())
    content[12_000:] = b"\xa5" * (len(content) - 12_000)
    home.catalogue_file.write_bytes(content)
    with pytest.raises(CatalogueError), Catalogue.open(home) as catalogue:
        list(catalogue.sheets())


def test_foreign_database_is_not_taken_for_a_catalogue(sqlite_home: Home) -> None:
    home = sqlite_home
    home.root.mkdir()
    with sqlite3.connect(home.catalogue_file) as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    connection.close()
    for create in (False, True):
        with pytest.raises(CatalogueError, match="not a catalogue of voucher"):
            Catalogue.open(home, create=create)


def test_home_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CatalogueError, match="choose a home folder"):
        Catalogue.open(Home(tmp_path / "file" / "home"), create=True)


def test_second_creator_of_the_same_catalogue_loses_quietly(sqlite_home: Home) -> None:
    filled = fill(sqlite_home)
    create_database(filled.catalogue_file)
    with Catalogue.open(filled) as catalogue:
        assert catalogue.counts().sheets == 3
