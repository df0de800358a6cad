"""The catalogue's history: committed changes have numbers, in the order of the commits, whatever the clock says."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from models import catalogue_schema as schema
from models.catalogue import Catalogue
from models.catalogue_revisions import CatalogueRevision
from models.errors import UnknownSheet
from models.home import Home
from models.specimens import FieldPhoto, Image, Role, Sheet, SyntheticPhoto
from models.taxonomy import Species, SpeciesId

ROSE, MINT = Species(SpeciesId("rose"), "Rosa canina L."), Species(SpeciesId("mint"), "Mentha aquatica L.")


def image(number: int) -> Image:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Image(digest, hashlib.sha256(digest.encode()).hexdigest(), ".jpg", 30, 20, 1000 + number)


def sheet(number: int, species: Species = ROSE) -> Sheet:
    one = image(number)
    return Sheet(one.image_id, species.species_id, one, one.image_id)


@pytest.fixture
def home(empty_home: Home) -> Home:
    return empty_home


@pytest.fixture
def filled(home: Home) -> Home:
    """Two species and four sheets in one revision."""
    with Catalogue.open(home, create=True) as catalogue, catalogue.writing(actor="ada", action="import") as writer:
        writer.put_species([ROSE, MINT])
        writer.add_sheets([sheet(1), sheet(2)])
        writer.add_sheets([sheet(3), sheet(4, MINT)])
    return home


def remove(home: Home, *numbers: int, purged: bool = False) -> None:
    """Mark sheets as a curator does."""
    with Catalogue.open(home) as catalogue, catalogue.writing(action="remove") as writer:
        for number in numbers:
            values = {"removed_at": schema.now()} | ({"purged_at": schema.now()} if purged else {})
            writer.change(Role.SHEET, sheet(number).sheet_id, values)


def test_an_empty_catalogue_is_at_revision_zero_which_every_history_has(home: Home) -> None:
    with Catalogue.open(home, create=True) as catalogue:
        assert catalogue.revision() == CatalogueRevision(0, "")
        assert catalogue.has_revision(0, "")
        assert catalogue.revisions() == []
        assert list(catalogue.changes()) == []


def test_one_transaction_is_one_revision(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        (only,) = catalogue.revisions()
        assert (only.revision, only.actor, only.action, only.sheets) == (1, "ada", "import", 4)
        assert len(only.token) == 32
        assert catalogue.revision() == CatalogueRevision(1, only.token)
        assert abs((datetime.now(UTC) - only.at).total_seconds()) < 60
        assert {s.added_at for s in catalogue.sheets()} == {only.at}


def test_what_changes_nothing_makes_no_revision(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        before = catalogue.revision()
        with catalogue.writing() as writer:
            writer.put_species([ROSE])
            writer.add_sheets([])
            writer.find([image(1).source_sha256], [])
            writer.add_synthetic_photos([SyntheticPhoto("run", sheet(1).sheet_id, ROSE.species_id, image(9))])
        assert catalogue.revision() == before


def test_every_kind_of_change_that_matters_to_an_index_makes_one(filled: Home) -> None:
    photo = FieldPhoto(image(7).image_id, ROSE.species_id, image(7), "plant")
    with Catalogue.open(filled) as catalogue:
        with catalogue.writing() as writer:
            writer.put_species([Species(SpeciesId("oak"), "Quercus robur L.")])
        with catalogue.writing() as writer:
            writer.put_species([Species(MINT.species_id, MINT.scientific_name, "Mentha")])
        with catalogue.writing() as writer:
            writer.add_field_photos([photo])
        with catalogue.writing() as writer:
            writer.change(Role.FIELD, photo.photo_id, {"license": "CC0"})
        with catalogue.writing() as writer:
            writer.change(Role.SHEET, sheet(1).sheet_id, {"license": "CC0"})
        assert [(r.revision, r.sheets) for r in catalogue.revisions(1)] == [(2, 0), (3, 0), (4, 0), (5, 0), (6, 1)]


def test_a_failed_transaction_uses_up_no_number(filled: Home) -> None:
    def fail(catalogue: Catalogue) -> None:
        with catalogue.writing() as writer:
            writer.add_sheets([sheet(8)])
            raise KeyboardInterrupt

    with Catalogue.open(filled) as catalogue:
        before = catalogue.revision()
        with pytest.raises(KeyboardInterrupt):
            fail(catalogue)
        assert catalogue.revision() == before
        with catalogue.writing() as writer:
            writer.add_sheets([sheet(8)])
        assert catalogue.revision().revision == before.revision + 1


def test_changed_sheets_are_those_after_a_revision_with_the_removed_ones(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        with catalogue.writing() as writer:
            writer.add_sheets([sheet(5), sheet(6)])
        remove(filled, 3)
        with catalogue.writing() as writer:
            writer.change(Role.SHEET, sheet(1).sheet_id, {"species_id": MINT.species_id})
        remove(filled, 2, purged=True)

        def changed(since: int) -> list[tuple[str, bool, str]]:
            return [(s.sheet_id, s.removed, s.species_id) for s in catalogue.changed_sheets(since)]

        moved = (sheet(1).sheet_id, False, "mint")
        removed, purged = (sheet(3).sheet_id, True, "rose"), (sheet(2).sheet_id, True, "rose")
        assert changed(5) == []
        assert changed(4) == [purged]
        assert changed(2) == [removed, moved, purged]
        assert {one[0] for one in changed(1)} == {sheet(n).sheet_id for n in (1, 2, 3, 5, 6)}
        assert len(changed(0)) == 6


def test_removed_sheets_are_in_no_list_but_the_explicit_ones(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        digest = catalogue.content_digest()
        remove(filled, 3)
        living = {sheet(n).sheet_id for n in (1, 2, 4)}
        assert {s.sheet_id for s in catalogue.sheets()} == living
        assert sheet(3).sheet_id not in {s.sheet_id for s in catalogue.sheets(ROSE.species_id)}
        assert {s.sheet_id for s in catalogue.sheets(include_removed=True)} == living | {sheet(3).sheet_id}
        assert catalogue.counts().sheets == 3
        assert catalogue.species_counts()[ROSE.species_id].sheets == 2
        assert catalogue.content_digest() != digest
        assert catalogue.get_sheet(sheet(3).sheet_id).removed
        assert [s.sheet_id for s in catalogue.sheets_page(None, limit=9, removed=True)] == [sheet(3).sheet_id]
        with catalogue.writing() as writer:
            writer.change(Role.SHEET, sheet(3).sheet_id, {"removed_at": None})
        assert catalogue.content_digest() == digest


def test_a_purged_sheet_is_gone_for_everybody_but_the_next_build(filled: Home) -> None:
    remove(filled, 3, purged=True)
    with Catalogue.open(filled) as catalogue:
        with pytest.raises(UnknownSheet, match="is not in the catalogue"):
            catalogue.get_sheet(sheet(3).sheet_id)
        assert catalogue.sheets_page(None, limit=9, removed=True) == []
        assert [s.sheet_id for s in catalogue.changed_sheets(1)] == [sheet(3).sheet_id]


def test_pages_follow_each_other_by_id(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        ids = [s.sheet_id for s in catalogue.sheets()]
        assert [s.sheet_id for s in catalogue.sheets_page(None, limit=3)] == ids[:3]
        assert [s.sheet_id for s in catalogue.sheets_page(None, limit=3, offset=3)] == ids[3:]
        assert [s.sheet_id for s in catalogue.sheets_page(None, limit=3, after=ids[1])] == ids[2:]
        assert [s.sheet_id for s in catalogue.sheets_page(MINT.species_id, limit=3)] == [sheet(4, MINT).sheet_id]


def test_revisions_are_listed_by_number_and_cut_to_the_newest(filled: Home) -> None:
    with Catalogue.open(filled) as catalogue:
        for number in (5, 6, 7):
            with catalogue.writing(actor=f"curator {number}") as writer:
                writer.add_sheets([sheet(number)])

        def numbers(*arguments: int | None) -> list[int]:
            return [r.revision for r in catalogue.revisions(*arguments)]  # type: ignore[arg-type]

        assert numbers() == [1, 2, 3, 4]
        assert numbers(1, 3) == [2, 3]
        assert numbers(0, None, 2) == [3, 4]
        assert numbers(4) == []
        assert [r.actor for r in catalogue.revisions(2)] == ["curator 6", "curator 7"]


def test_a_catalogue_from_a_backup_is_told_from_the_one_that_went_on(tmp_path: Path) -> None:
    home, restored = Home(tmp_path / "home"), Home(tmp_path / "restored")
    with Catalogue.open(home, create=True) as catalogue, catalogue.writing() as writer:
        writer.put_species([ROSE])
        writer.add_sheets([sheet(1)])
    restored.root.mkdir()
    restored.catalogue_file.write_bytes(home.catalogue_file.read_bytes())
    for each, number in ((home, 2), (restored, 3)):
        with Catalogue.open(each) as catalogue, catalogue.writing() as writer:
            writer.add_sheets([sheet(number)])
    with Catalogue.open(home) as one, Catalogue.open(restored) as other:
        assert one.revision().revision == other.revision().revision == 2
        assert not one.has_revision(2, other.revision().token)
        assert one.has_revision(2, one.revision().token)
        assert one.has_revision(1, other.revisions()[0].token)
        assert not one.has_revision(3, one.revision().token)


def test_order_does_not_depend_on_the_clock(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with Catalogue.open(filled) as catalogue:
        for number, moment in ((5, "2031-01-01T00:00:00.000+00:00"), (6, "1999-01-01T00:00:00.000+00:00")):
            monkeypatch.setattr(schema, "now", lambda moment=moment: moment)
            with catalogue.writing() as writer:
                writer.add_sheets([sheet(number)])
        assert [r.revision for r in catalogue.revisions(1)] == [2, 3]
        assert [s.sheet_id for s in catalogue.changed_sheets(1)] == [sheet(5).sheet_id, sheet(6).sheet_id]
        assert catalogue.revision().revision == 3


def test_changed_sheets_are_found_through_their_index(filled: Home) -> None:
    query = "SELECT * FROM sheets JOIN images USING (image_id) WHERE revision > 3 ORDER BY revision, sheets.image_id"
    with Catalogue.open(filled) as catalogue, catalogue._engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            plan = [row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))]
            assert plan[0] == "SEARCH sheets USING INDEX ix_sheets_revision (revision>?)"
            assert not any("TEMP B-TREE" in step for step in plan)
        else:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            plan = [row[0] for row in connection.execute(text(f"EXPLAIN {query}"))]
            assert any("ix_sheets_revision" in step for step in plan)
