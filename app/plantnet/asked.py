"""What a client asks for: options in the query or the form, organs, images and the project."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from starlette.datastructures import QueryParams

from app.refusals import AddressTooLong, UnacceptableForm, UnknownProject, UnsupportedUpload
from app.remote_images import refuse_other_formats
from app.settings import Settings
from app.uploads import FormShape
from models.specimens import Organ

MAX_IMAGES = 5
MAX_QUERY_BYTES = 16_384
"""Room for five addresses of the greatest length, percent-encoded here and there."""

MAX_TEXT_BYTES = 200
DEFAULT_RESULTS = 10
MAX_RESULTS = 200

FLORA = "collection"
"""The one project."""

ALL_PROJECTS = ("all", "k-world-flora")
"""What clients ask for when they do not care."""

_LANGUAGES = (
    "en fr es pt de it ar cs nl sk zh ru tr pl uk he el fi id ms ca ja hu hr da ro bg nb sl sv et eu ur ml cy ku gl eo "
    "sat zh-tw pt-br hi de-at sr zh-hant bn fa be oc lt en-au br"
)
LANGUAGES = tuple(_LANGUAGES.split())
"""Codes of Pl@ntNet's description."""

IMAGES_FIELD = "images"
ORGANS_FIELD = "organs"


def _known_language(text: str) -> str:
    language = text.lower().replace("_", "-")
    if language not in LANGUAGES:
        raise ValueError("expected one of the codes that /v2/languages lists")
    return language


def _no_more_than_there_are(count: int) -> int:
    return min(count, MAX_RESULTS)


Language = Annotated[str, AfterValidator(_known_language), Field(json_schema_extra={"enum": list(LANGUAGES)})]
ModelType = Literal["kt", "legacy"]


class Asked(BaseModel):
    """Base of what can be asked; parameters that are not known are passed over, empty ones count as not given."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty_values(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value != ""} if isinstance(given, dict) else given


class IdentifyQuery(Asked):
    """How to identify."""

    include_related_images: bool = Field(
        False, alias="include-related-images", description="whether results come with their most similar sheets"
    )
    no_reject: bool = Field(
        False,
        alias="no-reject",
        description="whether photos of no known plant get results all the same, instead of 404",
    )
    nb_results: Annotated[int, AfterValidator(_no_more_than_there_are)] = Field(
        DEFAULT_RESULTS, alias="nb-results", ge=1, description=f"results at most; never more than {MAX_RESULTS}"
    )
    lang: Language = Field("en", description="told again in the answer; names are scientific in any language")
    type: ModelType | None = Field(None, description="told again in the answer; there is one model")
    detailed: bool = Field(False, description="whether genera and families are told too")
    organs: list[str] = Field(
        default_factory=list,
        max_length=MAX_IMAGES,
        description="organ of each image: leaf, flower, fruit, bark, auto, habit or other; none: auto",
    )
    api_key: str | None = Field(None, alias="api-key", description="the key, where the service asks for one")


def _address_list(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


class IdentifyUrlsQuery(IdentifyQuery):
    """How to identify, and addresses of images."""

    images: Annotated[list[str], BeforeValidator(_address_list)] = Field(
        min_length=1, max_length=MAX_IMAGES, description="addresses of 1–5 images of one plant"
    )


OPTION_FIELDS = tuple(
    field.alias or name for name, field in IdentifyQuery.model_fields.items() if name not in ("organs",)
)


def form_shape(settings: Settings) -> FormShape:
    """What the form of an identification may hold; some clients put options there that belong in the query."""
    return FormShape(
        IMAGES_FIELD,
        "image",
        "images of one plant",
        (ORGANS_FIELD, *OPTION_FIELDS, "project"),
        min(MAX_IMAGES, settings.max_photos),
        settings.max_upload_bytes,
        MAX_TEXT_BYTES,
    )


def with_form(asked: IdentifyQuery, query: QueryParams, texts: Mapping[str, list[str]]) -> IdentifyQuery:
    """What was asked in query and form together; the query comes first. Raises `UnacceptableForm`."""
    in_form = {name: values[-1] for name, values in texts.items() if name in OPTION_FIELDS}
    organs = [organ for organ in texts.get(ORGANS_FIELD, []) if organ] or asked.organs
    if not in_form:
        return asked.model_copy(update={"organs": organs})
    in_query = {name: query[name] for name in OPTION_FIELDS if query.get(name)}
    try:
        return IdentifyQuery.model_validate({**in_form, **in_query, "organs": organs})
    except ValidationError as error:
        faults = "; ".join(f"{fault['loc'][0] if fault['loc'] else ''}: {fault['msg']}" for fault in error.errors())
        raise UnacceptableForm(faults) from None


def organs_of(given: Sequence[str], image_count: int) -> list[str]:
    """The organ of each image; all `auto` where none is given. Raises `UnacceptableForm`."""
    if not given:
        return [Organ.AUTO.value] * image_count
    organs = [organ.lower() for organ in given]
    known = [organ.value for organ in Organ]
    if any(organ not in known for organ in organs):
        raise UnacceptableForm(f"organs: expected each to be one of {', '.join(known)}")
    if len(organs) != image_count:
        raise UnacceptableForm(
            f"organs: expected as many as there are images, which are {image_count}, or none; found {len(organs)}"
        )
    return organs


def check_images(images: Sequence[bytes]) -> None:
    """Raises `UnsupportedUpload` when one is neither JPEG nor PNG."""
    for position, content in enumerate(images, start=1):
        try:
            refuse_other_formats(content)
        except UnsupportedUpload as error:
            raise UnsupportedUpload(f"image {position}: {error}") from None


def check_project(project: str, settings: Settings) -> str:
    """The flora that a project stands for. Raises `UnknownProject`."""
    if project not in (FLORA, *ALL_PROJECTS, *settings.plantnet_projects):
        raise UnknownProject(f"there is no such project; expected {', '.join((*ALL_PROJECTS, FLORA))}")
    return FLORA


def check_address_length(query: bytes) -> None:
    """Raises `AddressTooLong`."""
    if len(query) > MAX_QUERY_BYTES:
        raise AddressTooLong(f"expected a query of at most {MAX_QUERY_BYTES} bytes; send the images with POST")
