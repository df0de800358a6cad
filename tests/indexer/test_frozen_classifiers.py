from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import indexer.frozen_classifiers
import indexer.softmax_regression
from indexer.frozen_classifiers import draw_group_folds, fit_linear, fit_svm
from models.classifiers import RbfSvm, StandardisedLinear
from models.errors import InsufficientData, InvalidConfig

Features = NDArray[np.float32]
Integers = NDArray[np.int64]


def clouds(classes: int, each: int, *, noise: float = 1.0, seed: int = 0) -> tuple[Features, Integers]:
    """Images in clouds around a centre for each class, of unequal scales, some columns constant; classes unequal."""
    generator = np.random.default_rng(seed)
    owner = np.concatenate([np.full(each + 2 * c, c) for c in range(classes)])
    centres = generator.normal(size=(classes, 6)) * 2
    x = centres[owner] + generator.normal(size=(len(owner), 6)) * noise
    x = np.concatenate([x * np.array([1, 100, 0.01, 1, 1, 5]) + 3, np.full((len(x), 1), 7.0)], axis=1)
    order = generator.permutation(len(owner))
    return x[order].astype(np.float32), owner[order]


def values(model: torch.nn.Module, x: Features) -> NDArray[np.float64]:
    with torch.inference_mode():
        return model(torch.from_numpy(x)).double().numpy()


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize(("strength", "gamma_factor"), [(1.0, 1.0), (30.0, 0.3), (0.1, 10.0)])
def test_svm_equals_scikit_learn(classes: int, strength: float, gamma_factor: float) -> None:
    x, owner = clouds(classes, 8, noise=2.0)
    svm = fit_svm(x, owner, classes, groups=np.arange(len(x)), strengths=[strength], gamma_factors=[gamma_factor])
    scaler = StandardScaler().fit(x.astype(np.float64))
    z = scaler.transform(x)
    gamma = gamma_factor / (7 * z.var(dtype=np.float64))
    reference = SVC(C=strength, gamma=gamma, class_weight="balanced").fit(z, owner)
    asked = clouds(classes, 20, noise=3.0, seed=1)[0]
    expected = reference.decision_function(scaler.transform(asked))
    if classes == 2:
        expected = np.stack([-expected, expected], axis=1)
    np.testing.assert_allclose(values(svm, asked), expected, atol=1e-4)


def test_svm_puts_classes_without_images_last_wherever_they_stand() -> None:
    x, owner = clouds(3, 8)
    spread = np.array([1, 4, 5])[owner]
    svm = fit_svm(x, spread, 7, groups=np.arange(len(x)), strengths=[1.0], gamma_factors=[1.0])
    plain = fit_svm(x, owner, 3, groups=np.arange(len(x)), strengths=[1.0], gamma_factors=[1.0])
    assert svm.known.tolist() == [False, True, False, False, True, True, False]
    answered = values(svm, x)
    np.testing.assert_allclose(answered[:, [1, 4, 5]], values(plain, x), atol=1e-6)
    np.testing.assert_array_equal(answered[:, 0], answered.min(axis=1))


def test_linear_knows_nothing_of_classes_without_images() -> None:
    x, owner = clouds(3, 10)
    spread = np.array([0, 2, 5])[owner]
    model = fit_linear(x, spread, 6, groups=np.arange(len(x)), strengths=[1.0])
    plain = fit_linear(x, owner, 3, groups=np.arange(len(x)), strengths=[1.0])
    assert model.known.tolist() == [True, False, True, False, False, True]
    answered = values(model, x)
    np.testing.assert_allclose(answered[:, [0, 2, 5]], values(plain, x), atol=1e-5)
    np.testing.assert_array_equal(answered[:, 3], answered.min(axis=1))


def test_linear_in_small_chunks_is_the_same_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    x, owner = clouds(3, 10)
    whole = fit_linear(x, owner, 3, groups=np.arange(len(x)), strengths=[0.1])
    monkeypatch.setattr(indexer.softmax_regression, "_MOST_ELEMENTS", 5 * 7)
    monkeypatch.setattr(indexer.frozen_classifiers, "_CHUNK", 4)
    parts = fit_linear(x, owner, 3, groups=np.arange(len(x)), strengths=[0.1])
    np.testing.assert_allclose(values(parts, x), values(whole, x), atol=1e-3)


def test_linear_reads_features_from_a_memory_map(tmp_path: Path) -> None:
    x, owner = clouds(3, 10)
    np.save(tmp_path / "features.npy", x)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    ours = fit_linear(mapped, owner, 3, groups=np.arange(len(x)), strengths=[0.1, 1.0], seed=2)
    plain = fit_linear(x, owner, 3, groups=np.arange(len(x)), strengths=[0.1, 1.0], seed=2)
    np.testing.assert_array_equal(values(ours, x), values(plain, x))


