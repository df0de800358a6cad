import faiss
import numpy as np
import pytest
import torch
from gallery_support import SPACE, batch, unit_rows

from models import gallery as gallery_module
from models import gpu_search
from models.compute import Compute
from models.gallery import Gallery

GPU = Compute("cuda:1", None)


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the GPU, with stand-ins for FAISS's GPU calls."""
    calls = []

    class Resources:
        def setTempMemory(self, size):  # noqa: N802 - FAISS's name
            calls.append(("scratch", size))

    class Copy:
        def __init__(self, device, index):
            self.index = index
            calls.append(("device", device))

        def add(self, vectors):
            self.index.add(vectors)

        def search(self, queries, k):
            calls.append(("search", k))
            similarities, rows = self.index.search(queries, k)
            # What FAISS returns where it finds less than k.
            nothing = np.full((len(queries), 1), -1)
            return np.c_[similarities, nothing], np.c_[rows, nothing]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda r, device, index: Copy(device, index), raising=False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 30))
    return calls


def test_faiss_without_gpus_searches_on_the_cpu(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    built = Gallery.build(batch(np.eye(3)), ["a", "b", "c"], compute=GPU)
    assert [m.species_id for m in built.nearest_sheets(np.eye(3, dtype=np.float32)[1:2], 1)[0]] == ["b"]
    assert "searching on the CPU" in caplog.text


def test_on_a_gpu_machine_a_copy_is_searched_and_large_k_goes_to_the_master(calls, monkeypatch):
    monkeypatch.setattr(gallery_module, "MOST_RESULTS", 20)
    built = Gallery.build(batch(np.eye(8)), list("abcdefgh"), compute=GPU)
    query = np.eye(8, dtype=np.float32)[:1]
    (found,) = built.nearest_sheets(query, 4)
    assert (found[0].sheet_id, len(found)) == ("sheet0000", 4)
    assert len(built.nearest_sheets(query, 5)[0]) == 5
    assert calls == [("scratch", gpu_search._SCRATCH_BYTES), ("device", 1), ("search", 8)]


def test_the_copy_holds_the_living_sheets_of_all_segments(calls, monkeypatch):
    monkeypatch.setattr(gpu_search, "_BLOCK_ROWS", 1_000)
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng, 5_010, 8)
    names = [f"species{i % 7}" for i in range(5_010)]
    base = Gallery.build(batch(vectors[:5_000]), names[:5_000])
    added = batch(vectors[5_000:], [f"new{i}" for i in range(10)])
    removed = [f"sheet{i:04d}" for i in range(0, 900, 3)]
    on_cpu = base.updated(added, names[5_000:], removed)
    on_gpu = base.updated(added, names[5_000:], removed, compute=GPU)
    assert len(on_gpu.parts.segments) == 2
    asked = np.vstack([vectors[[0, 1, 5_003]], unit_rows(rng, 4, 8)])
    for k in (1, 10, 2_000):
        for found, expected in zip(on_gpu.nearest_sheets(asked, k), on_cpu.nearest_sheets(asked, k), strict=True):
            # Of two thousand some differ by just about what makes a tie.
            assert [m.sheet_id for m in found[:20]] == [m.sheet_id for m in expected[:20]]
            assert [m.similarity for m in found] == pytest.approx([m.similarity for m in expected], abs=3e-6)
    assert [k for name, k in calls if name == "search"] == [17, 26, 2_016]


def test_equal_sheets_come_in_order_from_a_gpu_too(calls):
    vectors = np.repeat(np.array([[0.6, 0.8, 0]], dtype=np.float32), 12, axis=0)
    built = Gallery.build(batch(vectors), ["s"] * 6 + ["r"] * 6, compute=GPU)
    (found,) = built.nearest_sheets(vectors[:1], 8)
    assert [m.sheet_id for m in found] == [f"sheet{i:04d}" for i in (6, 7, 8, 9, 10, 11, 0, 1)]


def test_vectors_that_leave_the_network_no_memory_stay_on_the_cpu(calls, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 * 8 * 4 * 4 - 1, 1 << 30))
    built = Gallery.build(batch(np.eye(8)), list("abcdefgh"), compute=GPU)
    assert len(built.nearest_sheets(np.eye(8, dtype=np.float32)[:1], 4)[0]) == 4
    assert calls == []
    assert "searching on the CPU: 0 MB of vectors" in caplog.text


def test_a_gpu_that_refuses_the_copy_is_done_without(calls, monkeypatch, caplog):
    def refused(resources, device, index):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", refused)
    built = Gallery.build(batch(np.eye(8)), list("abcdefgh"), compute=GPU)
    assert len(built.nearest_sheets(np.eye(8, dtype=np.float32)[:1], 4)[0]) == 4
    assert "out of memory" in caplog.text


@pytest.mark.gpu
def test_gpu_search_equals_cpu_search(tmp_path):
    if not getattr(faiss, "get_num_gpus", int)():
        pytest.skip("no CUDA device, or faiss-cpu")
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng, 5_000, 64)
    names = [f"species{i % 300}" for i in range(5_000)]
    compute = Compute.resolve("cuda:0")
    on_cpu = Gallery.build(batch(vectors), names)
    on_gpu = Gallery.build(batch(vectors), names, compute=compute)
    asked = unit_rows(rng, 50, 64)
    removed = [f"sheet{i:04d}" for i in range(0, 900, 3)]
    pairs = [(on_cpu, on_gpu), (on_cpu.updated(removed=removed), on_gpu.updated(removed=removed, compute=compute))]
    for cpu, gpu in pairs:
        for k in (1, 10, 2_000, 6_000):
            for found, expected in zip(gpu.nearest_sheets(asked, k), cpu.nearest_sheets(asked, k), strict=True):
                assert [m.similarity for m in found] == pytest.approx([m.similarity for m in expected], abs=1e-4)
                assert found[0].sheet_id == expected[0].sheet_id
    on_gpu.save(tmp_path)
    assert Gallery.load(tmp_path, expected_space_id=SPACE).sheet_columns() == on_cpu.sheet_columns()
