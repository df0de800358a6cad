"""`/v1/explanations`: heat maps of answers, for as long as they are kept."""

from fastapi import APIRouter, Response

from app.dependencies import ExplainerDependency
from app.refusals import UnknownExplanation
from app.routes.documented_errors import problems

router = APIRouter(tags=["identifications"])


@router.get(
    "/v1/explanations/{explanation_id}/{name}.png",
    summary="A heat map of an answer, as PNG",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, **problems(404)},
)
def get_heat_map(explanation_id: str, name: str, explainer: ExplainerDependency) -> Response:
    """What of a photo or a sheet made the two alike, to be laid over the whole upright picture.

    RGBA with the picture's proportions, transparent where nothing counted. Whoever knows the address may see it, for
    an hour unless the service is set otherwise; it holds no pixel of the photo.
    """
    found = explainer.store.get(explanation_id, name)
    if found is None:
        raise UnknownExplanation("there is no such heat map, or it has expired; identify again with explain=true")
    headers = {"Cache-Control": f"private, max-age={int(found.seconds_left)}"}
    return Response(found.png, media_type="image/png", headers=headers)