def penalty_of(model: StandardisedLinear) -> float:
    return float(model.weight.detach().norm())


def test_the_better_of_an_obvious_grid_is_taken() -> None:
    # Two rings: only a kernel of about their size tells them apart.
    generator = np.random.default_rng(0)
    owner = np.repeat([0, 1], 60)
    angle = generator.uniform(0, 2 * np.pi, 120)
    radius = np.where(owner == 0, 1.0, 2.0) + generator.normal(size=120) * 0.1
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
    options = {"groups": np.arange(120), "strengths": [1e-6, 10.0], "gamma_factors": [1e-6, 1.0, 1e6]}
    svm = fit_svm(x, owner, 2, **options)  # type: ignore[arg-type]
    assert float(svm.gamma) == pytest.approx(0.5, rel=1e-3)
    assert (values(svm, x).argmax(axis=1) == owner).mean() > 0.95


def test_linear_takes_the_penalty_that_holds_out_best() -> None:
    # Many noise columns and few images: hardly penalised weights fit the noise.
    generator = np.random.default_rng(1)
    owner = np.tile([0, 1, 2], 14)
    x = generator.normal(size=(42, 200)).astype(np.float32)
    x[np.arange(42), owner] += 2.0
    options = {"groups": np.arange(42), "folds": 5}
    weak, strong = (penalty_of(fit_linear(x, owner, 3, strengths=[c], **options)) for c in (1e3, 1e-3))  # type: ignore[arg-type]
    both = fit_linear(x, owner, 3, strengths=[1e3, 1e-3], **options)  # type: ignore[arg-type]
    assert penalty_of(both) == pytest.approx(strong)
    assert weak > 10 * strong


def test_the_choice_is_that_of_an_exhaustive_search_over_the_same_folds() -> None:
    x, owner = clouds(4, 9, noise=4.0, seed=3)
    groups = np.arange(len(x)) // 2
    owner = owner[groups * 2]  # siblings are of one class
    strengths, factors = [0.1, 1.0, 10.0], [0.1, 1.0, 10.0]
    svm = fit_svm(x, owner, 4, groups=groups, strengths=strengths, gamma_factors=factors, folds=3, seed=4)
    held_out = PredefinedSplit(draw_group_folds(owner, groups, 3, 4))
    accuracies = {}
    for strength in strengths:
        for factor in factors:
            svc = SVC(C=strength, gamma=factor / 6, class_weight="balanced", break_ties=True)  # one column is constant
            model = make_pipeline(StandardScaler(), svc)
            answers = cross_val_predict(model, x, owner, cv=held_out)
            accuracies[strength, factor] = balanced_accuracy_score(owner, answers), model.fit(x, owner)
    best = max(accuracies, key=lambda point: accuracies[point][0])
    assert sorted(a for a, _ in accuracies.values())[-2] < accuracies[best][0]
    assert float(svm.gamma) == pytest.approx(best[1] / 6, rel=1e-3)
    np.testing.assert_allclose(values(svm, x), accuracies[best][1].decision_function(x), atol=1e-2)


def test_folds_keep_groups_together_and_every_class_in_every_fitted_part() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 60, 200)
    classes = (np.arange(60) % 17)[groups]  # 17 classes of three or four groups
    classes[groups == 59] = 17  # a class of a single group
    fold_of = draw_group_folds(classes, groups, 5, seed=1)
    assert set(fold_of) == {-1, 0, 1, 2, 3, 4}
    assert np.unique(classes[fold_of == -1]).tolist() == [17]
    for group in np.unique(groups):
        assert len(np.unique(fold_of[groups == group])) == 1
    for fold in range(5):
        assert set(classes[fold_of != fold]) == set(classes)
        assert (fold_of == fold).sum() > 15
    np.testing.assert_array_equal(fold_of, draw_group_folds(classes, groups, 5, seed=1))
    assert (fold_of != draw_group_folds(classes, groups, 5, seed=2)).any()


def test_classes_of_few_groups_are_asked_about_in_all_folds() -> None:
    classes = np.repeat(np.arange(300), 2)
    fold_of = draw_group_folds(classes, np.arange(600), 5, seed=0)
    assert np.bincount(fold_of).min() > 80


@pytest.mark.parametrize("kind", ["linear", "svm"])
def test_species_of_a_single_image_are_learnt_with_the_others(kind: str) -> None:
    x, owner = clouds(3, 8, noise=0.1)
    lonely = (x[owner == 2][0] + 40.0)[None]
    x, owner = np.concatenate([x, lonely]), np.append(owner, 3)
    options = {"groups": np.arange(len(x)), "strengths": [0.1, 1.0]}
    if kind == "linear":
        model: torch.nn.Module = fit_linear(x, owner, 4, **options)  # type: ignore[arg-type]
    else:
        model = fit_svm(x, owner, 4, gamma_factors=[0.1, 1.0], **options)  # type: ignore[arg-type]
    assert values(model, lonely).argmax() == 3


