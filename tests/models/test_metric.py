import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import InvalidConfig
from models.metric import Metric, MetricKind, fit_metric
from models.retrieval import FloatArray
from models.specimens import Role

Doubles = NDArray[np.float64]

KINDS: tuple[MetricKind, ...] = ("cosine", "centred", "whitened")


def unit_rows(vectors: NDArray[np.floating]) -> FloatArray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def collection(
    seed: int = 0, dimensions: int = 6, photographed: int = 4
) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.bool_]]:
    """Seven species in no order, with 3 … 7 sheets each and 4 … 7 photos of the first ones, photos shifted."""
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((7, dimensions))
    shift = rng.standard_normal(dimensions)
    rows = [(s, False) for s in range(7) for _ in range(3 + s % 5)]
    rows += [(s, True) for s in range(photographed) for _ in range(4 + s)]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    vectors = np.array([places[s] + f * shift + 0.4 * rng.standard_normal(dimensions) for s, f in rows])
    return unit_rows(vectors), np.array([s for s, _ in rows]) * 3 + 2, np.array([f for _, f in rows])


# -- the slow, readable reference


def mean_of(vectors: Doubles, classes: NDArray[np.int64], species: int) -> Doubles:
    own = [v for v, c in zip(vectors, classes, strict=True) if c == species]
    return np.asarray(sum(own) / len(own))


def slow_centres(x: Doubles, classes: NDArray[np.int64], is_field: NDArray[np.bool_]) -> tuple[Doubles, Doubles]:
    """The mean of the species' sheet means; and that plus the mean step from sheets to photos of shared species."""
    species = sorted(set(classes[~is_field].tolist()))
    shared = [s for s in species if s in set(classes[is_field].tolist())]
    sheet = sum(mean_of(x[~is_field], classes[~is_field], s) for s in species) / len(species)
    step = np.zeros(x.shape[1])
    if len(shared) >= 2:
        for s in shared:
            step += mean_of(x[is_field], classes[is_field], s) - mean_of(x[~is_field], classes[~is_field], s)
        step /= len(shared)
    return np.asarray(sheet), np.asarray(sheet + step)


