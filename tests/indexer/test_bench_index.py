import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from indexer import bench_index as bench_module
from indexer.bench_command import bench_app
from indexer.bench_index import bench_index
from indexer.bench_index_update import bench_update
from indexer.bench_vectors import Flora
from models.errors import InvalidConfig, VoucherError


def test_vectors_are_unit_clustered_and_the_same_for_a_seed() -> None:
    flora = Flora(2_000, 64, 3)
    sheets, species = flora.sheets("s")
    vectors = sheets.vectors
    assert vectors.shape == (2_000, 64)
    np.testing.assert_array_equal(vectors, Flora(2_000, 64, 3).sheets("s")[0].vectors)
    assert not np.array_equal(vectors, Flora(2_000, 64, 4).sheets("s")[0].vectors)
    genera = [int(s) // 10 for s in species]
    same = np.equal.outer(species, species) & ~np.eye(2_000, dtype=bool)
    related = np.equal.outer(genera, genera) & ~np.equal.outer(species, species)
    cosines = vectors @ vectors.T
    assert cosines[same].mean() == pytest.approx(0.41, abs=0.02)
    assert cosines[related].mean() == pytest.approx(0.41 * 0.67, abs=0.03)
    photos = flora.photos(200)
    np.testing.assert_allclose(np.linalg.norm(photos, axis=1), 1.0, atol=1e-5)
    of_species = np.array([(photos @ vectors[np.equal(species, s)].T).mean(axis=1) for s in sorted(set(species))])
    assert of_species.max(axis=0).mean() == pytest.approx(0.34, abs=0.03)
    added, names = flora.more_sheets(50, "s")
    assert len(set(added.keys) | set(sheets.keys)) == 2_050
    assert 0 < len(set(names) - set(species)) <= 5


def test_vectors_in_a_file_are_the_same(tmp_path: Path) -> None:
    flora = Flora(70_000, 8, 0)
    flora.write(tmp_path / "vectors.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), flora.sheets("s")[0].vectors)


def test_kinds_are_measured_each_in_processes_of_its_own(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    (size,) = bench_index(
        [1_500], 16, ["flat", "ivf-sq8"], seconds=0.0, folder=tmp_path, report=lambda *a: seen.append(a)
    )
    assert seen[-1] == ("index kinds", 3, 3)
    assert size.vectors_bytes == 1_500 * 16 * 4
    for name in ("one", "all"):
        assert size.scan_limits_ms[name] == pytest.approx(
            1e3 * size.vectors_bytes / size.bandwidth_bytes_per_second[name]
        )
    flat, lists = size.kinds
    assert (flat.asked, flat.kind, flat.automatic, flat.index_bytes, flat.effort) == ("flat", "flat", True, 0, None)
    assert flat.recall_at_build == flat.recall_at_10 == 1.0
    assert (lists.kind, lists.automatic) == ("ivf-sq8", False)
    assert lists.index_bytes > 1_500 * 16
    assert lists.recall_at_build >= 0.95
    assert 0.5 < lists.recall_at_10 <= 1.0
    for kind in size.kinds:
        assert [latency.threads for latency in kind.latencies] == [1, 0]
        assert all(0.0 < one.p50_ms <= one.p99_ms for one in kind.latencies)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_measurement_is_reported(tmp_path: Path) -> None:
    with pytest.raises(VoucherError, match=r"measuring build of 10 rows failed with 1: .*vectors\.npy"):
        bench_module._child(tmp_path, Flora(10, 8, 0), "build", 1, kind="flat")


def test_adding_sheets_is_measured_beside_a_build_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.verified_files.SETTLED_SECONDS", 0.05)
    result = bench_update(6_000, 16, added=40, seconds=0.3, swaps=2, folder=tmp_path)
    assert (result.rows, result.added, result.kind, result.gaps.swaps) == (6_000, 40, "flat", 2)
    assert result.adding_seconds == pytest.approx(result.adding.seconds)
    assert result.ratio == pytest.approx(result.adding_seconds / result.from_nothing_seconds)
    assert result.shared_bytes > 6_000 * 16 * 4 > result.new_bytes
    gaps = result.gaps
    assert 0.0 < gaps.usual_p50_ms <= gaps.usual_p99_ms <= gaps.usual_longest_ms
    assert gaps.longest_while_swapping_ms > 0.0
    assert list(tmp_path.iterdir()) == []


def run(*arguments: str):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(bench_app, ["index", "--rows", "300", "--dimensions", "8", "--seconds", "0", *arguments])


CANNED: dict[str, dict[str, object]] = {
    "bandwidth": {"bytes_per_second": 9_600_000.0},
    "build": {
        "kind": "flat",
        "effort": None,
        "build_seconds": 1.5,
        "write_seconds": 0.5,
        "index_bytes": 2_000_000,
        "vectors_bytes": 9_600,
    },
    "search": {
        "searches": 20,
        "p50_ms": 1.25,
        "p99_ms": 2.5,
        "recall_at_10": 1.0,
        "own_bytes": 3_000_000,
        "mapped_bytes": 4_000_000,
    },
}


def test_figures_for_programs_and_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "_child", lambda folder, flora, what, *_, **__: CANNED[what])
    monkeypatch.setenv("COLUMNS", "200")
    values = json.loads(run("--kinds", "flat", "--only", "kinds", "--json").stdout)
    assert values["update"] is None
    assert values["kinds"][0]["kinds"][0]["recall_at_10"] == 1.0
    assert values["kinds"][0]["scan_limits_ms"] == {"one": 1.0, "all": 1.0}
    columns, rows = bench_module.rows_of_table(bench_index([300], 8, ["flat"]))
    assert {len(row) for row in rows} == {len(columns)}
    shown = dict(zip(columns, rows[1], strict=True))
    assert (shown["kind"], shown["build s"], shown["index MB"], shown["p50 ms, 1 thread"]) == (
        "flat *",
        "1.50",
        "2",
        "1.25",
    )
    assert "(reading all)" in rows[0]


def test_a_kind_that_is_left_out_for_its_recall_has_no_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    def canned(folder: Path, flora: Flora, what: str, *_: object, **more: str) -> dict[str, object]:
        if what == "build":
            (folder / more["kind"]).mkdir()
        return CANNED[what]

    monkeypatch.setattr(bench_module, "_child", canned)
    (size,) = bench_index([300], 8, ["hnsw"])
    assert (size.kinds[0].asked, size.kinds[0].kind, size.kinds[0].latencies) == ("hnsw", "flat", ())
    columns, rows = bench_module.rows_of_table([size])
    assert "left out" in rows[1]
    assert len(rows[1]) == len(columns)


@pytest.mark.parametrize("arguments", [("--kinds", "pq"), ("--only", "swap")])
def test_unknown_kinds_and_parts_are_refused(arguments: tuple[str, str]) -> None:
    assert isinstance(run(*arguments).exception, InvalidConfig)