@pytest.mark.parametrize("kind", ["linear", "svm"])
def test_one_image_of_each_species_takes_the_setting_nearest_one(kind: str) -> None:
    x, owner = np.eye(4, dtype=np.float32), np.arange(4)
    asked = []
    options = {"groups": owner, "report": lambda *stage: asked.append(stage)}
    if kind == "linear":
        model: torch.nn.Module = fit_linear(x, owner, 4, strengths=[1e-3, 2.0, 1e3], **options)  # type: ignore[arg-type]
        alone = fit_linear(x, owner, 4, groups=owner, strengths=[2.0])
        np.testing.assert_array_equal(values(model, x), values(alone, x))
    else:
        model = fit_svm(x, owner, 4, strengths=[1e-3, 2.0], gamma_factors=[0.9, 50.0], **options)  # type: ignore[arg-type]
        assert float(model.gamma) == pytest.approx(0.9 / 4, rel=1e-3)
    assert (values(model, x).argmax(axis=1) == owner).all()
    assert asked == [("fitting classifiers", 1, 1)]


def test_progress_counts_every_fit() -> None:
    x, owner = clouds(3, 8)
    told: list[tuple[str, int, int]] = []
    fit_svm(
        x, owner, 3, groups=np.arange(len(x)), strengths=[1.0, 2.0], gamma_factors=[1.0, 3.0], folds=3,
        report=lambda *stage: told.append(stage),
    )  # fmt: skip
    assert [done for _, done, _ in told] == list(range(1, 14))
    assert {total for _, _, total in told} == {13}


def test_a_sheet_with_two_species_does_not_stop_the_choice() -> None:
    x, owner = clouds(2, 3)
    groups = np.zeros(len(x), dtype=np.int64)
    groups[np.flatnonzero(owner == 0)[0]] = 1  # all others share one sheet
    model = fit_svm(x, owner, 2, groups=groups, strengths=[1.0, 2.0], gamma_factors=[1.0])
    assert values(model, x).shape == (len(x), 2)


@pytest.mark.parametrize("kind", ["linear", "svm"])
def test_fits_are_repeatable_with_any_number_of_workers(kind: str) -> None:
    x, owner = clouds(4, 8, noise=3.0)
    fits: list[RbfSvm | StandardisedLinear] = []
    for workers in (1, 3):
        options = {"groups": np.arange(len(x)), "strengths": [0.1, 1.0, 10.0], "seed": 3}
        if kind == "linear":
            fits.append(fit_linear(x, owner, 4, **options))  # type: ignore[arg-type]
        else:
            fits.append(fit_svm(x, owner, 4, gamma_factors=[0.1, 1.0], workers=workers, **options))  # type: ignore[arg-type]
    first, second = (model.state_dict() for model in fits)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_too_many_images_for_an_svm_are_refused_with_the_remedy() -> None:
    x = np.zeros((30_001, 1), dtype=np.float32)
    owner = np.arange(30_001) % 2
    with pytest.raises(InvalidConfig, match="linear"):
        fit_svm(x, owner, 2, groups=owner, strengths=[1.0], gamma_factors=[1.0])
    with pytest.raises(InvalidConfig, match="linear"):
        fit_svm(x[:6000], owner[:6000], 10_000, groups=owner[:6000], strengths=[1.0], gamma_factors=[1.0])


@pytest.mark.parametrize("grid", [[], [0.0], [1.0, -1.0], [float("nan")], [float("inf")]])
def test_grids_that_make_no_sense_are_refused(grid: list[float]) -> None:
    x, owner = clouds(2, 4)
    with pytest.raises(InvalidConfig, match="grid"):
        fit_linear(x, owner, 2, groups=owner, strengths=grid)
    with pytest.raises(InvalidConfig, match="grid"):
        fit_svm(x, owner, 2, groups=owner, strengths=[1.0], gamma_factors=grid)


def test_what_cannot_be_fitted_is_refused() -> None:
    x, owner = clouds(2, 4)
    groups = np.arange(len(x))
    with pytest.raises(InsufficientData, match="at least two species"):
        fit_linear(x, np.zeros_like(owner), 2, groups=groups, strengths=[1.0])
    with pytest.raises(InvalidConfig, match="two folds"):
        fit_linear(x, owner, 2, groups=groups, strengths=[1.0, 2.0], folds=1)
    with pytest.raises(ValueError, match="class indices"):
        fit_linear(x, owner + 1, 2, groups=groups, strengths=[1.0])
    with pytest.raises(ValueError, match="do not fit"):
        fit_linear(x, owner[1:], 2, groups=groups, strengths=[1.0])
    with pytest.raises(ValueError, match="not finite"):
        fit_linear(np.where(x > 3, np.float32(np.nan), x), owner, 2, groups=groups, strengths=[1.0])
