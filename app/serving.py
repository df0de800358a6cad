"""What a running service holds: the catalogue, the active bundle, and what is missing of either."""

import logging
from dataclasses import dataclass

from app.error_responses import NotReady
from app.inference import InferenceQueue
from app.renditions import Renditions
from app.settings import Settings
from app.species_directory import SpeciesDirectory
from models.catalogue import Catalogue
from models.compute import Compute
from models.errors import VoucherError
from models.home import Home
from models.identifier import Identifier

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ActiveBundle:
    """One loaded bundle and the queue in front of it."""

    identifier: Identifier
    queue: InferenceQueue


@dataclass(frozen=True, slots=True)
class OpenCatalogue:
    """The catalogue, and what lists and pictures are served from."""

    catalogue: Catalogue
    directory: SpeciesDirectory
    renditions: Renditions


@dataclass(frozen=True, slots=True)
class Missing:
    """In the place of something that could not be loaded: what is missing, and the remedy."""

    reason: str


@dataclass(frozen=True, slots=True)
class Serving:
    """What a service answers from; each part is there or says why it is not."""

    collection_or_missing: OpenCatalogue | Missing
    bundle_or_missing: ActiveBundle | Missing

    @property
    def collection(self) -> OpenCatalogue:
        """The catalogue and its pictures. Raises `NotReady`."""
        if isinstance(self.collection_or_missing, Missing):
            raise NotReady(self.collection_or_missing.reason)
        return self.collection_or_missing

    @property
    def bundle(self) -> ActiveBundle:
        """The active bundle. Raises `NotReady`."""
        if isinstance(self.bundle_or_missing, Missing):
            raise NotReady(self.bundle_or_missing.reason)
        return self.bundle_or_missing

    def close(self) -> None:
        """Let running work end and release the database."""
        if isinstance(self.bundle_or_missing, ActiveBundle):
            self.bundle_or_missing.queue.close()
        if isinstance(self.collection_or_missing, OpenCatalogue):
            self.collection_or_missing.catalogue.close()


def load_serving(settings: Settings) -> Serving:
    """What `settings.home` has to serve; what cannot be loaded is kept as its error, and logged.

    Blocks for as long as reading and checking a bundle takes. Raises `DeviceUnavailable` when a device
    was asked for by name and is not there.
    """
    home = Home(settings.home)
    compute = Compute.resolve(settings.device)
    collection: OpenCatalogue | Missing
    bundle: ActiveBundle | Missing
    try:
        collection = open_collection(home)
    except VoucherError as error:
        logger.warning("no catalogue to serve: %s", error)
        collection = Missing(str(error))
    try:
        bundle = _load_bundle(home, compute, settings)
    except VoucherError as error:
        logger.warning("no bundle to serve: %s", error)
        bundle = Missing(str(error))
    return Serving(collection, bundle)


def open_collection(home: Home) -> OpenCatalogue:
    """The catalogue of `home` and its pictures. Raises `CatalogueError`."""
    catalogue = Catalogue.open(home)
    renditions = Renditions(home.renditions, catalogue.image_store)
    return OpenCatalogue(catalogue, SpeciesDirectory(catalogue), renditions)


def _load_bundle(home: Home, compute: Compute, settings: Settings) -> ActiveBundle:
    identifier = Identifier.load(home, compute)
    logger.info("serving bundle %s", identifier.bundle_id)
    queue = InferenceQueue(
        identifier,
        queue_limit=settings.queue_limit,
        decode_workers=settings.decode_workers,
        max_pixels=settings.max_pixels,
        timeout_seconds=settings.request_timeout_seconds,
    )
    return ActiveBundle(identifier, queue)
