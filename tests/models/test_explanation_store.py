import os
import threading
import time
from pathlib import Path

import pytest

from models.durable import staging_path
from models.explanation_store import ExplanationStore

MAPS = {"photo-1": b"one", "sheet-1": b"two"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "explanations"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test moves."""
    now = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_what_was_put_is_found_by_every_store_of_the_folder(folder: Path, clock: list[float]) -> None:
    identity = ExplanationStore(folder, seconds=100).put(MAPS)
    clock[0] += 30
    other = ExplanationStore(folder)
    for name, content in MAPS.items():
        found = other.get(identity, name)
        assert found is not None
        assert found.png == content
        assert found.seconds_left == pytest.approx(70)
    assert other.get(identity, "sheet-2") is None


def test_ids_are_of_128_bits_and_never_the_same(folder: Path) -> None:
    store = ExplanationStore(folder)
    found = {store.put(MAPS) for _ in range(50)}
    assert len(found) == 50
    assert all(len(bytes.fromhex(identity)) == 16 for identity in found)


HOSTILE = [
    "",
    ".",
    "..",
    "../..",
    "%2e%2e",
    "0" * 31,
    "0" * 33,
    "0" * 32 + "\n",
    "A" * 32,
    "g" * 32,
    "/" * 32,
    "０" * 32,
    "\0" * 32,
    "a" * 100_000,
    ".staging-x",
]


@pytest.mark.parametrize("identity", HOSTILE, ids=lambda v: ascii(v[:20]))
def test_hostile_ids_find_nothing(folder: Path, identity: str) -> None:
    store = ExplanationStore(folder)
    store.put(MAPS)
    (folder / "photo-1.png").write_bytes(b"beside")
    assert store.get(identity, "photo-1") is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "../secret", "photo", "photo-0", "photo-100", "photo-1.png", "photo-1\n", "leaf-1", "photo-１", "\0"],
)
def test_hostile_names_find_nothing_and_cannot_be_put(folder: Path, name: str) -> None:
    store = ExplanationStore(folder)
    identity = store.put(MAPS)
    expires = (folder / identity).stat().st_mtime
    (folder / identity / "secret.png").write_bytes(b"beside")
    os.utime(folder / identity, (expires, expires))
    assert store.get(identity, name) is None
    assert store.get(identity, "photo-1") is not None
    with pytest.raises(ValueError, match="names"):
        store.put({name: b"x"})
    assert kept(folder) == {identity}


def test_what_expired_is_not_found_though_nobody_has_removed_it(folder: Path, clock: list[float]) -> None:
    store = ExplanationStore(folder, seconds=60)
    identity = store.put(MAPS)
    clock[0] += 60
    assert store.get(identity, "photo-1") is None
    assert kept(folder) == {identity}
    assert store.expired() == 1


def test_a_sweep_removes_what_expired_whatever_its_own_setting_is(folder: Path, clock: list[float]) -> None:
    old, young = ExplanationStore(folder, seconds=60).put(MAPS), ExplanationStore(folder, seconds=600).put(MAPS)
    clock[0] += 61
    assert ExplanationStore(folder, seconds=5).sweep() == 1
    assert kept(folder) == {young}
    assert old not in kept(folder)
    assert ExplanationStore(folder).sweep() == 0


def test_whoever_does_not_know_the_bounds_removes_only_what_expired(folder: Path, clock: list[float]) -> None:
    store = ExplanationStore(folder, seconds=60)
    store.put(MAPS)
    clock[0] += 61
    young = [store.put(MAPS) for _ in range(3)]
    assert ExplanationStore(folder, most_answers=1, most_bytes=1).sweep(only_expired=True) == 1
    assert kept(folder) == set(young)
    store = ExplanationStore(folder, most_answers=1, most_bytes=1)
    assert store.sweep() == 3
    assert not kept(folder) & set(young)


def test_a_folder_that_is_not_there_is_empty(folder: Path) -> None:
    store = ExplanationStore(folder)
    assert (store.sweep(), store.expired(), store.get("0" * 32, "photo-1")) == (0, 0, None)
    assert not folder.exists()


def test_bytes_are_bounded_and_the_first_to_expire_go_first(folder: Path, clock: list[float]) -> None:
    store = ExplanationStore(folder, most_bytes=10_000)
    put = []
    for _ in range(60):
        put.append(store.put({"photo-1": bytes(500)}))
        clock[0] += 1
        assert sum(f.stat().st_size for f in folder.rglob("*.png")) <= 11_000
    assert store.get(put[-1], "photo-1") is not None
    left = [identity for identity in put if store.get(identity, "photo-1")]
    assert left == put[-len(left) :]
    assert 15 <= len(left) <= 22


def test_the_number_is_bounded(folder: Path, clock: list[float]) -> None:
    store = ExplanationStore(folder, most_answers=20)
    for _ in range(100):
        store.put(MAPS)
        clock[0] += 1
        assert len(kept(folder)) <= 22
    assert len(kept(folder)) >= 15


def test_two_stores_of_one_folder_keep_the_bounds_together(folder: Path, clock: list[float]) -> None:
    stores = [ExplanationStore(folder, most_answers=20) for _ in range(2)]
    for number in range(100):
        stores[number % 2].put(MAPS)
        clock[0] += 1
    assert 15 <= len(kept(folder)) <= 24


def test_more_than_there_is_ever_room_for_is_refused(folder: Path) -> None:
    store = ExplanationStore(folder, most_bytes=100)
    with pytest.raises(ValueError, match="101"):
        store.put({"photo-1": bytes(101)})
    assert kept(folder) == set()


def test_a_full_disk_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ExplanationStore(folder)
    written = []
    real = Path.write_bytes

    def fail(self: Path, content: bytes) -> int:
        if written:
            raise OSError(28, "No space left on device")
        written.append(self)
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        store.put(MAPS)
    assert len(written) == 1
    assert kept(folder) == set()


def test_what_a_killed_process_left_is_swept(folder: Path) -> None:
    folder.mkdir(parents=True)
    left = staging_path(folder, "0" * 32)
    dead = folder / left.name.replace(str(os.getpid()), "4194999")
    dead.mkdir()
    (dead / "photo-1.png").write_bytes(b"half")
    ExplanationStore(folder).sweep()
    assert kept(folder) == set()


def test_other_files_in_the_folder_are_left_alone(folder: Path, clock: list[float]) -> None:
    store = ExplanationStore(folder, seconds=1)
    store.put(MAPS)
    (folder / "README").write_text("mine")
    clock[0] += 10
    store.sweep()
    assert kept(folder) == {"README"}


def test_many_threads_put_get_and_sweep_at_once(folder: Path) -> None:
    stores = [ExplanationStore(folder, most_answers=30) for _ in range(2)]
    failures: list[BaseException] = []

    def work(store: ExplanationStore) -> None:
        try:
            for _ in range(40):
                identity = store.put(MAPS)
                found = store.get(identity, "photo-1")
                assert found is None or found.png == b"one"
                store.sweep()
        except Exception as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(stores[n % 2],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(kept(folder)) <= 36
