"""Curators' changes: one sheet for one image, one species for one plant, nothing lost and nothing half done."""

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from models.catalogue import Catalogue
from models.catalogue_revisions import Change, ChangeAction
from models.curation import Curator, NewSheet, NewSpecies, Outcome
from models.errors import (
    InvalidSheetDetails,
    SheetConflict,
    SpeciesConflict,
    StorageFull,
    UnknownSheet,
    UnknownSpecies,
    UnreadableImage,
)
from models.home import Home
from models.image_store import ImageStore
from models.specimens import FieldPhoto, Image, Role, Sheet, Specimen, Split, SyntheticPhoto
from models.taxonomy import Species, SpeciesId

ROSE = Species(SpeciesId("rose"), "Rosa canina L.", "Rosa", "Rosaceae")
MINT = Species(SpeciesId("mint"), "Mentha aquatica L.")
KEW = Specimen("K", "herb", "K000123")
DAYS = 24 * 3600.0


def picture(seed: int, format_name: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, format_name)
    return buffer.getvalue()


def new(seed: int, species: SpeciesId | NewSpecies = ROSE.species_id, **told: object) -> NewSheet:
    return NewSheet(picture(seed), species, **told)  # type: ignore[arg-type]


@pytest.fixture
def home(empty_home: Home) -> Home:
    """Two species, no image."""
    with Catalogue.open(empty_home, create=True) as catalogue, catalogue.writing() as writer:
        writer.put_species([ROSE, MINT])
    return empty_home


@pytest.fixture
def catalogue(home: Home) -> object:
    with Catalogue.open(home) as opened:
        yield opened


@pytest.fixture
def curator(catalogue: Catalogue) -> Curator:
    return Curator(catalogue, "Ada")


def files(catalogue: Catalogue) -> set[str]:
    return {path.stem for path in catalogue.image_store.root.glob("??/??/*")}


def state(catalogue: Catalogue) -> object:
    """All that a change could change."""
    return (
        catalogue.revision(),
        list(catalogue.sheets(include_removed=True)),
        catalogue.species(),
        list(catalogue.changes()),
    )


def test_an_added_sheet_is_in_the_collection_with_all_that_was_told(curator: Curator, catalogue: Catalogue) -> None:
    told = {"license": " CC BY 4.0 ", "rights_holder": "MNHN", "source_path": "a.png"}
    (added,) = curator.add([new(1, specimen=Specimen(" K", "", "K1 "), **told)])
    assert added.outcome is Outcome.ADDED
    sheet = catalogue.get_sheet(added.sheet.sheet_id)
    assert sheet == added.sheet
    assert (sheet.species_id, sheet.specimen, sheet.split) == ("rose", Specimen("K", None, "K1"), None)
    assert (sheet.license, sheet.rights_holder, sheet.source_path) == ("CC BY 4.0", "MNHN", "a.png")
    assert catalogue.image_store.open(sheet.image).tobytes() == PillowImage.open(io.BytesIO(picture(1))).tobytes()
    assert sheet.added_at is not None
    newest = catalogue.revisions()[-1]
    assert (newest.actor, newest.action, newest.sheets) == ("Ada", "add", 1)
    (change,) = catalogue.changes()
    assert change == Change(newest.revision, 1, ChangeAction.ADDED, sheet.sheet_id, ROSE.species_id, None)


def test_one_call_is_one_revision_and_keeps_its_order(curator: Curator, catalogue: Catalogue) -> None:
    before = catalogue.revision().revision
    added = curator.add([new(5), new(3, MINT.species_id), new(4)])
    assert [a.sheet.species_id for a in added] == ["rose", "mint", "rose"]
    assert catalogue.revision().revision == before + 1
    assert catalogue.revisions()[-1].sheets == 3
    assert [c.position for c in catalogue.changes()] == [1, 2, 3]
    assert [s.sheet_id for s in catalogue.changed_sheets(before)] == sorted(a.sheet.sheet_id for a in added)


def test_the_same_image_is_one_sheet_however_often_it_is_added(curator: Curator, catalogue: Catalogue) -> None:
    first, second = curator.add([new(1), new(1)])
    assert (first.outcome, second.outcome) == (Outcome.ADDED, Outcome.ALREADY_PRESENT)
    before = state(catalogue)
    (third,) = curator.add([new(1, license="another")])
    assert third.outcome is Outcome.ALREADY_PRESENT
    assert third.sheet == first.sheet == second.sheet
    assert state(catalogue) == before


