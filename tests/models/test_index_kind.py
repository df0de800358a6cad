import pytest

from models.errors import InvalidConfig
from models.index_kind import SearchEffort, choose_kind


@pytest.mark.parametrize(
    ("rows", "dimensions", "kind"),
    [
        (1, 384, "flat"),
        (100_000, 384, "flat"),
        (325_520, 384, "flat"),
        (325_521, 384, "ivf-sq8"),
        (162_760, 768, "flat"),
        (162_761, 768, "ivf-sq8"),
        (22_369_621, 384, "ivf-sq8"),
        (22_369_622, 384, "binary"),
    ],
)
def test_the_kind_goes_by_what_exact_search_and_codes_would_cost(rows, dimensions, kind):
    assert choose_kind(rows, dimensions) == kind


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf-sq8", "binary"])
def test_a_kind_can_be_asked_for_at_any_size(kind):
    assert choose_kind(3, 8, kind) == choose_kind(10**9, 8, kind) == kind


def test_an_unknown_kind_is_refused():
    with pytest.raises(InvalidConfig, match="auto, flat, hnsw, ivf-sq8, binary, not 'pq'"):
        choose_kind(3, 8, "pq")


def test_an_effort_comes_back_from_plain_values():
    effort = SearchEffort(16, 0.97, 200, "given queries")
    assert SearchEffort.from_json(effort.to_json()) == effort


@pytest.mark.parametrize(
    "change",
    [
        {"effort": 0},
        {"effort": 1 << 40},
        {"effort": 3.0},
        {"effort": True},
        {"recall": 1.2},
        {"recall": float("nan")},
        {"recall": "1"},
        {"queries": -1},
        {"asked": 3},
        {"more": 3},
    ],
)
def test_an_effort_of_other_values_is_refused(change):
    plain = SearchEffort(16, 0.97, 200, "given queries").to_json() | change
    with pytest.raises((TypeError, ValueError)):
        SearchEffort.from_json(plain)
