"""`/v1/bundles`: the versions of the index, and which one answers."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.dependencies import CuratorDependency, HomeDependency
from app.routes.documented_errors import problems
from app.schemas.bundles import ActivationBody, BundleBody, BundleDifferenceBody, BundleList
from models.artifacts import activate
from models.bundle_history import BundleRecord, difference, get_bundle, list_bundles

router = APIRouter(tags=["bundles"])

_PLAIN_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"

BundleId = Annotated[str, Path(max_length=128, pattern=_PLAIN_NAME)]


@router.get("/v1/bundles", summary="List the versions of the index", responses=problems(503))
def get_bundles(home: HomeDependency) -> BundleList:
    """The latest first; one of them is served."""
    return BundleList(bundles=[_body(bundle) for bundle in list_bundles(home)])


@router.get("/v1/bundles/{bundle_id}", summary="One version of the index", responses=problems(404, 422, 503))
def get_one_bundle(bundle_id: BundleId, home: HomeDependency) -> BundleBody:
    """What it was built from, what had changed, and its figures on the validation photos."""
    return _body(get_bundle(home, bundle_id))


@router.get(
    "/v1/bundles/{bundle_id}/changes",
    summary="What a version holds that another does not",
    responses=problems(404, 422, 503),
)
def get_difference(
    bundle_id: BundleId, since: Annotated[str, Query(max_length=128, pattern=_PLAIN_NAME)], home: HomeDependency
) -> BundleDifferenceBody:
    """Sheets and species that came, went or were moved from the bundle `since` to this one; long lists are cut."""
    return BundleDifferenceBody.model_validate(difference(home, since, bundle_id).to_json())


@router.post(
    "/v1/bundles/{bundle_id}/activate",
    summary="Serve this version from now on",
    responses=problems(403, 404, 422, 503, 507),
)
def activate_bundle(
    bundle_id: BundleId, home: HomeDependency, curator: CuratorDependency, asked: ActivationBody | None = None
) -> BundleBody:
    """To go back to an earlier version, or to serve one that was held back.

    All its files are checked first. Every serving process follows within seconds; requests in flight end with the
    version that they began with.
    """
    get_bundle(home, bundle_id)
    activate(home, bundle_id, by=curator.named(asked.curator if asked else None))
    return _body(get_bundle(home, bundle_id))


def _body(bundle: BundleRecord) -> BundleBody:
    return BundleBody.model_validate(bundle.to_json())
