"""Answers about plants, and what they rest on."""

from typing import Literal

from pydantic import ConfigDict, Field

from app.schemas.wire import Similarity, WireModel


class ExplanationBody(WireModel):
    """Where heat maps are that show what makes a photo and a sheet alike; each lies over its whole upright picture."""

    photo_position: int = Field(ge=1, description="which of the photos, from 1: the one most similar to the sheet")
    photo_heat_map_url: str = Field(description="PNG with transparency, relative to this service; it expires")
    sheet_heat_map_url: str


class SheetExplanationBody(WireModel):
    """A sheet that was to be explained."""

    sheet_id: str
    explanation: ExplanationBody | None = Field(description="null where the sheet's picture cannot be read")


class ExplanationsBody(WireModel):
    """The answer to `POST /v1/explanations`."""

    bundle_id: str = Field(description="the index in whose metric photo and sheets were compared")
    explanations: list[SheetExplanationBody] = Field(description="in the order of the sheets that were asked for")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "bundle_id": "index-20260101-120000-1f2e3d",
                "explanations": [
                    {
                        "sheet_id": "a3c1f0d2e4b596877869",
                        "explanation": {
                            "photo_position": 1,
                            "photo_heat_map_url": "/v1/explanations/0f6c1f2f4d1c4a8d9a53f2f6a8f1c001/photo-1.png",
                            "sheet_heat_map_url": "/v1/explanations/0f6c1f2f4d1c4a8d9a53f2f6a8f1c001/sheet-1.png",
                        },
                    }
                ],
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
    explanation: ExplanationBody | None = Field(
        None, description="null unless explain=true asked for it, and where it could not be made"
    )


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


class RollUpBody(WireModel):
    """The lowest taxon that is likely enough."""

    taxon_rank: str = Field(description="species, genus or family (Darwin Core taxonRank)")
    name: str
    probability: float = Field(ge=0, le=1, description="summed over the taxon's species")
    species_count: int = Field(ge=1, description="species of the index that belong to it")


class UnknownBody(WireModel):
    """Whether the plant is of a species that the index does not hold."""

    score: float = Field(ge=0, le=1, description="the higher, the less the plant looks like any species of the index")
    threshold: float = Field(ge=0, le=1, description="95 % of photos of known species lie below")
    is_unknown: bool = Field(description="whether the answer is: none of these")


class SpeciesName(WireModel):
    """A species by id and name."""

    species_id: str
    scientific_name: str


class PredictionSetBody(WireModel):
    """Species among which the true one is, with a stated probability."""

    coverage: float = Field(ge=0, le=1, description="how often such a set holds the true species")
    size: int = Field(ge=0, description="species in the set; 0 when none is likely enough")
    species: list[SpeciesName] = Field(description="the likeliest of the set first, at most 50")
    herbarium_only: int = Field(ge=0, description="how many of the set are known from sheets alone")
    guarantee: str = Field(description="for whom the coverage holds, and how it is known")


class IgnoredBody(WireModel):
    """What of a restriction the index does not hold."""

    count: int = Field(ge=0)
    entries: list[str] = Field(description="species_ids, then genera, then families; at most 50")


class IdentificationBody(WireModel):
    """The answer to `POST /v1/identifications`."""

    identification_id: str = Field(description="the request id, which finds the line in the log")
    bundle_id: str = Field(description="the index that answered")
    model_id: str = Field(description="the model that answered")
    software: str = Field(description="name and version of the software that answered")
    photo_count: int = Field(ge=1)
    outcome: str = Field(description="species, genus, family, undecided, or none of these")
    summary: str = Field(description="the answer in a sentence for people")
    calibrated: bool = Field(
        description="whether the probabilities were fitted to photos that the answering networks had not seen"
    )
    roll_up: RollUpBody | None = Field(description="null when not even a family is likely enough")
    unknown: UnknownBody | None = Field(description="null when too few photos told how unknown plants look")
    prediction_set: PredictionSetBody | None = Field(description="null when too few photos told a limit")
    decision: DecisionBody
    probability_outside: float | None = Field(
        None,
        ge=0,
        le=1,
        description="what the species that species_ids, genera and families left out have together, of all species; "
        "null when none of these was given",
    )
    ignored: IgnoredBody | None = Field(
        None, description="entries of species_ids, genera and families that were left out; null without ignore_unlisted"
    )
    candidates: list[CandidateBody] = Field(description="by falling probability")
    milliseconds: float = Field(ge=0, description="from the whole upload to the answer")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "identification_id": "0f6c1f2f4d1c4a8d9a53f2f6a8f1c001",
                "bundle_id": "index-20260101-120000-1f2e3d",
                "model_id": "model-20251220-093000-4c5b6a",
                "software": "voucher 0.1.0",
                "photo_count": 1,
                "outcome": "genus",
                "summary": "Genus Costus (91 %): the species are too close to call. Most likely: Costus arabicus L. "
                "(62 %).",
                "calibrated": True,
                "roll_up": {"taxon_rank": "genus", "name": "Costus", "probability": 0.91, "species_count": 4},
                "unknown": {"score": 0.21, "threshold": 0.83, "is_unknown": False},
                "prediction_set": {
                    "coverage": 0.9,
                    "size": 1,
                    "species": [{"species_id": "105951", "scientific_name": "Costus arabicus L."}],
                    "herbarium_only": 1,
                    "guarantee": "Of photos of species with field photos, 90 % have their species in such a set. For "
                    "the one species known from herbarium sheets only, this is estimated from species whose photos "
                    "were hidden in training, and not guaranteed.",
                },
                "decision": {
                    "source": "generalist",
                    "reason": "No field photos of the nearest species were in training; the sheets decided.",
                    "evidence": {"prototype_distance": 0.41},
                },
                "probability_outside": None,
                "ignored": None,
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


class EmbeddingsBody(WireModel):
    """Vectors of images."""

    bundle_id: str
    model_id: str
    space_id: str = Field(description="vectors of one space may be compared, others not")
    role: Literal["sheet", "field"] | None = Field(description="the images' role, if they are in the bundle's metric")
    dimensions: int = Field(ge=1, description="numbers of one vector")
    embeddings: list[list[float]] = Field(description="a unit vector for each image, in their order")
