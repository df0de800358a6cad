"""The gate of an index and what its answers are worth, for the flora as it is now."""

from dataclasses import dataclass
from typing import Any

from indexer.calibrate_gate import GateKind, fit_gate, thinned
from indexer.calibrate_reliability import fit_reliability
from indexer.progress import Report
from models.bundle import Bundle, TrainedModel
from models.gallery import Gallery
from models.gate import Gate
from models.reliability import Reliability


@dataclass(frozen=True)
class FittedAnswers:
    """Gate and calibration with their figures; `fitted_for` is all that they depend on beside the model."""

    gate: Gate
    reliability: Reliability
    gate_figures: dict[str, Any]
    reliability_figures: dict[str, Any]
    fitted_for: dict[str, Any]


def fit_answers(
    model: TrainedModel, gallery: Gallery, base: Bundle | None, gate_kind: GateKind | None, report: Report
) -> FittedAnswers:
    """Gate and calibration for the species of `gallery`.

    Species without field photos in training count as herbarium-only. The model and the share of such species decide:
    what `base` has for the same share is taken over.
    """
    with_photos = int(model.has_field_photos.sum())
    everything = {s.species_id for s in model.taxonomy} | set(gallery.species_ids)
    share = 1.0 - with_photos / len(everything)
    configured = model.metadata.get("config", {}).get("calibration", {}).get("gate", "auto")
    wanted = gate_kind or configured
    fitted_for = {"share": share, "kind": wanted}
    if base is not None and base.metadata.get("gate_fitted_for") == fitted_for:
        figures = base.metadata["gate_figures"], base.metadata["reliability_figures"]
        return FittedAnswers(base.gate, base.reliability, *figures, fitted_for)
    calibration = thinned(model.calibration())
    report("calibration", 0, 1)
    fitted = fit_gate(calibration, share, wanted)
    kind = fitted.figures.get("kind", configured)
    reliability = fit_reliability(calibration, share, fitted.gate, lambda part: fit_gate(part, share, kind).gate)
    report("calibration", 1, 1)
    return FittedAnswers(fitted.gate, reliability.reliability, fitted.figures, reliability.figures, fitted_for)
