"""Answers about plants."""

from typing import Literal

from indexer.client.answers.base import Answer


class Explanation(Answer):
    """Addresses of heat maps, relative to the service."""

    photo_position: int
    photo_heat_map_url: str
    sheet_heat_map_url: str


class SheetEvidence(Answer):
    """A sheet that vouches for a candidate; `similarity` is a cosine, -1 … 1."""

    sheet_id: str
    similarity: float
    institution_code: str | None = None
    collection_code: str | None = None
    catalog_number: str | None = None
    image_url: str | None = None
    thumbnail_url: str | None = None
    explanation: Explanation | None = None


class SheetExplanation(Answer):
    """A sheet that was to be explained; None where its picture cannot be read."""

    sheet_id: str
    explanation: Explanation | None


class Explanations(Answer):
    """Heat maps of photos and sheets, in the metric of a bundle."""

    bundle_id: str
    explanations: tuple[SheetExplanation, ...]


class Candidate(Answer):
    """One possible species; `probability` is 0 … 1, `similarity` a cosine."""

    species_id: str
    scientific_name: str
    genus: str | None = None
    family: str | None = None
    probability: float
    similarity: float | None
    has_field_photos: bool
    in_classifier: bool
    sheets: tuple[SheetEvidence, ...] = ()


class Decision(Answer):
    """Who decided (specialist, generalist or fusion) and why."""

    source: str
    reason: str
    evidence: dict[str, float]


class RollUp(Answer):
    """The lowest taxon that is likely enough."""

    taxon_rank: str
    name: str
    probability: float
    species_count: int


class Unknown(Answer):
    """Whether the plant is of a species that the index does not hold."""

    score: float
    threshold: float
    is_unknown: bool


class SpeciesName(Answer):
    """A species by id and name."""

    species_id: str
    scientific_name: str


class PredictionSet(Answer):
    """Species among which the true one is, with a stated probability."""

    coverage: float
    size: int
    species: tuple[SpeciesName, ...]
    herbarium_only: int
    guarantee: str


class BareIdentification(Answer):
    """The answer about one plant, as the rows of a batch hold it."""

    bundle_id: str
    model_id: str
    software: str
    photo_count: int
    outcome: str
    summary: str
    calibrated: bool
    roll_up: RollUp | None
    unknown: Unknown | None
    prediction_set: PredictionSet | None
    probability_outside: float | None = None
    decision: Decision
    candidates: tuple[Candidate, ...]


class Ignored(Answer):
    """What of a restriction the index does not hold; of many entries the first."""

    count: int
    entries: tuple[str, ...]


class Identification(BareIdentification):
    """The answer about one plant."""

    identification_id: str
    ignored: Ignored | None = None
    milliseconds: float


class Embeddings(Answer):
    """A unit vector for each image; those of one `space_id` may be compared."""

    bundle_id: str
    model_id: str
    space_id: str
    role: Literal["sheet", "field"] | None
    dimensions: int
    embeddings: tuple[tuple[float, ...], ...]
