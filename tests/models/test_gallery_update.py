"""A gallery that was updated answers as one that is built from nothing of the same sheets."""

from itertools import pairwise

import numpy as np
import pytest
from gallery_support import SPACE, batch, random_gallery, random_metric, unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from models import segment_merging
from models.errors import EmbeddingSpaceMismatch, InsufficientData, InvalidConfig
from models.gallery import Gallery
from models.metric import Metric
from models.retrieval import EmbeddingBatch
from models.taxonomy import SpeciesId

DIMENSIONS = 12


class Collection:
    """The sheets that a gallery should hold, kept plainly."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.vectors = {}
        self.species = {}
        self.made = 0

    def make(self, count):
        """New sheets, some with the vector of an older one, of old and new species."""
        ids = []
        for vector in unit_rows(self.rng, count, DIMENSIONS):
            sheet = f"sheet{self.rng.integers(1_000):03d}-{self.made}"
            self.made += 1
            twin = self.vectors and self.rng.random() < 0.1
            self.vectors[sheet] = self.vectors[self.rng.choice(sorted(self.vectors))] if twin else vector
            self.species[sheet] = SpeciesId(f"s{self.rng.integers(9)}")
            ids.append(sheet)
        return ids

    def some(self, share):
        return [sheet for sheet in sorted(self.vectors) if self.rng.random() < share]

    def of(self, sheets):
        shuffled = [sheets[i] for i in self.rng.permutation(len(sheets))]
        return batch([self.vectors[s] for s in shuffled], shuffled), [self.species[s] for s in shuffled]

    def built(self, metric):
        return Gallery.build(*self.of(sorted(self.vectors)), metric=metric)


def change(collection, gallery, metric):
    """One random change of a collection, and the gallery updated by it."""
    removed = collection.some(collection.rng.choice([0.0, 0.05, 0.6]))
    moved = removed[: len(removed) // 3]
    if len(removed) == len(collection.vectors):
        removed = moved = removed[1:]
    kept = {s: gallery.vectors_for([s])[0] for s in moved}
    for sheet in removed:
        del collection.vectors[sheet], collection.species[sheet]
    for sheet in moved:
        collection.vectors[sheet] = kept[sheet]
        collection.species[sheet] = SpeciesId(f"s{collection.rng.integers(12)}")
    added = moved + collection.make(int(collection.rng.choice([0, 1, 7, 40])))
    if not added:
        return gallery.updated(None, (), removed, metric=metric)
    return gallery.updated(*collection.of(added), [*removed, "never seen"], metric=metric)


def assert_equal(updated, built):
    assert updated.sheet_columns() == built.sheet_columns()
    assert (updated.species_ids, updated.sheet_count) == (built.species_ids, built.sheet_count)
    assert [p.sheet_count for p in updated.prototypes()] == [p.sheet_count for p in built.prototypes()]
    np.testing.assert_allclose(updated.prototype_matrix(), built.prototype_matrix(), atol=1e-6)
    sheets = built.sheet_columns()["sheet_id"].to_pylist()
    np.testing.assert_array_equal(updated.vectors_for(sheets), built.vectors_for(sheets))
    for gallery in (updated, built):
        for living in gallery.parts.segments:
            for norm, vector in zip(living.norms, living.segment.vectors, strict=True):
                assert norm == pytest.approx(float(gallery.metric.norms(vector[None], "sheet")[0]), abs=1e-5)


def assert_same_answers(updated, built, queries):
    for search in ("nearest_sheets", "nearest_prototypes"):
        for found, expected in zip(
            getattr(updated, search)(queries, 12), getattr(built, search)(queries, 12), strict=True
        ):
            assert_same_matches(found, expected)
    for species_id in built.species_ids:
        for query in queries:
            found = updated.supporting_sheets(query, species_id, 12)
            assert_same_matches(found, built.supporting_sheets(query, species_id, 12))


def assert_same_matches(found, expected):
    """The same keys in the same order, unless two differ by just about what makes a tie."""

    def pairs(matches):
        return [m if isinstance(m, tuple) else ((m.species_id, m.sheet_id), m.similarity) for m in matches]

    found, expected = pairs(found), pairs(expected)
    assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=3e-6)
    gaps = [a[1] - b[1] for matches in (found, expected) for a, b in pairwise(matches)]
    if not any(0.0 < gap < 5e-6 for gap in gaps):
        assert [key for key, _ in found[:9]] == [key for key, _ in expected[:9]]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), fewest=st.sampled_from([0, 3, 30, 4_096]), of_metric=st.integers(0, 2))
def test_any_sequence_of_changes_gives_what_a_build_from_nothing_gives(seed, fewest, of_metric):
    collection = Collection(seed)
    metrics = [Metric.cosine(DIMENSIONS), random_metric(DIMENSIONS, 1), random_metric(DIMENSIONS, 2)]
    metric = metrics[of_metric]
    gallery = Gallery.build(*collection.of(collection.make(30)), metric=metric)
    queries = unit_rows(np.random.default_rng(seed), 3, DIMENSIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_merging, "FEWEST_ROWS", fewest)
        for step in range(6):
            if step == 4:
                metric = metrics[int(collection.rng.integers(3))]
            before = gallery, gallery.sheet_columns(), gallery.prototype_matrix().copy()
            gallery = change(collection, gallery, metric)
            assert_equal(gallery, collection.built(metric))
            assert_same_answers(gallery, collection.built(metric), queries)
            assert before[0].sheet_columns() == before[1]
            np.testing.assert_array_equal(before[0].prototype_matrix(), before[2])


def test_only_the_prototypes_of_changed_species_are_computed_anew(monkeypatch):
    built, _, species = random_gallery(count=60, species=12)
    touched = []
    wanted = Metric.apply

    def watching(metric, vectors, role):
        touched.append(len(vectors))
        return wanted(metric, vectors, role)

    monkeypatch.setattr(Metric, "apply", watching)
    leaving = next(iter(species))
    of_species = sum(s == species[leaving] for s in species.values())
    built.updated(batch(np.eye(16)[:1], ["new"]), [SpeciesId("new")], [leaving], metric=Metric.cosine(16))
    assert sum(touched) == 1 + (of_species - 1)


def test_sheets_that_change_nothing_share_their_segment():
    rng = np.random.default_rng(0)
    base = Gallery.build(batch(unit_rows(rng, 6_000, 8)), [SpeciesId("s")] * 6_000)
    updated = base.updated(batch(unit_rows(rng, 5, 8), list("abcde")), [SpeciesId("t")] * 5, ["sheet0003"])
    assert updated.parts.segments[0].segment is base.parts.segments[0].segment
    assert [len(s) for s in updated.parts.segments] == [5_999, 5]


def test_the_number_of_segments_stays_small_while_sheets_come_one_by_one(monkeypatch):
    monkeypatch.setattr(segment_merging, "FEWEST_ROWS", 4)
    rng = np.random.default_rng(0)
    gallery = Gallery.build(batch(unit_rows(rng, 300, 4)), [SpeciesId("s")] * 300)
    most = 0
    for i, vector in enumerate(unit_rows(rng, 200, 4)):
        gallery = gallery.updated(batch(vector[None], [f"new{i:03d}"]), [SpeciesId(f"t{i % 7}")])
        most = max(most, len(gallery.parts.segments))
        sizes = [len(s) for s in gallery.parts.segments]
        assert sizes == sorted(sizes, reverse=True)
    assert gallery.sheet_count == 500
    assert 2 <= most <= 5


def test_a_species_whose_sheets_are_all_removed_is_gone():
    built, _, species = random_gallery()
    gone = [sheet for sheet, s in species.items() if s == "species3"]
    updated = built.updated(removed=gone)
    assert set(built.species_ids) - set(updated.species_ids) == {"species3"}
    back = updated.updated(batch(built.vectors_for(gone), gone), [SpeciesId("species3")] * len(gone))
    assert_equal(back, built)


def test_a_gallery_without_any_sheet_left_is_insufficient():
    built, vectors, _ = random_gallery()
    with pytest.raises(InsufficientData, match="at least one sheet"):
        built.updated(removed=list(vectors))


def test_a_sheet_that_is_here_cannot_be_added_again():
    built, vectors, _ = random_gallery()
    twice = batch([vectors["sheet0007"]], ["sheet0007"])
    with pytest.raises(ValueError, match="twice: sheet0007"):
        built.updated(twice, [SpeciesId("s")])
    moved = built.updated(twice, [SpeciesId("s")], ["sheet0007"])
    assert moved.vectors_of(SpeciesId("s"))[0] == ("sheet0007",)
    with pytest.raises(ValueError, match="twice"):
        built.updated(batch(np.eye(16)[:2], ["new", "new"]), [SpeciesId("s")] * 2)


def test_vectors_of_another_space_or_length_cannot_be_added():
    built, _, _ = random_gallery()
    other = EmbeddingBatch(np.eye(16, dtype=np.float32)[:1], ("new",), "space-2")
    with pytest.raises(EmbeddingSpaceMismatch, match=r"space-1.*space-2"):
        built.updated(other, [SpeciesId("s")])
    with pytest.raises(ValueError, match="15 dimensions"):
        built.updated(batch(np.eye(15)[:1], ["new"]), [SpeciesId("s")])
    with pytest.raises(ValueError, match="species for"):
        built.updated(batch(np.eye(16)[:1], ["new"]), [])


def test_another_kind_of_index_is_made_of_all_sheets():
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng, 1_000, 8)
    base = Gallery.build(batch(vectors), [SpeciesId("s")] * 1_000)
    assert base.parts.segments[0].segment.kind == "flat"
    changed = base.updated(removed=["sheet0000"], kind="binary")
    assert [s.segment.kind for s in changed.parts.segments] == ["binary"]
    assert changed.space_id == SPACE
    assert changed.updated(removed=["sheet0001"]).parts.requested_kind == "binary"
    with pytest.raises(InvalidConfig, match="kind of index"):
        base.updated(kind="magic")


@pytest.mark.parametrize("kind", ["hnsw", "ivf-sq8", "binary"])
def test_as_many_living_sheets_come_back_as_there_are_however_many_are_dead(kind):
    rng = np.random.default_rng(0)
    centre = np.eye(16, dtype=np.float32)[:1]
    near = centre + 0.05 * unit_rows(rng, 900, 16)
    vectors = np.vstack([near / np.linalg.norm(near, axis=1, keepdims=True), unit_rows(rng, 5_100, 16)])
    base = Gallery.build(batch(vectors), [SpeciesId("s")] * 6_000, kind=kind)
    # All sheets around the query die, and are the first that an index finds.
    updated = base.updated(removed=[f"sheet{i:04d}" for i in range(900)])
    assert [(len(s.segment), len(s.dead), s.segment.kind) for s in updated.parts.segments] == [(6_000, 900, kind)]
    for k in (10, 300, 6_000):
        (found,) = updated.nearest_sheets(centre, k)
        assert len(found) == min(k, 5_100)
        assert min(int(m.sheet_id[5:]) for m in found) >= 900
    exact = base.updated(removed=[f"sheet{i:04d}" for i in range(900)], kind="flat").nearest_sheets(centre, 10)[0]
    (found,) = updated.nearest_sheets(centre, 10)
    assert len({m.sheet_id for m in found} & {m.sheet_id for m in exact}) >= 8
