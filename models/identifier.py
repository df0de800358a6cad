"""Photos of one plant in, named candidates out; what the service answers with and what `evaluate` measures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.bundle import Bundle, TrainedModel, load_bundle
from models.candidate_filter import CandidateFilter
from models.compute import Compute
from models.decoding import decode_image
from models.encoder import Encoded, Encoder
from models.gate import Evidence
from models.home import Home
from models.reliability import HigherTaxa, independent_looks, tempered
from models.retrieval import Candidate, FloatArray, Identification, SpeciesKnowledge
from models.specimens import Role
from models.taxonomy import SpeciesId, TaxonRank

_NEVER = np.float32(-np.inf)
_NOTHING = 1e-30
"""Probability below which nothing is known of a species any more."""


class Identifier:
    """Names plants with one bundle.

    Works in three steps that may run in different threads: `preprocess` (per photo), `encode` (the
    network, one thread), `answer`. `identify` does all three.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        model, gallery = bundle.model, bundle.gallery
        trained = [s.species_id for s in model.taxonomy]
        names = {s.species_id: s for s in model.taxonomy} | {s.species_id: s for s in bundle.species}
        self.species = tuple(names[s] for s in sorted({*trained, *gallery.species_ids}))
        position = {s.species_id: i for i, s in enumerate(self.species)}
        self._column = np.array([position[s] for s in trained], dtype=np.int64)
        self._prototype = np.array([position[s] for s in gallery.species_ids], dtype=np.int64)
        self._with_sheets = frozenset(gallery.species_ids)
        self._trained = frozenset(trained)
        self._position = position
        self.has_field_photos: NDArray[np.bool_] = np.zeros(len(self.species), dtype=bool)
        self.has_field_photos[self._column] = model.has_field_photos
        self.higher_taxa = HigherTaxa(self.species)

    @classmethod
    def load(
        cls, home: Home, compute: Compute, bundle_id: str | None = None, *, model: TrainedModel | None = None
    ) -> "Identifier":
        """With the active bundle of `home`, or a named one; `model` as in `load_bundle`. Raises `BundleError`."""
        return cls(load_bundle(home, compute, bundle_id, model=model))

    @property
    def bundle_id(self) -> str:
        """Names the index, and with it the model, that answers."""
        return self.bundle.bundle_id

    @property
    def model_id(self) -> str:
        """Names the model artifact."""
        return self.bundle.model.model_id

    @property
    def encoder(self) -> Encoder:
        """The network; bundles of one model share it."""
        return self.bundle.model.encoder

    @property
    def species_ids(self) -> tuple[SpeciesId, ...]:
        """All species that can be answered, sorted."""
        return tuple(s.species_id for s in self.species)

    def knowledge(self, species_id: SpeciesId) -> SpeciesKnowledge | None:
        """How a species is known to this bundle; None for one that cannot be answered."""
        position = self._position.get(species_id)
        if position is None:
            return None
        return SpeciesKnowledge(
            in_classifier=species_id in self._trained,
            has_field_photos=bool(self.has_field_photos[position]),
            has_sheets=species_id in self._with_sheets,
        )

    def preprocess(self, image: Image.Image) -> FloatArray:
        """``(3, H, W)`` float32 of an upright RGB picture; any thread."""
        return self.bundle.model.encoder.preprocessing.apply(image)

    def decode(self, source: bytes | Path, *, max_pixels: int) -> Image.Image:
        """Upright RGB picture, no larger than is useful. Raises `InvalidImage`."""
        side = self.bundle.model.encoder.preprocessing.minimum_decode_side
        return decode_image(source, max_pixels=max_pixels, minimum_side=side)

    def encode(self, pixels: FloatArray) -> Encoded:
        """Both streams' outputs for ``(P, 3, H, W)``; one thread at a time."""
        return self.bundle.model.encoder.encode(pixels)

    def identify(
        self,
        images: Sequence[Image.Image],
        *,
        top_k: int = 5,
        sheets_per_candidate: int = 3,
        within: CandidateFilter | None = None,
    ) -> Identification:
        """Candidates for 1 … P photos of one plant, upright RGB; the rest as in `answer`."""
        pixels = np.stack([self.preprocess(image) for image in images])
        return self.identify_tensors(pixels, top_k=top_k, sheets_per_candidate=sheets_per_candidate, within=within)

    def identify_tensors(
        self,
        pixels: FloatArray,
        *,
        top_k: int = 5,
        sheets_per_candidate: int = 3,
        within: CandidateFilter | None = None,
    ) -> Identification:
        """Candidates for ``(P, 3, H, W)`` preprocessed photos of one plant; the rest as in `answer`."""
        encoded = self.encode(pixels)
        return self.answer(encoded, top_k=top_k, sheets_per_candidate=sheets_per_candidate, within=within)

    def answer(
        self,
        encoded: Encoded,
        *,
        top_k: int = 5,
        sheets_per_candidate: int = 3,
        within: CandidateFilter | None = None,
    ) -> Identification:
        """Candidates from the network's outputs for all photos of one plant.

        Of several photos, decision, novelty and the candidates' similarities are those of their mean evidence, as the
        probabilities are; supporting sheets are the most similar to the photos' mean embedding.

        With `within`, candidates, roll-up and prediction set are among the species that it allows, and probabilities
        are conditional: given that the plant is one of them, ``P(s) / Σ P(allowed)``. They are as calibrated as the
        unrestricted ones for plants that are of an allowed species, if the filter was chosen without regard to the
        photo (a checklist of the place); of others they say nothing. Decision and novelty stay those of the
        unrestricted evidence, and `probability_outside` tells what the filter left out.

        Raises `InvalidCandidateFilter`.
        """
        evidence, calibrated = self.combine(encoded)
        reliability, probabilities, outside = self.bundle.reliability, calibrated[0], None
        allowed, taxa = np.arange(len(self.species)), self.higher_taxa
        if within is not None:
            allowed = within.positions(self.species)
            probabilities, outside = self._conditional(evidence, probabilities, allowed)
            taxa = HigherTaxa([self.species[int(i)] for i in allowed])
        embedding = mean_embedding(encoded.embeddings)
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        return Identification(
            candidates=tuple(
                self._candidate(int(allowed[i]), float(probabilities[i]), evidence, embedding, sheets_per_candidate)
                for i in order
            ),
            decision=self.bundle.gate.decide(evidence, 0),
            bundle_id=self.bundle_id,
            photo_count=len(encoded.logits),
            calibrated=reliability.fitted,
            roll_up=taxa.roll_up(probabilities),
            novelty=reliability.judge(evidence, calibrated),
            prediction_set=reliability.prediction_set(
                probabilities, taxa.species, self.has_field_photos[allowed], restricted=within is not None
            ),
            probability_outside=outside,
        )

    def higher_taxon_probabilities(self, encoded: Encoded) -> dict[TaxonRank, list[tuple[str, float]]]:
        """Genera and families of one plant with their calibrated probabilities, the likeliest first."""
        return self.higher_taxa.totals(self.combine(encoded)[1][0])

    def _conditional(
        self, evidence: Evidence, probabilities: FloatArray, allowed: NDArray[np.intp]
    ) -> tuple[FloatArray, float]:
        """Probabilities ``(A,)`` of the allowed given that the plant is one of them, and what all others have.

        Where nothing is left of the allowed in float32, the gate is asked about them alone, so that they keep an order.
        """
        kept = probabilities[allowed].astype(np.float64)
        inside = float(kept.sum())
        outside = min(1.0, max(0.0, 1.0 - inside))
        if inside > _NOTHING:
            return (kept / inside).astype(np.float32), outside
        of_gate = self.bundle.gate.probabilities(evidence.among(allowed))
        return self.bundle.reliability.calibrate(of_gate, self.has_field_photos[allowed])[0], outside

    def evidence(self, logits: FloatArray, embeddings: FloatArray) -> Evidence:
        """What both streams say of N photos: logits ``(N, C)`` and unit embeddings ``(N, D)``, over all species."""
        shape = (len(logits), len(self.species))
        spread, similarities = np.full(shape, _NEVER), np.full(shape, _NEVER)
        spread[:, self._column] = logits
        similarities[:, self._prototype] = self.bundle.gallery.prototype_similarities(embeddings)
        return Evidence(spread, similarities, self.has_field_photos)

    def probabilities(self, evidence: Evidence) -> FloatArray:
        """Calibrated probabilities ``(N, S)`` over all species, of one photo each."""
        return self._calibrated(self.bundle.gate.probabilities(evidence))

    def combine(self, encoded: Encoded) -> tuple[Evidence, FloatArray]:
        """Evidence and calibrated probabilities ``(1, S)`` of one plant from all its photos: served and evaluated.

        The gate's answer to the mean evidence, which is the geometric mean of its answers to the photos, to the power
        of the independent looks that they are worth: such looks multiply, and photos that are all alike add nothing.
        """
        evidence = self.evidence(encoded.logits, encoded.embeddings).of_one_plant()
        of_gate = self.bundle.gate.probabilities(evidence)
        if len(encoded.embeddings) > 1:
            looks = independent_looks(self.bundle.gallery.metric.apply(encoded.embeddings, Role.FIELD))
            of_gate = tempered(of_gate, np.array([1.0 / looks]))
        return evidence, self._calibrated(of_gate)

    def _calibrated(self, of_gate: FloatArray) -> FloatArray:
        return self.bundle.reliability.calibrate(of_gate, self.has_field_photos)

    def _candidate(
        self, position: int, probability: float, evidence: Evidence, embedding: FloatArray, sheets: int
    ) -> Candidate:
        species = self.species[position]
        found = species.species_id in self._with_sheets
        return Candidate(
            species=species,
            probability=min(max(probability, 0.0), 1.0),
            similarity=float(evidence.similarities[0, position]) if found else None,
            has_field_photos=bool(self.has_field_photos[position]),
            in_classifier=species.species_id in self._trained,
            sheets=self.bundle.gallery.supporting_sheets(embedding, species.species_id, sheets)
            if found and sheets > 0
            else (),
        )


def mean_embedding(embeddings: FloatArray) -> FloatArray:
    """Unit ``(D,)``: the direction of the photos' unit embeddings ``(P, D)`` together; a single one as it is."""
    if len(embeddings) == 1:
        return embeddings[0]
    mean = embeddings.mean(axis=0)
    norm = float(np.linalg.norm(mean))
    return (mean / norm if norm > 1e-6 else embeddings[0]).astype(np.float32)