def test_the_same_pixels_with_other_metadata_are_the_same_sheet(curator: Curator) -> None:
    exif = PillowImage.Exif()
    exif[0x010E] = "somebody's garden"
    buffer = io.BytesIO()
    with PillowImage.open(io.BytesIO(picture(1, "JPEG"))) as opened:
        opened.save(buffer, "JPEG", exif=exif, quality="keep")
    plain = io.BytesIO()
    with PillowImage.open(io.BytesIO(picture(1, "JPEG"))) as opened:
        opened.save(plain, "JPEG", quality="keep")
    assert buffer.getvalue() != plain.getvalue()
    one, other = curator.add([NewSheet(content.getvalue(), ROSE.species_id) for content in (buffer, plain)])
    assert other.outcome is Outcome.ALREADY_PRESENT
    assert other.sheet == one.sheet


def test_a_file_may_be_given_by_its_path(curator: Curator, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (by_path,), (by_bytes,) = curator.add([NewSheet(tmp_path / "a.png", ROSE.species_id)]), curator.add([new(1)])
    assert by_path.sheet == by_bytes.sheet


def test_an_image_of_another_species_or_role_is_a_conflict_that_names_the_remedy(
    curator: Curator, catalogue: Catalogue
) -> None:
    (sheet,) = curator.add([new(1)])
    image = catalogue.image_store.add(picture(2))
    with catalogue.writing() as writer:
        writer.add_field_photos([FieldPhoto(image.image_id, ROSE.species_id, image, "plant")])
    before = state(catalogue)
    named = rf"sheet 2: .*sheet {sheet.sheet.sheet_id} of species 'rose'; move that sheet"
    with pytest.raises(SheetConflict, match=named):
        curator.add([new(3), new(1, MINT.species_id)])
    with pytest.raises(SheetConflict, match=r"sheet 1: .* field photo of species 'rose'"):
        curator.add([new(2)])
    with pytest.raises(SheetConflict, match="sheet 2"):
        curator.add([new(4), new(4, MINT.species_id)])
    assert state(catalogue) == before


def test_images_of_one_specimen_belong_together(curator: Curator, catalogue: Catalogue) -> None:
    first, second = curator.add([new(1, specimen=KEW), new(2, specimen=KEW)])
    (loose,) = curator.add([new(3, specimen=Specimen("K", "herb", None))])
    assert first.sheet.specimen_key == second.sheet.specimen_key == "K:herb:K000123"
    assert loose.sheet.specimen_key == loose.sheet.sheet_id
    with pytest.raises(SheetConflict, match=r"sheet 1: its specimen is of species 'rose' .*check the specimen's codes"):
        curator.add([new(4, MINT.species_id, specimen=KEW)])
    nine = Specimen(None, None, "9")
    with pytest.raises(SheetConflict, match="sheet 2: its specimen"):
        curator.add([new(5, specimen=nine), new(6, MINT.species_id, specimen=nine)])
    # The same number of another herbarium is another plant.
    (other,) = curator.add([new(7, MINT.species_id, specimen=Specimen("P", "herb", "K000123"))])
    assert other.sheet.specimen_key != first.sheet.specimen_key


def test_a_new_image_joins_an_imported_specimen_and_its_split(curator: Curator, catalogue: Catalogue) -> None:
    image = catalogue.image_store.add(picture(1))
    with catalogue.writing() as writer:
        writer.add_sheets([Sheet(image.image_id, ROSE.species_id, image, "plant 7", KEW, Split.TEST)])
    (added,) = curator.add([new(2, specimen=KEW)])
    assert (added.sheet.specimen_key, added.sheet.split) == ("plant 7", Split.TEST)
    with catalogue.writing() as writer:
        assert writer.torn_plants(9) == []


def test_a_new_species_is_entered_with_its_sheets(curator: Curator, catalogue: Catalogue) -> None:
    oak = NewSpecies(" Quercus  robur L. ", "Quercus", "Fagaceae")
    added = curator.add([new(1, oak), new(2, oak)])
    assert {a.sheet.species_id for a in added} == {"quercus-robur-l"}
    assert catalogue.get_species(SpeciesId("quercus-robur-l")) == Species(
        SpeciesId("quercus-robur-l"), "Quercus  robur L.", "Quercus", "Fagaceae"
    )
    assert [c.action for c in catalogue.changes()] == ["species added", "added", "added"]
    (again,) = curator.add([new(3, NewSpecies("quercus robur l."))])
    assert again.sheet.species_id == "quercus-robur-l"
    (given,) = curator.add([new(4, NewSpecies("Acer campestre L.", species_id="12 a/b"))])
    assert given.sheet.species_id == "12 a/b"


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("Abies × borisii-regis Mattf.", "abies-borisii-regis-mattf"),
        ("Viola ødegaardii", "viola-degaardii"),
        ("MINT", "mint-2"),
        ("月見草", "species-"),
        ("x" * 200, "x" * 60),
    ],
)
def test_an_identifier_is_made_from_the_name_and_free(curator: Curator, name: str, made: str) -> None:
    species, is_new = curator.add_species(NewSpecies(name))
    assert is_new
    assert species.species_id.startswith(made)
    assert curator.add_species(NewSpecies(name)) == (species, False)


