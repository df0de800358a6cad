"""What a running service holds: the catalogue, the active bundle, and what is missing of either."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from app.cpu_share import NetworkShare, decode_threads
from app.database_silence import SilenceGuard
from app.inference import InferenceQueue, Observer
from app.refusals import NotReady
from app.renditions import Renditions
from app.settings import Settings
from app.species_directory import SpeciesDirectory
from models.catalogue import Catalogue
from models.home import Home
from models.identifier import Identifier
from models.specimens import Sheet, Specimen

T = TypeVar("T")


class Background(Protocol):
    """Something that runs beside the requests."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, and return when it has."""


@dataclass(frozen=True, slots=True)
class OpenCatalogue:
    """The catalogue, and what lists and pictures are served from.

    `silence` guards against a database server that hangs; a file needs no guard.
    """

    catalogue: Catalogue
    directory: SpeciesDirectory
    renditions: Renditions
    silence: SilenceGuard | None = None

    def cited_sheets(self, sheet_ids: Sequence[str]) -> dict[str, Sheet]:
        """The sheets that an answer cites, without those that are gone. Raises `CatalogueError` and `StorageFull`."""
        return self._asked(lambda: self.catalogue.get_sheets(sheet_ids))

    def cited_specimens(self, sheet_ids: Sequence[str]) -> dict[str, Specimen]:
        """The pressed plants of sheets, by the sheets' ids; as `cited_sheets`."""
        return self._asked(lambda: self.catalogue.get_specimens(sheet_ids))

    def _asked(self, question: Callable[[], T]) -> T:
        return question() if self.silence is None else self.silence.ask_and_wait(question)


@dataclass(frozen=True, slots=True)
class Missing:
    """In the place of something that could not be loaded: what is missing, and the remedy."""

    reason: str


class Serving:
    """What a service answers from; each part is there or says why it is not.

    The bundle may be replaced at any time: whoever handles a request asks for `identifier` once and ends with what it
    got. The one that was replaced is freed with the last request that holds it.
    """

    def __init__(
        self, queue: InferenceQueue, collection: OpenCatalogue | Missing, identifier: Identifier | Missing
    ) -> None:
        self.queue = queue
        self._collection = collection
        self._identifier = identifier
        self._background: list[Background] = []
        self.complaint: str | None = None
        """Why the bundle that the home names is not the one that answers; none while all is well."""

    @property
    def collection(self) -> OpenCatalogue:
        """The catalogue and its pictures. Raises `NotReady`."""
        if isinstance(self._collection, Missing):
            raise NotReady(self._collection.reason)
        return self._collection

    @property
    def has_collection(self) -> bool:
        """Whether there is a catalogue."""
        return not isinstance(self._collection, Missing)

    @property
    def identifier(self) -> Identifier:
        """With the bundle that answers now. Raises `NotReady`."""
        if isinstance(self._identifier, Missing):
            raise NotReady(self._identifier.reason)
        return self._identifier

    @property
    def identifier_or_none(self) -> Identifier | None:
        """With the bundle that answers now, if there is one."""
        return None if isinstance(self._identifier, Missing) else self._identifier

    @property
    def missing_collection(self) -> str | None:
        """Why there is no catalogue; None when there is one."""
        return self._collection.reason if isinstance(self._collection, Missing) else None

    @property
    def missing_identifier(self) -> str | None:
        """Why no bundle answers; None when one does."""
        return self._identifier.reason if isinstance(self._identifier, Missing) else None

    def put_collection(self, collection: OpenCatalogue | Missing) -> None:
        """Serve this catalogue from the next request on."""
        self._collection = collection

    def put_identifier(self, identifier: Identifier | Missing) -> None:
        """Answer with this from the next request on."""
        self._identifier = identifier

    def attach(self, background: Background) -> None:
        """Have `background` run while the service does."""
        self._background.append(background)

    def start(self) -> None:
        """Begin what runs beside the requests."""
        for background in self._background:
            background.start()

    def close(self) -> None:
        """End what runs beside the requests, let running work end and release the database."""
        for background in reversed(self._background):
            background.stop()
        self.queue.close()
        if isinstance(self._collection, OpenCatalogue):
            self._collection.catalogue.close()


def open_collection(home: Home) -> OpenCatalogue:
    """The catalogue of `home` and its pictures. Raises `CatalogueError`."""
    catalogue = Catalogue.open(home)
    renditions = Renditions(home.renditions, catalogue.image_store)
    silence = None if home.database_url is None else SilenceGuard("sheets")
    return OpenCatalogue(catalogue, SpeciesDirectory(catalogue), renditions, silence)


def queue_for(
    settings: Settings,
    observer: Observer | None = None,
    *,
    share: NetworkShare | None = None,
    limit_threads: Callable[[int], None] = lambda count: None,
) -> InferenceQueue:
    """The way to the network, within the limits of the settings.

    `share` divides the cores among the network's lanes, of which there is one without; they call `limit_threads` with
    how many are theirs.
    """
    share = share or NetworkShare()
    return InferenceQueue(
        queue_limit=settings.queue_limit,
        decode_workers=decode_threads(settings),
        max_pixels=settings.max_pixels,
        timeout_seconds=settings.request_timeout_seconds,
        max_batch=settings.max_batch,
        max_wait_seconds=settings.batch_wait_seconds,
        observer=observer,
        lanes=share.lanes,
        prepare=lambda is_alone: limit_threads(share.threads_of_lane(is_alone=is_alone)),
    )
