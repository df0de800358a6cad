"""What an evaluation says of the probabilities, as Markdown and as lines for the console."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_GROUP_NAMES = {"overall": "overall", "with_photos": "with field photos", "herbarium_only": "herbarium only"}
_ANSWER_NAMES = {"species": "a species", "genus": "a genus", "family": "a family", "named": "any of these"}
_SCORE_NAMES = {"novelty": "novelty model", "max_probability": "1 − first probability", "similarity": "− similarity"}


def reliability_markdown(reliability: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown for the section that `evaluate` makes; none for an empty one."""
    lines: list[str] = []
    if "calibration" in reliability:
        lines += _calibration_lines(reliability)
    if reliability.get("prediction_sets"):
        lines += _set_lines(reliability["prediction_sets"])
    if "answers" in reliability:
        lines += _answer_lines(reliability)
    if reliability.get("several_photos"):
        lines += _several_photos_lines(reliability["several_photos"])
    if reliability.get("unknown_species"):
        lines += _unknown_lines(reliability["unknown_species"])
    return lines


def reliability_summary(reliability: Mapping[str, Any]) -> list[str]:
    """A few lines for people at the console."""
    lines = []
    overall = reliability["calibration"]["overall"]
    lines.append(
        f"Calibration error {overall['ece']:.3f} ({overall['ece_before']:.3f} before calibration; "
        f"{overall['ece_if_perfect']:.3f} is what so few photos show of a perfect one)."
    )
    if sets := reliability["prediction_sets"]:
        parts = [
            f"{_GROUP_NAMES[g]} {_share(sets[g])}, mean size {sets[g]['mean_size']:.1f}"
            for g in _GROUP_NAMES
            if sets[g]["n"]
        ]
        lines.append(f"Sets of {sets['stated_coverage']:.0%} coverage hold the species: {'; '.join(parts)}.")
    else:
        lines.append("No prediction sets: too few calibration photos.")
    if several := reliability.get("several_photos"):
        lines.append(
            f"{several['plants']} plants with several photos: all photos together {_share(several['combined'])} right, "
            f"the most confident photo {_share(several['best_single'])}, one photo {_share(several['mean_single'])}."
        )
    if unknown := reliability.get("unknown_species"):
        best = unknown["scores"].get("novelty") or unknown["scores"]["max_probability"]
        lines.append(
            f"{unknown['unknown_photos']} photos of unknown species: AUROC {_number(best, 'auroc')}, "
            f"{_number(best, 'fpr_at_95_tpr')} taken for known when 95 % of known photos are accepted."
        )
    return lines


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str) -> list[str]:
    head = f"| {' | '.join(columns)} |"
    rule = "|---|" + "--:|" * (len(columns) - 1)
    return ["", f"## {title}", "", head, rule, *(f"| {' | '.join(row)} |" for row in rows), "", note]


def _calibration_lines(reliability: Mapping[str, Any]) -> list[str]:
    rows = []
    for section, words in (("calibration", "true species"), ("calibration_by_answer", "answered species")):
        for group, c in reliability[section].items():
            if not c["n"]:
                continue
            cells = [f"{c[k]:.3f}" for k in ("mean_confidence", "top1", "ece", "ece_before", "ece_if_perfect")]
            name = _GROUP_NAMES[group] if group == "overall" else f"{words} {_GROUP_NAMES[group]}"
            rows.append((name, str(c["n"]), *cells, f"{c['ece_if_perfect_95']:.3f}"))
    columns = ("group", "photos", "mean confidence", "top-1", "ECE", "before", "if perfect", "95 % if perfect")
    note = (
        "ECE of the served probabilities, before calibration, and that of perfectly calibrated answers with the same "
        "confidences, which so many photos cannot tell from 0."
    )
    return _table("Calibration", columns, rows, note)


def _set_lines(sets: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            _GROUP_NAMES[g],
            str(sets[g]["n"]),
            _share(sets[g]),
            f"{sets[g]['mean_size']:.2f}",
            f"{sets[g]['median_size']:.0f}",
            f"{sets[g]['empty']:.1%}",
        )
        for g in _GROUP_NAMES
        if sets[g]["n"]
    ]
    note = (
        f"Stated coverage {sets['stated_coverage']:.0%}. For herbarium-only species it is estimated from species whose "
        "photos were hidden in training."
    )
    columns = ("group", "photos", "coverage", "mean size", "median size", "empty")
    return _table("Prediction sets", columns, rows, note)


def _answer_lines(reliability: Mapping[str, Any]) -> list[str]:
    answers, novelty = reliability["answers"], reliability["novelty"]
    rows = [(words, str(answers[k]["n"]), _share(answers[k])) for k, words in _ANSWER_NAMES.items()]
    rows += [(words, str(answers[words]["n"]), "–") for words in ("undecided", "none of these")]
    note = f"The lowest taxon with a summed probability of at least {answers['level']:.0%} is named."
    if novelty:
        accepted = "; ".join(f"{_GROUP_NAMES[g]} {_share(v)}" for g, v in novelty["known_accepted"].items() if v["n"])
        note += f" Taken for known, of these photos of known species: {accepted}."
    return _table("What is answered", ("the answer is", "photos", "right"), rows, note)


def _several_photos_lines(several: Mapping[str, Any]) -> list[str]:
    names = {"combined": "all photos", "best_single": "most confident photo", "mean_single": "one photo"}
    rows = []
    for key, words in names.items():
        difference = several.get(f"combined_minus_{key}")
        cells = ("–", "–")
        if difference:
            low, high = (f"{100 * bound:+.1f}" for bound in difference["interval"])
            p_value = f"{difference['p_value']:.3g}" if "p_value" in difference else "–"
            cells = (f"{100 * difference['difference']:+.1f} ({low} to {high})", p_value)
        rows.append((words, _share(several[key]), *cells))
    note = f"{several['plants']} plants with {several['photos']} test photos; only plants with several are counted."
    columns = ("answered from", "top-1", "all photos are better by, points", "p (McNemar)")
    return _table("Several photos of one plant", columns, rows, note)


def _unknown_lines(unknown: Mapping[str, Any]) -> list[str]:
    rows = [
        (_SCORE_NAMES[name], _number(score, "auroc"), _number(score, "fpr_at_95_tpr"))
        for name, score in unknown["scores"].items()
    ]
    note = (
        f"{unknown['unknown_photos']} photos of species that the index does not hold, {unknown['known_photos']} known "
        "test photos. FPR at 95 % TPR: share of unknown photos taken for known when 95 % of the known are accepted."
    )
    if served := unknown.get("answered_none_of_these"):
        note += (
            f" Answered “none of these”: {_share(served['unknown'])} of unknown, {_share(served['known'])} of known."
        )
    return _table("Unknown species", ("score", "AUROC", "FPR at 95 % TPR"), rows, note)


def _share(value: Mapping[str, Any]) -> str:
    if value["share"] is None:
        return "–"
    low, high = value["interval"]
    return f"{value['share']:.1%} ({low:.1%}–{high:.1%})"


def _number(score: Mapping[str, Any], name: str) -> str:
    low, high = score[f"{name}_interval"]
    return f"{score[name]:.3f} ({low:.3f}–{high:.3f})"
