"""What goes over the wire, field by field; the words are those of STYLE and Darwin Core."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Similarity = Annotated[float, Field(ge=-1.001, le=1.001, description="cosine similarity, -1 … 1")]


class WireModel(BaseModel):
    """Base of all bodies that the service sends."""

    model_config = ConfigDict(frozen=True)


class Problem(WireModel):
    """RFC 9457 problem document; every error is one."""

    type: str = Field(description="stable identifier of the kind of problem")
    title: str = Field(description="the kind of problem in a few words")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="what was expected, what was found, and the remedy")
    request_id: str = Field(description="also in the header X-Request-ID and in the service's log")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:voucher:problem:unreadable-image",
                "title": "The photo cannot be used",
                "status": 422,
                "detail": "photo 2 is empty; choose the file again",
                "request_id": "0f6c1f2f4d1c4a8d9a53f2f6a8f1c001",
            }
        }
    )


class SheetEvidence(WireModel):
    """A herbarium sheet that vouches for a candidate."""

    sheet_id: str
    similarity: Similarity
    institution_code: str | None = Field(None, description="Darwin Core institutionCode")
    collection_code: str | None = Field(None, description="Darwin Core collectionCode")
    catalog_number: str | None = Field(None, description="Darwin Core catalogNumber")
    image_url: str = Field(description="the sheet in full size, relative to this service")
    thumbnail_url: str


class CandidateBody(WireModel):
    """One possible species."""

    species_id: str
    scientific_name: str
    genus: str | None = None
    family: str | None = None
    probability: float = Field(ge=0, le=1, description="0 … 1; at most one in sum over the candidates")
    similarity: Similarity | None = Field(description="to the species' sheets as a whole; null when it has none")
    has_field_photos: bool = Field(
        description="whether field photos of this species were in training; without, less is certain"
    )
    in_classifier: bool = Field(description="whether the trained classifier has a column for the species")
    sheets: list[SheetEvidence] = Field(default_factory=list, description="the most similar first")


class DecisionBody(WireModel):
    """Who decided, and why."""

    source: str = Field(description="specialist, generalist or fusion")
    reason: str = Field(description="a sentence for people")
    evidence: dict[str, float] = Field(description="the figures that the decision rests on")


class IdentificationBody(WireModel):
    """The answer to `POST /v1/identifications`."""

    identification_id: str = Field(description="the request id, which finds the line in the log")
    bundle_id: str = Field(description="the index and model that answered")
    photo_count: int = Field(ge=1)
    decision: DecisionBody
    candidates: list[CandidateBody] = Field(description="by falling probability")
    milliseconds: float = Field(ge=0, description="from the whole upload to the answer")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "identification_id": "0f6c1f2f4d1c4a8d9a53f2f6a8f1c001",
                "bundle_id": "20260101T120000Z-1f2e3d4c",
                "photo_count": 1,
                "decision": {
                    "source": "generalist",
                    "reason": "No field photos of the nearest species were in training; the sheets decided.",
                    "evidence": {"prototype_distance": 0.41},
                },
                "candidates": [
                    {
                        "species_id": "105951",
                        "scientific_name": "Costus arabicus L.",
                        "genus": "Costus",
                        "family": "Costaceae",
                        "probability": 0.62,
                        "similarity": 0.71,
                        "has_field_photos": False,
                        "in_classifier": True,
                        "sheets": [
                            {
                                "sheet_id": "a3c1f0d2e4b596877869",
                                "similarity": 0.74,
                                "institution_code": "CAY",
                                "collection_code": None,
                                "catalog_number": "CAY012345",
                                "image_url": "/v1/sheets/a3c1f0d2e4b596877869/image",
                                "thumbnail_url": "/v1/sheets/a3c1f0d2e4b596877869/thumbnail?size=320",
                            }
                        ],
                    }
                ],
                "milliseconds": 184.0,
            }
        }
    )


class SpeciesBody(WireModel):
    """One species of the catalogue."""

    species_id: str
    scientific_name: str
    genus: str | None = None
    family: str | None = None
    sheet_count: int = Field(ge=0)
    field_photo_count: int = Field(ge=0)


class SpeciesPage(WireModel):
    """A page of the species list, by scientific name."""

    total: int = Field(ge=0, description="species that fit the search")
    limit: int
    offset: int
    species: list[SpeciesBody]


class SheetBody(WireModel):
    """One herbarium sheet."""

    sheet_id: str
    species_id: str
    scientific_name: str
    institution_code: str | None = Field(None, description="Darwin Core institutionCode")
    collection_code: str | None = Field(None, description="Darwin Core collectionCode")
    catalog_number: str | None = Field(None, description="Darwin Core catalogNumber")
    license: str | None = None
    rights_holder: str | None = None
    width: int = Field(ge=1, description="pixels")
    height: int = Field(ge=1, description="pixels")
    image_url: str
    thumbnail_url: str


class SheetPage(WireModel):
    """A page of a species' sheets."""

    total: int = Field(ge=0)
    limit: int
    offset: int
    sheets: list[SheetBody]


class Health(WireModel):
    """The process is alive."""

    status: str


class Readiness(WireModel):
    """The service identifies plants."""

    status: str
    bundle_id: str
    model_id: str
    species_count: int
