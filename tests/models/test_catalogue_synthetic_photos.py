"""Synthetic photos are kept apart: whoever does not ask for those of a run never meets one."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from old_catalogues import run_script
from PIL import Image as PillowImage

from models.catalogue import Catalogue, CatalogueCounts, SpeciesCounts
from models.curation import Curator
from models.errors import CatalogueError
from models.home import Home
from models.image_store import ImageStore
from models.specimens import FieldPhoto, Image, Role, Sheet, SyntheticPhoto
from models.taxonomy import Species, SpeciesId

ROSE, MINT = Species(SpeciesId("rose"), "Rosa canina L."), Species(SpeciesId("mint"), "Mentha aquatica L.")


def content(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def stored(home: Home, seed: int) -> Image:
    return ImageStore(home.images).add(content(seed))


def sheet(image: Image, species: Species) -> Sheet:
    return Sheet(image.image_id, species.species_id, image, image.image_id)


@pytest.fixture
def home(empty_home: Home) -> Home:
    """Two sheets, 0 and 1; run A drew pictures 10 and 11 after them, run B picture 10 once more."""
    home = empty_home
    sheets = [sheet(stored(home, 0), ROSE), sheet(stored(home, 1), MINT)]
    with Catalogue.open(home, create=True) as catalogue, catalogue.writing() as writer:
        writer.put_species([ROSE, MINT])
        writer.add_sheets(sheets)
        drawn = [
            SyntheticPhoto("A", sheets[0].sheet_id, ROSE.species_id, stored(home, 10)),
            SyntheticPhoto("A", sheets[1].sheet_id, MINT.species_id, stored(home, 11)),
            SyntheticPhoto("B", sheets[0].sheet_id, ROSE.species_id, stored(home, 10)),
        ]
        assert writer.add_synthetic_photos(drawn) == 3
    return home


def files(home: Home) -> set[str]:
    return {path.stem for path in home.images.rglob("*.png")}


def test_they_come_back_by_run_with_the_species_of_their_sheet(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        of_a = list(catalogue.synthetic_photos("A"))
        assert [p.sheet_id for p in of_a] == sorted(s.sheet_id for s in catalogue.sheets())
        assert {(p.species_id, p.image) for p in of_a} == {
            ("rose", stored(home, 10)),
            ("mint", stored(home, 11)),
        }
        assert len({p.photo_id for p in of_a}) == 2
        assert [p.run_id for p in catalogue.synthetic_photos("B")] == ["B"]
        assert list(catalogue.synthetic_photos("C")) == []
        rose = next(s for s in catalogue.sheets(ROSE.species_id))
        with catalogue.writing() as writer:
            writer.change(Role.SHEET, rose.sheet_id, {"species_id": MINT.species_id})
        assert {p.species_id for p in catalogue.synthetic_photos("A")} == {"mint"}


def test_they_leave_and_come_back_with_their_sheet(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        before = list(catalogue.synthetic_photos("A"))
        curator = Curator(catalogue, "Ada")
        curator.remove([before[0].sheet_id])
        assert list(catalogue.synthetic_photos("A")) == before[1:]
        curator.restore([before[0].sheet_id])
        assert list(catalogue.synthetic_photos("A")) == before


def test_nothing_else_sees_them(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        assert list(catalogue.field_photos()) == []
        assert catalogue.counts() == CatalogueCounts(species=2, sheets=2, field_photos=0)
        assert set(catalogue.species_counts().values()) == {SpeciesCounts(sheets=1)}
        digest = catalogue.content_digest()
        assert catalogue.find_image(stored(home, 10).source_sha256) is None
        with catalogue.writing() as writer:
            assert writer.find([stored(home, 10).source_sha256], [stored(home, 10).stored_sha256]) == []
            assert writer.torn_plants(9) == []
        catalogue.remove_synthetic_photos("A")
        assert catalogue.content_digest() == digest


def test_entering_them_again_keeps_the_first(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        before = list(catalogue.synthetic_photos("A"))
        another = SyntheticPhoto("A", before[0].sheet_id, before[0].species_id, stored(home, 12))
        with catalogue.writing() as writer:
            assert writer.add_synthetic_photos([*before, another]) == 0
            assert writer.add_synthetic_photos([]) == 0
        assert list(catalogue.synthetic_photos("A")) == before


def test_one_of_a_sheet_that_is_not_there_is_refused(home: Home) -> None:
    lost = SyntheticPhoto("A", "f" * 20, ROSE.species_id, stored(home, 13))
    with (
        Catalogue.open(home) as catalogue,
        pytest.raises(CatalogueError, match=r"(?i)foreign key"),
        catalogue.writing() as writer,
    ):
        writer.add_synthetic_photos([lost])


def test_the_same_picture_can_be_imported_as_a_real_photo(home: Home) -> None:
    real = stored(home, 11)
    with Catalogue.open(home) as catalogue:
        with catalogue.writing() as writer:
            writer.add_field_photos([FieldPhoto(real.image_id, MINT.species_id, real, "plant")])
        assert [p.photo_id for p in catalogue.field_photos()] == [real.image_id]
        assert real.image_id not in {p.photo_id for p in catalogue.synthetic_photos("A")}
        catalogue.remove_synthetic_photos("A")
        assert real in catalogue.image_store


def test_removing_those_of_a_run_leaves_other_runs_and_shared_files(home: Home) -> None:
    with Catalogue.open(home) as catalogue:
        assert catalogue.remove_synthetic_photos("A") == 2
        assert list(catalogue.synthetic_photos("A")) == []
        assert len(list(catalogue.synthetic_photos("B"))) == 1
        shared, alone = stored(home, 10), hash_of(11)
        assert shared.stored_sha256 in files(home)
        assert alone not in files(home)
        assert len(files(home)) == 3
        assert catalogue.remove_synthetic_photos("A") == 0
        assert catalogue.remove_synthetic_photos("B") == 1
        assert len(files(home)) == 2


def hash_of(seed: int) -> str:
    return hashlib.sha256(content(seed)).hexdigest()


def test_a_kill_while_files_are_removed_leaves_no_row_without_its_file(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: ImageStore, image: Image) -> None:
        raise KeyboardInterrupt

    with Catalogue.open(home) as catalogue:
        monkeypatch.setattr(ImageStore, "discard", die)
        with pytest.raises(KeyboardInterrupt):
            catalogue.remove_synthetic_photos("A")
        assert list(catalogue.synthetic_photos("A")) == []
        assert all(p.image in catalogue.image_store for p in catalogue.synthetic_photos("B"))


def test_they_go_with_their_sheet(home: Home) -> None:
    run_script(home, "DELETE FROM sheets WHERE species_id = 'rose';\n")
    with Catalogue.open(home) as catalogue:
        assert [p.species_id for p in catalogue.synthetic_photos("A")] == ["mint"]
        assert list(catalogue.synthetic_photos("B")) == []


def test_a_file_that_cannot_be_removed_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    store = ImageStore(home.images)
    image = stored(home, 10)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(CatalogueError, match="cannot be removed"):
        store.discard(image)