def test_a_species_that_contradicts_the_catalogue_is_a_conflict(curator: Curator, catalogue: Catalogue) -> None:
    before = state(catalogue)
    with pytest.raises(SpeciesConflict, match=r"'rose' has the name 'Rosa canina L.' in the catalogue"):
        curator.add_species(NewSpecies("Rosa rugosa Thunb.", species_id="rose"))
    with pytest.raises(SpeciesConflict, match="has the genus 'Rosa'"):
        curator.add_species(NewSpecies("Rosa canina L.", genus="Rubus"))
    with pytest.raises(SpeciesConflict, match="as species 'rose'; use that identifier"):
        curator.add_species(NewSpecies("ROSA canina L.", species_id="rose-2"))
    with pytest.raises(UnknownSpecies, match="'oak'"):
        curator.add([new(1, SpeciesId("oak"))])
    assert state(catalogue) == before
    assert files(catalogue) == set()  # an unknown species is found out before anything is stored


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"license": "x" * 1001}, "license"),
        ({"rights_holder": "a\nb"}, "rights_holder"),
        ({"specimen": Specimen("K\x00")}, "institution_code"),
        ({"specimen": Specimen(None, "a\u202eb")}, "collection_code"),
        ({"specimen": Specimen(None, None, "\ud800")}, "catalog_number"),
        ({"species": NewSpecies("  ")}, "scientific_name"),
        ({"species": NewSpecies("Rosa", species_id="x" * 201)}, "species_id"),
        ({"species": NewSpecies("Rosa", genus="\x1b[31m")}, "genus"),
        ({"species": SpeciesId(" ")}, "species_id"),
    ],
)
def test_details_that_are_not_plain_text_are_refused(
    curator: Curator, catalogue: Catalogue, told: dict[str, object], field: str
) -> None:
    before = state(catalogue)
    with pytest.raises(InvalidSheetDetails, match=f"sheet 2: {field}: expected"):
        curator.add([new(1), NewSheet(picture(2), **({"species": ROSE.species_id} | told))])  # type: ignore[arg-type]
    assert state(catalogue) == before
    assert files(catalogue) == set()


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\tb"])
def test_a_curator_has_a_name(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(InvalidSheetDetails, match="curator"):
        Curator(catalogue, name)


def test_one_bad_image_leaves_the_catalogue_as_it_was(curator: Curator, catalogue: Catalogue) -> None:
    before = state(catalogue)
    with pytest.raises(UnreadableImage, match=r"^sheet 2: "):
        curator.add([new(1), NewSheet(b"no image at all", ROSE.species_id)])
    assert state(catalogue) == before


def test_removing_and_restoring_undo_each_other(curator: Curator, catalogue: Catalogue) -> None:
    one, other = (a.sheet for a in curator.add([new(1), new(2)]))
    digest = catalogue.content_digest()
    (removed,) = curator.remove([one.sheet_id])
    assert removed.removed
    assert [s.sheet_id for s in catalogue.sheets()] == [other.sheet_id]
    assert removed.image in catalogue.image_store
    before = state(catalogue)
    assert curator.remove([one.sheet_id, one.sheet_id]) == (removed,)
    assert state(catalogue) == before
    (restored,) = curator.restore([one.sheet_id])
    assert restored == one
    assert catalogue.content_digest() == digest
    before = state(catalogue)
    assert curator.restore([one.sheet_id]) == (one,)
    assert state(catalogue) == before
    assert [c.action for c in catalogue.changes()][-2:] == ["removed", "restored"]
    assert [r.action for r in catalogue.revisions()][-2:] == ["remove", "restore"]


def test_adding_a_removed_image_restores_it_with_what_is_told_now(curator: Curator, catalogue: Catalogue) -> None:
    (added,) = curator.add([new(1, specimen=KEW, license="CC0", rights_holder="Kew")])
    curator.remove([added.sheet.sheet_id])
    (back,) = curator.add([new(1, MINT.species_id, license="CC BY")])
    assert back.outcome is Outcome.RESTORED
    assert not back.sheet.removed
    assert (back.sheet.species_id, back.sheet.specimen) == ("mint", KEW)
    assert (back.sheet.license, back.sheet.rights_holder) == ("CC BY", "Kew")
    last = list(catalogue.changes())[-1]
    assert (last.action, last.species_id, last.previous_species_id) == ("restored", "mint", "rose")


def test_a_removed_sheet_cannot_divide_its_specimen_when_it_comes_back(curator: Curator, catalogue: Catalogue) -> None:
    one, _ = (a.sheet for a in curator.add([new(1, specimen=KEW), new(2, specimen=KEW)]))
    curator.remove([one.sheet_id])
    with catalogue.writing() as writer:
        writer.change(Role.SHEET, one.sheet_id, {"species_id": MINT.species_id})
    for attempt in (lambda: curator.restore([one.sheet_id]), lambda: curator.add([new(1, MINT.species_id)])):
        with pytest.raises(SheetConflict, match="its specimen is of species 'rose'"):
            attempt()
    (back,) = curator.add([new(1, ROSE.species_id)])
    assert back.sheet.species_id == "rose"


def test_a_sheet_that_comes_back_has_the_split_of_its_specimen(curator: Curator, catalogue: Catalogue) -> None:
    one, two, three = (a.sheet for a in curator.add([new(n, specimen=KEW) for n in (1, 2, 3)]))
    curator.remove([one.sheet_id, two.sheet_id])
    with catalogue.writing() as writer:  # as an import does that tells the split
        writer.change(Role.SHEET, three.sheet_id, {"split": Split.TEST})
    assert curator.restore([one.sheet_id])[0].split is Split.TEST
    assert curator.add([new(2)])[0].sheet.split is Split.TEST
    with catalogue.writing() as writer:
        assert writer.torn_plants(9) == []


def test_an_unknown_sheet_stops_the_whole_call(curator: Curator, catalogue: Catalogue) -> None:
    (added,) = curator.add([new(1)])
    before = state(catalogue)
    for change in (curator.remove, curator.restore):
        with pytest.raises(UnknownSheet, match="'nothing'"):
            change([added.sheet.sheet_id, "nothing"])
    with pytest.raises(UnknownSheet):
        curator.move("nothing", ROSE.species_id)
    with pytest.raises(UnknownSpecies):
        curator.move(added.sheet.sheet_id, SpeciesId("oak"))
    assert state(catalogue) == before


def test_a_determination_moves_all_images_of_the_specimen(curator: Curator, catalogue: Catalogue) -> None:
    one, two, alone = (a.sheet for a in curator.add([new(1, specimen=KEW), new(2, specimen=KEW), new(3)]))
    curator.remove([two.sheet_id])
    before = catalogue.revision().revision
    moved = curator.move(one.sheet_id, MINT.species_id)
    assert {(s.sheet_id, s.species_id, s.removed) for s in moved} == {
        (one.sheet_id, "mint", False),
        (two.sheet_id, "mint", True),
    }
    assert catalogue.get_sheet(alone.sheet_id).species_id == "rose"
    assert {s.sheet_id for s in catalogue.changed_sheets(before)} == {one.sheet_id, two.sheet_id}
    told = {(c.action, c.species_id, c.previous_species_id) for c in catalogue.changes(before)}
    assert told == {("moved", "mint", "rose")}
    unchanged = state(catalogue)
    assert curator.move(one.sheet_id, MINT.species_id) == moved
    assert state(catalogue) == unchanged
    assert {s.species_id for s in curator.move(one.sheet_id, NewSpecies("Quercus robur L."))} == {"quercus-robur-l"}


def test_purging_deletes_the_files_of_what_was_removed_by_then(curator: Curator, catalogue: Catalogue) -> None:
    kept, early, late = (a.sheet for a in curator.add([new(1), new(2), new(3)]))
    curator.remove([early.sheet_id])
    built = catalogue.revision().revision
    curator.remove([late.sheet_id])
    assert [s.sheet_id for s in catalogue.purgeable_sheets(built)] == [early.sheet_id]
    assert [s.sheet_id for s in curator.purge(built)] == [early.sheet_id]
    assert files(catalogue) == {s.image.stored_sha256 for s in (kept, late)}
    assert catalogue.revision().revision == built + 1  # an index does not change by it
    assert curator.purge(built) == []
    for call in (lambda: catalogue.get_sheet(early.sheet_id), lambda: curator.restore([early.sheet_id])):
        with pytest.raises(UnknownSheet):
            call()
    assert catalogue.get_sheet(late.sheet_id).removed


def test_a_purged_sheet_can_be_added_again(curator: Curator, catalogue: Catalogue) -> None:
    (first,) = curator.add([new(1, license="CC0")])
    curator.remove([first.sheet.sheet_id])
    curator.purge(catalogue.revision().revision)
    (back,) = curator.add([new(1)])
    assert back.outcome is Outcome.RESTORED
    assert back.sheet == first.sheet
    assert back.sheet.image in catalogue.image_store
    assert [s.sheet_id for s in catalogue.sheets()] == [first.sheet.sheet_id]


def test_a_file_that_a_newer_decoder_packs_otherwise_takes_the_place_of_a_purged_one(
    curator: Curator, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = curator.add([new(1)])
    curator.remove([first.sheet.sheet_id])
    curator.purge(catalogue.revision().revision)
    repacked = catalogue.image_store.add(picture(2))
    image = Image(first.sheet.image.source_sha256, repacked.stored_sha256, repacked.suffix, 10, 12, repacked.bytes)
    monkeypatch.setattr(ImageStore, "add", lambda self, source: image)
    (back,) = curator.add([new(1)])
    assert (back.sheet.sheet_id, back.sheet.image) == (first.sheet.sheet_id, image)


def test_purging_leaves_files_that_something_else_needs(curator: Curator, catalogue: Catalogue) -> None:
    drawn_after, shown = (a.sheet for a in curator.add([new(1), new(2)]))
    with catalogue.writing() as writer:
        writer.add_synthetic_photos([SyntheticPhoto("run", drawn_after.sheet_id, ROSE.species_id, shown.image)])
    curator.remove([shown.sheet_id])
    assert len(curator.purge(catalogue.revision().revision)) == 1
    assert shown.image in catalogue.image_store


def test_a_sheet_that_is_added_while_its_file_is_purged_gets_its_file_back(
    curator: Curator, catalogue: Catalogue, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = curator.add([new(1)])
    curator.remove([first.sheet.sheet_id])
    store = ImageStore.add
    purged: list[object] = []

    def add_then_purge(self: ImageStore, source: bytes | Path) -> Image:
        image = store(self, source)
        if not purged:
            with Catalogue.open(home) as other:
                purged.extend(Curator(other, "gc").purge(other.revision().revision))
            assert image not in self
        return image

    monkeypatch.setattr(ImageStore, "add", add_then_purge)
    (back,) = curator.add([new(1)])
    assert len(purged) == 1
    assert back.sheet.image in catalogue.image_store


def test_a_kill_while_files_are_purged_leaves_files_for_the_sweep(
    curator: Curator, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    (added,) = curator.add([new(1)])
    curator.remove([added.sheet.sheet_id])

    def die(self: ImageStore, image: Image) -> None:
        raise KeyboardInterrupt

    removed = catalogue.revision().revision
    monkeypatch.setattr(ImageStore, "discard", die)
    with pytest.raises(KeyboardInterrupt):
        curator.purge(removed)
    assert added.sheet.image in catalogue.image_store
    age(catalogue.image_store.path(added.sheet.image))
    assert curator.sweep_files() == 1
    assert files(catalogue) == set()


def age(path: Path, days: float = 1.1) -> None:
    then = time.time() - days * DAYS
    os.utime(path, (then, then))


def test_the_sweep_takes_old_files_without_a_row_and_nothing_else(curator: Curator, catalogue: Catalogue) -> None:
    living, removed = (a.sheet for a in curator.add([new(1), new(2)]))
    curator.remove([removed.sheet_id])
    photo, drawn, orphan, recent, met_again = (catalogue.image_store.add(picture(n)) for n in range(3, 8))
    with catalogue.writing() as writer:
        writer.add_field_photos([FieldPhoto(photo.image_id, ROSE.species_id, photo, "plant")])
        writer.add_synthetic_photos([SyntheticPhoto("run", living.sheet_id, ROSE.species_id, drawn)])
    incoming = catalogue.image_store.root / ".incoming" / "left"
    incoming.write_bytes(b"half")
    stranger = catalogue.image_store.path(orphan).with_name("README.txt")
    stranger.write_text("not ours")
    everything = [living.image, removed.image, photo, drawn, orphan, met_again]
    for path in [*(catalogue.image_store.path(image) for image in everything), incoming, stranger]:
        age(path)
    catalogue.image_store.add(picture(7))
    assert curator.sweep_files() == 2
    assert not incoming.exists()
    assert stranger.exists()
    gone = {image.stored_sha256 for image in everything if image not in catalogue.image_store}
    assert gone == {orphan.stored_sha256}
    assert recent in catalogue.image_store


def test_a_disk_that_cannot_be_written_changes_nothing(
    curator: Curator, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = state(catalogue)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="the image was not stored"):
        curator.add([new(1)])
    monkeypatch.undo()
    assert state(catalogue) == before
