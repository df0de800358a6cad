"""`/v1/changes`: what was done to the collection lately, and how much of it no index holds yet."""

from collections.abc import Generator
from contextlib import closing
from itertools import islice
from typing import Annotated, cast

from fastapi import APIRouter, Query

from app.dependencies import CatalogueDependency, HomeDependency
from app.routes.documented_errors import problems
from app.schemas.collection import ChangesBody, RevisionBody
from models.bundle_history import BundleRecord, list_bundles
from models.catalogue import Catalogue
from models.home import Home
from models.specimens import Sheet

router = APIRouter(tags=["changes"])

MOST_COUNTED = 1_000
"""After an import of a million sheets it is enough to know that there are many; pages ask every few seconds."""


@router.get(
    "/v1/changes", summary="What was changed, and how much of it is not in the index yet", responses=problems(422, 503)
)
def get_changes(
    catalogue: CatalogueDependency, home: HomeDependency, limit: Annotated[int, Query(ge=1, le=200)] = 20
) -> ChangesBody:
    """The latest changes first. `pending` counts the sheets that were changed since the newest index was built."""
    newest, served = _newest_and_served(home)
    since = _revision_in(catalogue, newest)
    # A half-read result would keep its database connection until it is collected.
    with closing(cast(Generator[Sheet, None, None], catalogue.changed_sheets(since))) as changed:
        pending = sum(1 for _ in islice(changed, MOST_COUNTED + 1))
    latest = [
        RevisionBody(revision=r.revision, at=r.at.isoformat(), by=r.actor, action=r.action, sheets=r.sheets)
        for r in reversed(catalogue.revisions(limit=limit))
    ]
    return ChangesBody(
        pending=min(pending, MOST_COUNTED),
        pending_is_more=pending > MOST_COUNTED,
        since=since,
        newest_is_served=newest is not None and served is not None and newest.catalogue == served.catalogue,
        latest=latest,
    )


def _newest_and_served(home: Home) -> tuple[BundleRecord | None, BundleRecord | None]:
    """The sound index of the newest state, and the one that is in service; None where there is none."""
    bundles = [bundle for bundle in list_bundles(home) if bundle.fault is None]
    return next(iter(bundles), None), next((bundle for bundle in bundles if bundle.is_active), None)


def _revision_in(catalogue: Catalogue, newest: BundleRecord | None) -> int:
    """The change up to which the newest index goes; 0 where there is none of this catalogue's history."""
    if newest is None or not catalogue.has_revision(newest.catalogue.revision, newest.catalogue.token):
        return 0
    return newest.catalogue.revision
