"""Who may change the collection over HTTP: keys of curators or, where no keys are in force, users of this machine."""

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from app.access import Scope, check_access, control_of
from app.foreign_pages import refuse_foreign_pages
from app.refusals import CurationOff
from app.settings import Settings
from app.this_machine import came_through_a_proxy, host_name, is_loopback
from models.plain_text import curator_name

ANONYMOUS = "web"
"""Who has done it, in the catalogue's history, when a request does not say."""


@dataclass(frozen=True, slots=True)
class CurationAccess:
    """A request that may change the collection; `key_name` is None where no key is needed."""

    key_name: str | None = None

    def named(self, given: str | None) -> str:
        """The name for the catalogue's history. Raises `InvalidSheetDetails`.

        What a client gives is not proved; the name of its key is, and is told beside it.
        """
        name = curator_name(given) if given is not None and given.strip() else None
        if self.key_name is None:
            return name or ANONYMOUS
        return self.key_name if name is None or name == self.key_name else f"{name} (key {self.key_name})"


async def check_curation(connection: HTTPConnection) -> CurationAccess:
    """Leave to change the collection. Raises `CurationOff`, `ForeignPage` and what `check_access` raises."""
    if await control_of(connection).in_force():
        access = await check_access(connection, Scope.CURATE)
        return CurationAccess(access.name)
    check_local_curation(connection.app.state.settings, connection.headers)
    return CurationAccess()


def check_local_curation(settings: Settings, headers: Headers) -> None:
    """Where no keys are in force. Raises `CurationOff` and `ForeignPage`.

    A name that leads to this machine, or a proxy on it, would let others in at an address of its own.
    """
    remedy = "make a key with `voucher keys create --name NAME --scope curate` and serve with VOUCHER_ACCESS=keys"
    if not is_loopback(settings.host):
        raise CurationOff(f"curation is off: the service listens for other machines without asking for keys; {remedy}")
    if came_through_a_proxy(headers):
        raise CurationOff(f"curation is off: the request came through a proxy; {remedy}")
    if not is_loopback(host_name(headers)):
        raise CurationOff(f"curation is off: the request is for another host name than localhost; {remedy}")
    refuse_foreign_pages(headers)