def slow_within(x: Doubles, classes: NDArray[np.int64]) -> Doubles:
    """Pooled covariance within species, with as many degrees of freedom as there are images beyond the first ones."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for vector, species in zip(x, classes, strict=True):
        step = vector - mean_of(x, classes, int(species))
        total += np.outer(step, step)
    return total / max(1, len(x) - len(set(classes.tolist())))


def slow_whitened(
    vectors: FloatArray, classes: NDArray[np.int64], is_field: NDArray[np.bool_], shrinkage: float
) -> tuple[tuple[Doubles, Doubles], tuple[Doubles, Doubles], Doubles]:
    """Centres and scales of sheets and photos, and the matrix."""
    x = vectors.astype(np.float64)
    centres = slow_centres(x, classes, is_field)
    shared = sorted(set(classes[~is_field].tolist()) & set(classes[is_field].tolist()))
    scales = [np.sqrt(np.mean((x[~is_field] - x[~is_field].mean(axis=0)) ** 2, axis=0))]
    scales.append(scales[0])
    covariance = slow_within(x[~is_field] / scales[0], classes[~is_field])
    if len(shared) >= 2:
        scales[1] = np.sqrt(np.mean((x[is_field] - x[is_field].mean(axis=0)) ** 2, axis=0))
        covariance = 0.5 * covariance + 0.5 * slow_within(x[is_field] / scales[1], classes[is_field])
        for s in shared:
            photo = (mean_of(x[is_field], classes[is_field], s) - centres[1]) / scales[1]
            sheet = (mean_of(x[~is_field], classes[~is_field], s) - centres[0]) / scales[0]
            covariance += np.outer(photo - sheet, photo - sheet) / len(shared)
    level = np.trace(covariance) / len(covariance)
    shrunk = (1 - shrinkage) * covariance + shrinkage * level * np.eye(len(covariance))
    return centres, (scales[0], scales[1]), shrunk


def agrees(
    metric: Metric,
    vectors: FloatArray,
    classes: NDArray[np.int64],
    is_field: NDArray[np.bool_],
    shrinkage: float,
) -> None:
    centres, scales, covariance = slow_whitened(vectors, classes, is_field, shrinkage)
    np.testing.assert_allclose(metric.centres, centres, atol=1e-6)
    np.testing.assert_allclose(metric.scales, scales, rtol=1e-5)
    matrix = metric.matrix.astype(np.float64)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5 * np.abs(matrix).max())
    assert np.linalg.eigvalsh(matrix).min() > 0.0
    np.testing.assert_allclose(matrix @ covariance @ matrix, np.eye(len(matrix)), atol=1e-4)


# -- applying


def test_a_metric_maps_each_role_by_its_own_centre_and_scale() -> None:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((2, 4)).astype(np.float32)
    scales = rng.uniform(0.5, 2.0, (2, 4)).astype(np.float32)
    matrix = rng.standard_normal((4, 4)).astype(np.float32)
    metric = Metric(centres, scales, matrix)
    vectors = unit_rows(rng.standard_normal((9, 4)))
    for position, role in enumerate((Role.SHEET, Role.FIELD)):
        applied = metric.apply(vectors, role)
        assert applied.dtype == np.float32
        for found, vector in zip(applied, vectors.astype(np.float64), strict=True):
            moved = ((vector - centres[position]) / scales[position]) @ matrix
            np.testing.assert_allclose(found, moved / np.linalg.norm(moved), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(applied, axis=1), 1.0, atol=1e-6)
    assert metric.dimensions == 4


def test_a_row_at_the_centre_of_its_role_stays_as_it_is() -> None:
    centre, other = unit_rows(np.array([[1.0, 2.0, 2.0], [0.0, 1.0, 1.0]]))
    metric = Metric(np.stack([centre, other]), np.ones((2, 3), np.float32), 5 * np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(metric.apply(centre[None], Role.SHEET)[0], centre)
    np.testing.assert_array_equal(metric.apply(other[None], Role.FIELD)[0], other)
    moved = metric.apply(centre[None], Role.FIELD)[0]
    np.testing.assert_allclose(moved, (centre - other) / np.linalg.norm(centre - other), atol=1e-6)


def test_no_rows_give_no_rows() -> None:
    assert Metric.cosine(5).apply(np.empty((0, 5), np.float32), Role.FIELD).shape == (0, 5)


def test_cosine_leaves_unit_vectors_alone() -> None:
    vectors, classes, is_field = collection()
    for metric in (Metric.cosine(6), fit_metric("cosine", vectors, classes, is_field)):
        for role in Role:
            np.testing.assert_allclose(metric.apply(vectors, role), vectors, atol=1e-6)


def test_arrays_round_trip() -> None:
    metric = fit_metric("whitened", *collection())
    again = Metric.from_arrays(metric.arrays())
    for name in ("centres", "scales", "matrix"):
        np.testing.assert_array_equal(getattr(again, name), getattr(metric, name))
    assert set(metric.arrays()) == {"centres", "scales", "matrix"}


@pytest.mark.parametrize(
    "changes",
    [
        {"centres": np.zeros((1, 3), np.float32)},
        {"centres": np.zeros((2, 4), np.float32)},
        {"centres": np.zeros(3, np.float32)},
        {"centres": np.zeros((2, 3))},
        {"centres": np.full((2, 3), np.nan, np.float32)},
        {"scales": np.ones((2, 2), np.float32)},
        {"scales": np.ones((2, 3), np.float16)},
        {"scales": np.full((2, 3), np.inf, np.float32)},
        {"scales": np.array([[1, 1, 1], [1, 0, 1]], np.float32)},
        {"scales": -np.ones((2, 3), np.float32)},
        {"matrix": np.eye(2, dtype=np.float32)},
        {"matrix": np.eye(3)},
        {"matrix": np.ones((3, 2), np.float32)},
        {"matrix": np.full((3, 3), -np.inf, np.float32)},
    ],
)
def test_parts_of_another_shape_type_or_that_are_not_finite_are_refused(
    changes: dict[str, NDArray[np.generic]],
) -> None:
    with pytest.raises(ValueError, match="of a metric must be"):
        Metric.from_arrays({**Metric.cosine(3).arrays(), **changes})


def test_missing_and_unexpected_parts_are_refused() -> None:
    arrays = Metric.cosine(3).arrays()
    with pytest.raises(TypeError):
        Metric.from_arrays({**arrays, "colour": arrays["matrix"]})
    with pytest.raises(TypeError):
        Metric.from_arrays({name: array for name, array in arrays.items() if name != "scales"})


# -- fitting


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="cosine, centred, whitened, not 'magic'"):
        fit_metric("magic", *collection())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["centred", "whitened"])
def test_embeddings_that_are_not_finite_give_no_metric(kind: MetricKind) -> None:
    vectors, classes, is_field = collection()
    vectors[3, 2] = np.nan
    with pytest.raises(ValueError):  # noqa: PT011 - NumPy's LinAlgError is one, with a message of its own
        fit_metric(kind, vectors, classes, is_field)


@pytest.mark.parametrize("seed", range(3))
def test_centred_takes_off_the_mean_of_each_role(seed: int) -> None:
    vectors, classes, is_field = collection(seed)
    metric = fit_metric("centred", vectors, classes, is_field)
    np.testing.assert_allclose(metric.centres, slow_centres(vectors.astype(np.float64), classes, is_field), atol=1e-6)
    np.testing.assert_array_equal(metric.scales, np.ones((2, 6)))
    np.testing.assert_array_equal(metric.matrix, np.eye(6))


@pytest.mark.parametrize("shrinkage", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_whitened_equals_the_slow_reference(seed: int, shrinkage: float) -> None:
    vectors, classes, is_field = collection(seed)
    metric = fit_metric("whitened", vectors, classes, is_field, shrinkage=shrinkage)
    agrees(metric, vectors, classes, is_field, shrinkage)


def test_whitened_by_default_shrinks_by_three_tenths() -> None:
    vectors, classes, is_field = collection()
    agrees(fit_metric("whitened", vectors, classes, is_field), vectors, classes, is_field, 0.3)


def test_full_shrinkage_is_a_multiple_of_the_identity() -> None:
    matrix = fit_metric("whitened", *collection(), shrinkage=1.0).matrix
    np.testing.assert_allclose(matrix, matrix[0, 0] * np.eye(6), atol=1e-5)


def test_more_photos_of_a_species_do_not_move_the_centres() -> None:
    """How far photos lie from sheets is a mean over species, so popular ones count no more than others."""
    vectors, classes, is_field = collection()
    popular = np.flatnonzero(is_field & (classes == classes[is_field].max()))
    again = np.concatenate([np.arange(len(vectors)), np.repeat(popular, 20)])
    for kind in ("centred", "whitened"):
        once = fit_metric(kind, vectors, classes, is_field)  # type: ignore[arg-type]
        often = fit_metric(kind, vectors[again], classes[again], is_field[again])  # type: ignore[arg-type]
        np.testing.assert_allclose(often.centres, once.centres, atol=1e-6)


def test_the_order_of_images_and_the_numbers_of_classes_do_not_matter() -> None:
    vectors, classes, is_field = collection()
    order = np.random.default_rng(1).permutation(len(vectors))
    expected = fit_metric("whitened", vectors, classes, is_field)
    found = fit_metric("whitened", vectors[order], 1000 - classes[order], is_field[order])
    np.testing.assert_allclose(found.matrix, expected.matrix, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.centres, expected.centres, atol=1e-6)


@pytest.mark.parametrize("photographed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_with_fewer_than_two_shared_species_nothing_is_learnt(kind: MetricKind, photographed: int) -> None:
    vectors, classes, is_field = collection(photographed=photographed)
    assert is_field.any() == bool(photographed)
    metric = fit_metric(kind, vectors, classes, is_field)
    for name, expected in Metric.cosine(6).arrays().items():
        np.testing.assert_array_equal(metric.arrays()[name], expected)


@pytest.mark.parametrize("few_are_photos", [False, True])
def test_with_fewer_than_twenty_images_of_a_role_whitened_is_centred(few_are_photos: bool) -> None:
    vectors, classes, is_field = collection()
    few = np.flatnonzero(is_field == few_are_photos)
    kept = np.sort(np.concatenate([few[:19], np.flatnonzero(is_field != few_are_photos)]))
    found = fit_metric("whitened", vectors[kept], classes[kept], is_field[kept])
    expected = fit_metric("centred", vectors[kept], classes[kept], is_field[kept])
    for name, value in expected.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], value)
    assert found.centres.any()


def test_a_photo_of_each_of_two_species_does_not_spoil_the_others() -> None:
    rng = np.random.default_rng(3)
    places = rng.standard_normal((30, 96))
    owner = np.repeat(np.arange(30), 6)
    sheets = unit_rows(places[owner] + 0.8 * rng.standard_normal((180, 96)))
    photos = unit_rows(places[:2] + 0.8 * rng.standard_normal((2, 96)))
    metric = fit_metric(
        "whitened", np.concatenate([sheets, photos]), np.concatenate([owner, [0, 1]]), np.arange(182) >= 180
    )
    asked = unit_rows(places[owner] + 0.8 * rng.standard_normal((180, 96)))
    means = np.stack([metric.apply(sheets, Role.SHEET)[owner == s].mean(axis=0) for s in range(30)])
    answers = (metric.apply(asked, Role.FIELD) @ unit_rows(means).T).argmax(axis=1)
    assert np.mean(answers == owner) > 0.9


def test_similarities_are_those_of_the_applied_vectors() -> None:
    vectors, classes, is_field = collection()
    metric = fit_metric("whitened", vectors, classes, is_field)
    query = metric.apply(vectors[is_field][:1], Role.FIELD)[0]
    sheets = vectors[~is_field]
    found = metric.similarities(sheets, metric.norms(sheets, Role.SHEET), Role.SHEET, query)
    np.testing.assert_allclose(found, metric.apply(sheets, Role.SHEET) @ query, atol=1e-5)


def test_photos_of_species_without_sheets_teach_no_step_between_the_roles() -> None:
    vectors, classes, is_field = collection()
    classes = np.where(is_field, classes + 100, classes)
    metric = fit_metric("whitened", vectors, classes, is_field)
    np.testing.assert_array_equal(metric.centres[0], metric.centres[1])
    np.testing.assert_array_equal(metric.scales[0], metric.scales[1])


@pytest.mark.parametrize("kind", KINDS)
def test_photos_alone_or_nothing_at_all_leave_the_cosine(kind: MetricKind) -> None:
    vectors, classes, _ = collection()
    for rows in (slice(None), slice(0, 0)):
        metric = fit_metric(kind, vectors[rows], classes[rows], np.ones(len(vectors[rows]), dtype=bool))
        np.testing.assert_array_equal(metric.matrix, np.eye(6))
        np.testing.assert_array_equal(metric.centres, np.zeros((2, 6)))


def test_a_single_sheet_is_a_finite_metric() -> None:
    vectors = unit_rows(np.random.default_rng(2).standard_normal((1, 4)))
    metric = fit_metric("whitened", vectors, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=bool))
    np.testing.assert_array_equal(metric.apply(vectors, Role.SHEET), vectors)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_columns_in_which_nothing_varies_are_not_blown_up(value: float) -> None:
    vectors, classes, is_field = collection()
    vectors[:, 2] = value
    metric = fit_metric("whitened", vectors, classes, is_field, shrinkage=0.3)
    np.testing.assert_array_equal(metric.scales[:, 2], 1.0)
    np.testing.assert_allclose(np.delete(metric.matrix[2], 2), 0.0, atol=1e-6)
    assert metric.matrix[2, 2] < 10.0
    applied = metric.apply(vectors, Role.FIELD)
    np.testing.assert_allclose(np.linalg.norm(applied, axis=1), 1.0, atol=1e-5)
    assert np.abs(applied[:, 2]).max() < 1e-3


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_more_dimensions_than_images_still_give_a_finite_metric(shrinkage: float) -> None:
    vectors, classes, is_field = collection(dimensions=64)
    metric = fit_metric("whitened", vectors, classes, is_field, shrinkage=shrinkage)
    applied = metric.apply(vectors, Role.FIELD)
    np.testing.assert_allclose(np.linalg.norm(applied, axis=1), 1.0, atol=1e-4)


def two_domains(seed: int) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.bool_]]:
    """Thirty species told apart by faint characters, and much that is not of the species: light, paper, a shift."""
    rng = np.random.default_rng(seed)
    species, characters, nuisances = 30, 12, 4
    places = rng.standard_normal((species, characters))
    rows = [(s, False) for s in range(species) for _ in range(5)] + [
        (s, True) for s in range(species) for _ in range(8)
    ]
    vectors = []
    for s, is_photo in rows:
        plant = places[s] + 0.5 * rng.standard_normal(characters)
        light = 3.0 * rng.standard_normal(nuisances) + (4.0 if is_photo else 0.0)
        vectors.append(np.concatenate([plant, light]))
    return unit_rows(np.array(vectors)), np.array([s for s, _ in rows]), np.array([f for _, f in rows])


def top1_of_unphotographed(kind: MetricKind, seed: int) -> float:
    """Of photos of the last ten species by the nearest mean of sheets; the metric saw no photo of these."""
    vectors, classes, is_field = two_domains(seed)
    hidden = is_field & (classes >= 20)
    metric = fit_metric(kind, vectors[~hidden], classes[~hidden], is_field[~hidden])
    sheets = metric.apply(vectors[~is_field], Role.SHEET)
    means = unit_rows(np.stack([sheets[classes[~is_field] == s].mean(axis=0) for s in range(30)]))
    nearest = (metric.apply(vectors[hidden], Role.FIELD) @ means.T).argmax(axis=1)
    return float(np.mean(nearest == classes[hidden]))


@pytest.mark.parametrize("seed", range(3))
def test_each_kind_beats_the_simpler_one_where_roles_differ_by_nuisances(seed: int) -> None:
    cosine, centred, whitened = (top1_of_unphotographed(kind, seed) for kind in KINDS)
    assert whitened > centred + 0.1
    assert centred > cosine + 0.1
