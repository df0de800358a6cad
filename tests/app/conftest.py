"""A small collection and a stand-in for the network, for everything that does not depend on one."""

import io
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import running_browser
from fastapi.testclient import TestClient
from PIL import Image as PillowImage
from PIL import ImageDraw

from app.main import create_app
from app.serve import AnnouncingServer, build_server
from app.serving import Missing, OpenCatalogue, Serving, open_collection, queue_for
from app.settings import Settings
from models.candidate_filter import CandidateFilter
from models.catalogue import Catalogue
from models.decoding import decode_image
from models.encoder import Encoded
from models.home import Home
from models.retrieval import (
    Candidate,
    DecisionSource,
    GateDecision,
    Identification,
    Novelty,
    PredictionSet,
    RollUp,
    SheetMatch,
    SpeciesKnowledge,
)
from models.specimens import Sheet, Specimen
from models.taxonomy import Species, SpeciesId, TaxonRank

SPECIES = (
    Species(SpeciesId("105951"), "Costus arabicus L.", "Costus", "Costaceae"),
    Species(SpeciesId("12254"), "Pinus sylvestris L.", "Pinus", "Pinaceae"),
    Species(SpeciesId("a/b"), "Abies × borisii-regis Mattf.", "Abies", "Pinaceae"),
)


def draw_image(seed: int, size: tuple[int, int] = (96, 128)) -> PillowImage.Image:
    """Paper with a few leaves; different for every seed."""
    generator = np.random.default_rng(seed)
    image = PillowImage.new("RGB", size, (238, 230, 210))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = generator.uniform(0, 0.7, 2) * size
        width, height = generator.uniform(0.1, 0.3, 2) * size
        colour = tuple(int(c) for c in generator.integers((40, 80, 20), (120, 140, 70)))
        pen.ellipse((x, y, x + width, y + height), fill=colour)
    return image


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Bytes of an image drawn from a seed, in a format by Pillow's name."""

    def encode(seed: int = 0, format: str = "JPEG", size: tuple[int, int] = (96, 128), **options: object) -> bytes:
        packed = io.BytesIO()
        draw_image(seed, size).save(packed, format, **options)
        return packed.getvalue()

    return encode


@pytest.fixture(scope="session")
def collection_home(tmp_path_factory: pytest.TempPathFactory, encode: Callable[..., bytes]) -> Home:
    """Three species; the first has a JPEG, a PNG and a WebP sheet, the second one sheet, the third none."""
    home = Home(tmp_path_factory.mktemp("collection"))
    with Catalogue.open(home, create=True) as catalogue:
        files = [encode(1), encode(2, "PNG"), encode(3, "WEBP", lossless=True), encode(4, size=(1500, 2000))]
        images = [catalogue.image_store.add(data) for data in files]
        specimens = [Specimen("CAY", "herbarium", "CAY012345"), Specimen(), Specimen("P", None, "P001"), Specimen("K")]
        owners = [0, 0, 0, 1]
        sheets = [
            Sheet(image.image_id, SPECIES[owner].species_id, image, f"plant-{n}", specimen, license="CC BY 4.0")
            for n, (image, specimen, owner) in enumerate(zip(images, specimens, owners, strict=True))
        ]
        with catalogue.writing() as writer:
            writer.put_species(SPECIES)
            writer.add_sheets(sheets)
    return home


class FakeIdentifier:
    """Answers from a collection without a network; `hold` makes it wait, `failure` makes it raise.

    What the answer comes down to can be set.
    """

    bundle_id = "bundle-1"
    model_id = "model-1"
    species = SPECIES
    species_ids = tuple(species.species_id for species in SPECIES)

    def __init__(self, sheets: dict[str, list[str]]) -> None:
        self._sheets = sheets
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Event()
        self.failure: Exception | None = None
        self.answered = 0
        self.batches: list[int] = []
        self.calibrated = True
        self.roll_up: RollUp | None = RollUp(TaxonRank.SPECIES, SPECIES[0].scientific_name, 0.84, 1)
        self.novelty: Novelty | None = Novelty(unknown_score=0.2, threshold=0.7)
        self.probability_outside = 0.25
        self.prediction_set: PredictionSet | None = PredictionSet(SPECIES[:2], 2, 1, 0.9, "It holds for the tested.")

    def decode(self, source: bytes, *, max_pixels: int) -> PillowImage.Image:
        return decode_image(source, max_pixels=max_pixels, minimum_side=8)

    def preprocess(self, image: PillowImage.Image) -> np.ndarray:
        small = np.asarray(image.resize((8, 8)), dtype=np.float32) / 255.0
        return small.transpose(2, 0, 1)

    @property
    def encoder(self) -> object:
        return self

    def knowledge(self, species_id: SpeciesId) -> SpeciesKnowledge | None:
        if species_id not in self.species_ids:
            return None
        n = self.species_ids.index(species_id)
        return SpeciesKnowledge(in_classifier=n < 2, has_field_photos=n == 0, has_sheets=bool(self._sheets[species_id]))

    def encode(self, pixels: np.ndarray) -> Encoded:
        assert pixels.ndim == 4
        assert pixels.dtype == np.float32
        self.batches.append(len(pixels))
        self.entered.set()
        self.hold.wait(10)
        if self.failure is not None:
            raise self.failure
        means = pixels.mean(axis=(2, 3)) + np.float32(1e-6)
        return Encoded(means, means / np.linalg.norm(means, axis=1, keepdims=True))

    def answer(
        self,
        encoded: Encoded,
        *,
        top_k: int = 5,
        sheets_per_candidate: int = 3,
        within: CandidateFilter | None = None,
    ) -> Identification:
        self.answered += 1
        allowed = list(SPECIES) if within is None else [SPECIES[i] for i in within.positions(SPECIES)]
        candidates = [
            Candidate(
                species,
                probability=0.6 / 2**n,
                similarity=0.8 - 0.1 * n if self._sheets[species.species_id] else None,
                has_field_photos=n == 0,
                in_classifier=n < 2,
                sheets=tuple(
                    SheetMatch(sheet_id, species.species_id, 0.7 - 0.1 * m)
                    for m, sheet_id in enumerate(self._sheets[species.species_id][:sheets_per_candidate])
                ),
            )
            for n, species in enumerate(allowed)
        ]
        decision = GateDecision(DecisionSource.GENERALIST, "The sheets are close to the photo.", {"distance": 0.4})
        return Identification(
            tuple(candidates[:top_k]),
            decision,
            self.bundle_id,
            len(encoded.logits),
            calibrated=self.calibrated,
            roll_up=self.roll_up,
            novelty=self.novelty,
            prediction_set=self.prediction_set,
            probability_outside=None if within is None else self.probability_outside,
        )


