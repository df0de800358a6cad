"""What was changed, and how much of it is in no index yet."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.routes import changes
from app.settings import Settings
from indexer.build_gallery import build
from models.catalogue import Catalogue
from models.compute import Compute
from models.curation import Curator, NewSheet
from models.home import Home


def asked(home: Home, limit: int = 20) -> dict[str, object]:
    with TestClient(create_app(Settings(home=home.root, device="cpu"))) as client:
        return client.get("/v1/changes", params={"limit": limit}).json()


def test_changes_count_from_the_newest_index_and_none_are_left_after_a_build(
    tiny_home: Home, encode: Callable[..., bytes]
) -> None:
    with Catalogue.open(tiny_home) as catalogue:
        species = next(catalogue.sheets()).species_id
        first = asked(tiny_home)
        assert (first["pending"], first["pending_is_more"]) == (0, False)
        assert [change["action"] for change in first["latest"]] == ["import"]
        added = Curator(catalogue, "Ada").add([NewSheet(encode(n), species) for n in (50, 51)])
        Curator(catalogue, "Bo").remove([added[0].sheet.sheet_id])
        # A sheet that was added and removed is one changed sheet.
        second = asked(tiny_home, limit=2)
        assert (second["pending"], second["since"]) == (2, first["latest"][0]["revision"])
        assert [(c["by"], c["action"], c["sheets"]) for c in second["latest"]] == [
            ("Bo", "remove", 1),
            ("Ada", "add", 2),
        ]
        build(tiny_home, catalogue, Compute.resolve("cpu", precision="float32"))
    assert (asked(tiny_home)["pending"], asked(tiny_home)["newest_is_served"]) == (0, True)


def test_an_index_that_is_not_in_service_is_told(tiny_home: Home, encode: Callable[..., bytes]) -> None:
    compute = Compute.resolve("cpu", precision="float32")
    with Catalogue.open(tiny_home) as catalogue:
        build(tiny_home, catalogue, compute, activate_it=False)
        # Of the same state: the one in service knows as much.
        assert asked(tiny_home)["newest_is_served"]
        Curator(catalogue, "Ada").add([NewSheet(encode(50), next(catalogue.sheets()).species_id)])
        build(tiny_home, catalogue, compute, activate_it=False)
    told = asked(tiny_home)
    assert (told["pending"], told["newest_is_served"]) == (0, False)


def test_everything_is_pending_without_an_index(collection_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (asked(collection_home)["pending"], asked(collection_home)["pending_is_more"]) == (4, False)
    monkeypatch.setattr(changes, "MOST_COUNTED", 3)
    assert (asked(collection_home)["pending"], asked(collection_home)["pending_is_more"]) == (3, True)


def test_an_index_of_another_history_does_not_count(tiny_home: Home, imported: Home, tmp_path: Path) -> None:
    # As after a backup was put back: the numbers may agree, the tokens do not.
    with Catalogue.open(tiny_home) as catalogue:
        sheets = catalogue.counts().sheets
    shutil.copy(imported.catalogue_file, tiny_home.catalogue_file)
    assert asked(tiny_home)["pending"] >= sheets
