"""Follows the home's pointer: loads the bundle that it names, while the one before goes on answering."""

import gc
import logging
import re
import threading
import time
from collections.abc import Callable

from app.cpu_share import network_share
from app.memory import FreeMemory
from app.serving import Missing, Serving, open_collection, queue_for
from app.settings import Settings, home_of
from models.artifacts import active_artifact_id
from models.compute import Compute, limit_threads
from models.errors import CatalogueError, VoucherError
from models.home import Home
from models.identifier import Identifier

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Between two looks at the pointer; several serving processes follow it by themselves, without telling each other."""

RETRY_SECONDS = 15.0
"""Before what could not be loaded is tried again: a disk may come back, a file may be restored."""

PointerState = tuple[int, int, int] | None


class BundleWatch:
    """Keeps `serving` at the bundle and the catalogue that `home` names; a failure leaves what answers in place."""

    def __init__(
        self,
        home: Home,
        serving: Serving,
        load: Callable[[str, Identifier | None], Identifier],
        *,
        poll_seconds: float = POLL_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._serving, self._load = home, serving, load
        self._poll_seconds, self._retry_seconds, self._now = poll_seconds, retry_seconds, now
        self._free_memory = FreeMemory()
        self._seen: PointerState = None
        self._told: dict[str, str] = {}
        self._retry_at = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="bundle-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; a load under way is waited for."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> None:
        """Bring `serving` up to date if anything changed, or a failed load is due again."""
        state = self._pointer_state()
        changed = state != self._seen
        if not changed and (self._now() < self._retry_at or not self._lacks_anything()):
            return
        # Noted before loading: a pointer that is replaced meanwhile is seen as changed by the next look.
        self._seen = state
        self._retry_at = self._now() + self._retry_seconds
        if not self._serving.has_collection:
            self._open_collection()
        self._follow()

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self.look()
            except Exception:
                logger.exception("the bundle cannot be followed")
                self._serving.complaint = "the new bundle could not be loaded; the log says why"

    def _lacks_anything(self) -> bool:
        lacking = self._serving.identifier_or_none is None or not self._serving.has_collection
        return lacking or self._serving.complaint is not None

    def _pointer_state(self) -> PointerState:
        try:
            found = self._home.active_pointer.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _open_collection(self) -> None:
        try:
            self._serving.put_collection(open_collection(self._home))
            self._told.pop("catalogue", None)
        except VoucherError as error:
            self._tell("catalogue", "no catalogue to serve", error)
            self._serving.put_collection(Missing(self._public(error)))

    def _follow(self) -> None:
        current = self._serving.identifier_or_none
        try:
            wanted = active_artifact_id(self._home)
            if current is None or current.bundle_id != wanted:
                current = self._load(wanted, current)
                self._serving.put_identifier(current)
                logger.info("serving bundle %s", current.bundle_id)
            self._serving.complaint = None
            self._told.pop("bundle", None)
        except (VoucherError, OSError, MemoryError) as error:
            if current is None:
                self._tell("bundle", "no bundle to serve", error)
                self._serving.put_identifier(Missing(self._public(error)))
            else:
                self._tell("bundle", f"bundle {current.bundle_id} goes on answering", error)
            self._serving.complaint = self._public(error)
            return
        del current
        # What was replaced holds large arrays; cycles through it would keep them until the next collection.
        gc.collect()
        self._free_memory.give_back()

    def _tell(self, subject: str, what: str, error: Exception) -> None:
        """Once for each reason, not with every attempt."""
        if self._told.get(subject) != str(error):
            logger.warning("%s: %s", what, error)
        self._told[subject] = str(error)

    def _public(self, error: Exception) -> str:
        """What everybody may know who reaches the service: neither the server of a database nor where the home lies."""
        if isinstance(error, CatalogueError):
            return "the catalogue cannot be read; the service's log says why"
        text = str(error)
        for root in (self._home.root.resolve(), self._home.root):
            # As a path of its own or the beginning of one: a home may be called "." or like a word.
            text = re.sub(rf"(?<![\w./-]){re.escape(str(root))}(?=/|$|[\s:;,)])", "the home", text)
        return text


def load_serving(settings: Settings) -> Serving:
    """What `settings.home` has to serve, with a watch that keeps it at what is active once it is started.

    What cannot be loaded is kept as its error, and logged. Blocks for as long as reading and checking a bundle takes.
    Raises `DeviceUnavailable` when a device was asked for by name and is not there.
    """
    home = home_of(settings)
    compute = Compute.resolve(settings.device)

    def load(bundle_id: str, current: Identifier | None) -> Identifier:
        # OpenMP keeps threads for every thread that has once computed in parallel. When these are more than the cores
        # it stops waiting for work actively, and each layer of the network takes several times as long: a photo took
        # 37 ms in place of 14. So the network's lanes are the only threads that compute in parallel.
        limit_threads(1)
        return Identifier.load(home, compute, bundle_id, model=None if current is None else current.bundle.model)

    absent = Missing("the service is starting")
    share = network_share(settings, on_cpu=compute.cuda_index is None)
    serving = Serving(queue_for(settings, share=share, limit_threads=limit_threads), absent, absent)
    watch = BundleWatch(home, serving, load)
    watch.look()
    serving.attach(watch)
    return serving