def fake_identifier(home: Home) -> FakeIdentifier:
    """The stand-in, its answers naming the sheets of `home`."""
    with Catalogue.open(home) as catalogue:
        sheets = {s.species_id: [sheet.sheet_id for sheet in catalogue.sheets(s.species_id)] for s in SPECIES}
    return FakeIdentifier(sheets)


def serving_with(identifier: FakeIdentifier | None, settings: Settings, collection: OpenCatalogue | Missing) -> Serving:
    """What a service with the stand-in, or with no bundle, answers from."""
    found = Missing("nothing is built: run `voucher build`") if identifier is None else identifier
    return Serving(queue_for(settings), collection, found)


@pytest.fixture
def identifier(collection_home: Home) -> FakeIdentifier:
    """The stand-in that `make_client` and `client` use."""
    return fake_identifier(collection_home)


@pytest.fixture
def make_client(collection_home: Home, identifier: FakeIdentifier) -> Iterator[Callable[..., TestClient]]:
    """A client of the service over the small collection, with settings; `bundle=None` leaves the bundle out."""
    opened: list[TestClient] = []

    def make(*, with_bundle: bool = True, with_catalogue: bool = True, **given: object) -> TestClient:
        settings = Settings(**({"home": collection_home.root} | given))

        def load(settings: Settings) -> Serving:
            return serving_with(
                identifier if with_bundle else None,
                settings,
                open_collection(collection_home) if with_catalogue else Missing("no catalogue: import first"),
            )

        client = TestClient(create_app(settings, load), raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        return client

    yield make
    identifier.hold.set()
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    """The service with its default settings."""
    return make_client()


@pytest.fixture(scope="module")
def serve_in_thread(collection_home: Home) -> Iterator[Callable[..., int]]:
    """Runs the real server in a thread, with the settings that are given; gives its port.

    Without `load` the stand-in answers, of the small collection or another home that holds its species.
    """
    running: list[tuple[AnnouncingServer, threading.Thread]] = []

    def start(home: Home = collection_home, load: Callable[[Settings], Serving] | None = None, **given: object) -> int:
        addresses: queue.SimpleQueue[str] = queue.SimpleQueue()

        def load_stand_in(settings: Settings) -> Serving:
            return serving_with(fake_identifier(home), settings, open_collection(home))

        server = build_server(Settings(home=home.root, port=0, **given), addresses.put, load or load_stand_in)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        return int(addresses.get(timeout=20).rsplit(":", 1)[1].strip("/"))

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, one for all tests of a file."""
    with running_browser() as opened:
        yield opened


@pytest.fixture
def photo(encode: Callable[..., bytes], tmp_path: Path) -> Path:
    """A file with a photo in upright format."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(11, size=(300, 400)))
    return path


@pytest.fixture
def static_folder() -> Path:
    """The files of the page."""
    return Path(__file__).resolve().parents[2] / "app" / "static"


@pytest.fixture(scope="module")
def service_with_worker(trained_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Home]]:
    """Address of a real server over a small trained network, a worker beside it, and their home."""
    # Loads torch, which most tests here do without.
    from indexer.worker import Worker

    root = tmp_path_factory.mktemp("living") / "home"
    shutil.copytree(trained_home.root, root)
    home = Home(root)
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
    server = build_server(Settings(home=root, port=0, device="cpu", worker=False), addresses.put)
    worker, ready = Worker(home, device="cpu"), threading.Event()
    threads = [
        threading.Thread(target=server.run),
        threading.Thread(target=worker.run, args=(lambda _: ready.set(),)),
    ]
    for thread in threads:
        thread.start()
    assert ready.wait(30)
    yield addresses.get(timeout=20), home
    worker.stop.set()
    server.should_exit = True
    for thread in threads:
        thread.join(30)
