"""Fixtures shared by all tests: a small drawn flora, and a home in which a tiny network was trained on it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import PostgresServer, server_programs
from tests_support import TINY_CONFIG

from indexer.build_gallery import build
from indexer.demo_flora import draw_flora
from indexer.import_dataset import import_dataset
from indexer.run_config import RunConfig
from indexer.run_folder import TrainingRun
from indexer.training_run import train
from models.catalogue import Catalogue
from models.compute import Compute
from models.home import Home


@pytest.fixture(scope="session")
def tiny_flora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn flora of six species, two of them herbarium-only, as a manifest dataset. Do not change it."""
    folder = tmp_path_factory.mktemp("flora") / "flora"
    draw_flora(
        folder,
        species=6,
        herbarium_only=2,
        sheets_per_species=4,
        photos_per_species=6,
        test_photos_per_species=2,
        image_height=96,
        workers=1,
    )
    return folder


@pytest.fixture(scope="session")
def imported(tiny_flora: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the tiny flora imported and nothing trained. Do not change it."""
    home = Home(tmp_path_factory.mktemp("imported"))
    import_dataset(tiny_flora, home)
    return home


@pytest.fixture
def home(imported: Home, tmp_path: Path) -> Home:
    """A copy of the imported home that a test may change."""
    shutil.copytree(imported.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def trained_home(tiny_flora: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the tiny flora imported, a tiny network trained and an index active. Do not change it."""
    home = Home(tmp_path_factory.mktemp("home"))
    import_dataset(tiny_flora, home)
    compute = Compute.resolve("cpu", precision="float32")
    with Catalogue.open(home) as catalogue:
        run = TrainingRun.start(home, catalogue, RunConfig.model_validate(TINY_CONFIG))
        train(home, catalogue, run, compute)
        build(home, catalogue, compute)
    return home


@pytest.fixture
def tiny_home(trained_home: Home, tmp_path: Path) -> Home:
    """A copy of the trained home that a test may change."""
    # Services that other tests run on the original leave their heat maps there.
    shutil.copytree(trained_home.root, tmp_path / "home", ignore=shutil.ignore_patterns("explanations"))
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server for this run of the tests; without PostgreSQL the tests that need it are skipped."""
    programs = server_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer(programs)
    yield server
    server.stop()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Address of an empty PostgreSQL database for one test."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home without anything, on each of the databases in turn."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    return Home(tmp_path / "home", url)


@pytest.fixture(params=["sqlite", "postgresql"])
def living_home(request: pytest.FixtureRequest, tiny_home: Home, tiny_flora: Path) -> Home:
    """A copy of the trained home that a test may change, its catalogue and queue in either database."""
    if request.param == "sqlite":
        return tiny_home
    home = Home(tiny_home.root, request.getfixturevalue("postgres_url"))
    import_dataset(tiny_flora, home)
    for file in tiny_home.root.glob("catalogue.sqlite*"):
        file.unlink()
    with Catalogue.open(home) as catalogue:
        # The copied index was built from another catalogue, and would not be continued.
        build(home, catalogue, Compute.resolve("cpu", precision="float32"))
    return home
