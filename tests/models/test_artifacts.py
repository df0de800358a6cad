import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from models import artifacts, manifest, verified_files
from models.artifacts import activate, active_artifact_id, folder_of, list_artifacts, list_incomplete, read, writing
from models.errors import BundleCorrupt, BundleError, BundleMissing, StorageFull
from models.home import Home
from models.verified_files import link_or_copy

REPOSITORY = Path(__file__).resolve().parents[2]
VECTORS = bytes(range(256)) * 20


def publish(parent: Path, artifact_id: str = "a1", kind: str = "index", vectors: bytes = VECTORS) -> Path:
    with writing(parent, kind=kind, artifact_id=artifact_id, metadata={"space_id": "s", "tau": 0.93}) as folder:
        (folder / "vectors.faiss").write_bytes(vectors)
        (folder / "heads").mkdir()
        (folder / "heads" / "head.safetensors").write_bytes(b"weights")
    return parent / artifact_id


def rewrite_manifest(root: Path, *, sign: bool = True, **changes) -> None:
    """Change the manifest as an attacker would, who knows how its digest is made."""
    content = json.loads((root / "manifest.json").read_text())
    content.update(changes)
    for key in [k for k, v in changes.items() if v is ...]:
        del content[key]
    if sign:
        content["digest"] = manifest.manifest_digest(content)
    (root / "manifest.json").chmod(0o644)
    (root / "manifest.json").write_text(json.dumps(content))


def make_writable(root: Path) -> None:
    """Take away the protection of a sealed artifact's files, as whoever damages them must."""
    for path in root.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def everything_in(parent: Path) -> list[str]:
    return sorted(p.name for p in parent.iterdir())


def test_published_artifact_reads_back_with_its_files_and_metadata(tmp_path):
    root = publish(tmp_path / "indexes")
    artifact = read(root, kind="index")
    assert artifact.artifact_id == "a1"
    assert artifact.metadata == {"space_id": "s", "tau": 0.93}
    assert set(artifact.files) == {"vectors.faiss", "heads/head.safetensors"}
    assert artifact.files["vectors.faiss"].bytes == len(VECTORS)
    assert artifact.path("heads/head.safetensors").read_bytes() == b"weights"
    assert artifact.created_at.endswith("+00:00")


def test_manifest_records_voucher_version_and_format(tmp_path):
    content = json.loads((publish(tmp_path) / "manifest.json").read_text())
    assert content["format_version"] == artifacts.FORMAT_VERSION
    assert content["voucher_version"]


def test_version_is_unknown_where_voucher_is_not_installed(tmp_path, monkeypatch):
    def not_installed(name):
        raise artifacts.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(artifacts.importlib.metadata, "version", not_installed)
    assert json.loads((publish(tmp_path) / "manifest.json").read_text())["voucher_version"] == "unknown"


def test_metadata_may_be_computed_after_the_files_are_written(tmp_path):
    found = {}
    with writing(tmp_path, kind="model", artifact_id="m", metadata=lambda: found) as folder:
        (folder / "w").write_bytes(b"1")
        found["epochs"] = 3
    assert read(tmp_path / "m", kind="model").metadata == {"epochs": 3}


@pytest.mark.parametrize("name", ["absent", "../a1/vectors.faiss", "/etc/passwd", "manifest.json"])
def test_path_knows_only_the_names_in_the_manifest(tmp_path, name):
    artifact = read(publish(tmp_path), kind="index")
    with pytest.raises(BundleCorrupt, match=r"has no file .* only heads/head.safetensors, vectors.faiss"):
        artifact.path(name)


@pytest.mark.parametrize("error", [RuntimeError("disk full"), KeyboardInterrupt(), SystemExit(1)])
def test_exception_while_writing_leaves_nothing_behind(tmp_path, error):
    def fail_midway():
        with writing(tmp_path, kind="index", artifact_id="a1", metadata={}) as folder:
            (folder / "vectors.faiss").write_bytes(VECTORS)
            raise error

    with pytest.raises(type(error)):
        fail_midway()
    assert everything_in(tmp_path) == []


def test_metadata_that_json_cannot_hold_leaves_nothing_behind(tmp_path):
    with (
        pytest.raises(ValueError, match="JSON"),
        writing(tmp_path, kind="index", artifact_id="a1", metadata={"x": float("nan")}),
    ):
        pass
    assert everything_in(tmp_path) == []


def test_staging_is_a_sibling_that_is_no_artifact(tmp_path):
    with writing(tmp_path, kind="index", artifact_id="a1", metadata={}) as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(f".staging-a1-{os.getpid()}-")
        (folder / "manifest-like").write_bytes(b"")
        assert list_artifacts(tmp_path) == []
    assert list_artifacts(tmp_path) == ["a1"]


def test_existing_artifact_is_never_overwritten(tmp_path):
    root = publish(tmp_path)
    with pytest.raises(BundleError, match="exists already"):
        publish(tmp_path, vectors=b"other")
    assert read(root, kind="index").path("vectors.faiss").read_bytes() == VECTORS
    assert everything_in(tmp_path) == ["a1"]


def test_of_two_writers_of_one_id_the_second_is_refused(tmp_path):
    def finish_second():
        with writing(tmp_path, kind="index", artifact_id="a1", metadata={}) as folder:
            (folder / "late").write_bytes(b"")
            publish(tmp_path)

    with pytest.raises(BundleError, match="exists already"):
        finish_second()
    assert "late" not in read(tmp_path / "a1", kind="index").files
    assert everything_in(tmp_path) == ["a1"]


def test_rename_race_is_reported_as_existing(tmp_path, monkeypatch):
    first = publish(tmp_path)
    # The other writer's rename falls between our last look and our own rename.
    looks = iter([False, False, True])
    monkeypatch.setattr(artifacts.os.path, "lexists", lambda _: next(looks))
    with pytest.raises(BundleError, match="exists already"):
        publish(tmp_path, vectors=b"other")
    monkeypatch.undo()
    assert read(first, kind="index").path("vectors.faiss").read_bytes() == VECTORS
    assert everything_in(tmp_path) == ["a1"]


def test_failing_rename_is_reported_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def denied(path, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", denied)
    with pytest.raises(BundleError, match=r"cannot publish .*a1: Permission denied"):
        publish(tmp_path)
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("artifact_id", ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a\n", "ä", "x" * 129])
def test_ids_that_are_no_plain_names_are_refused(tmp_path, artifact_id):
    with (
        pytest.raises(BundleError, match="artifact id"),
        writing(tmp_path, kind="index", artifact_id=artifact_id, metadata={}),
    ):
        pytest.fail("the id was accepted")
    with pytest.raises(BundleError, match="artifact id"):
        activate(Home(tmp_path), artifact_id)
    assert everything_in(tmp_path) == []


def test_folder_of_a_plain_id_lies_in_the_parent(tmp_path):
    assert folder_of(tmp_path, "2026-11_a.1") == tmp_path / "2026-11_a.1"


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("/etc/hostname"), lambda p: os.mkfifo(p)])
def test_links_and_special_files_are_not_published(tmp_path, make):
    with (
        pytest.raises(BundleError, match="plain files"),
        writing(tmp_path, kind="index", artifact_id="a1", metadata={}) as folder,
    ):
        make(folder / "odd")
    assert everything_in(tmp_path) == []


def test_the_name_of_the_manifest_is_reserved(tmp_path):
    with (
        pytest.raises(BundleError, match="choose another file name"),
        writing(tmp_path, kind="index", artifact_id="a1", metadata={}) as folder,
    ):
        (folder / "manifest.json").write_text("{}")
    assert everything_in(tmp_path) == []


def test_a_file_that_the_disk_returns_changed_is_not_published(tmp_path, monkeypatch):
    wanted = artifacts.sync_file

    def corrupting(path):
        wanted(path)
        if path.name == "manifest.json":
            make_writable(path.parent)
            (path.parent / "vectors.faiss").write_bytes(VECTORS[:-1] + b"\x00")

    monkeypatch.setattr(artifacts, "sync_file", corrupting)
    with pytest.raises(BundleCorrupt, match=r"vectors.faiss"):
        publish(tmp_path)
    assert everything_in(tmp_path) == []


def flip_byte(path: Path, at: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


CORRUPTIONS = {
    "flipped byte": (lambda r: flip_byte(r / "vectors.faiss"), r"vectors\.faiss was changed"),
    "flipped byte below": (lambda r: flip_byte(r / "heads" / "head.safetensors", 0), "head.safetensors was changed"),
    "truncated": (lambda r: os.truncate(r / "vectors.faiss", 5000), "vectors.faiss has 5000 bytes instead of 5120"),
    "emptied": (lambda r: os.truncate(r / "vectors.faiss", 0), "vectors.faiss has 0 bytes"),
    "grown": (lambda r: os.truncate(r / "vectors.faiss", 5121), "vectors.faiss has 5121 bytes"),
    "deleted": (lambda r: (r / "vectors.faiss").unlink(), "vectors.faiss is missing"),
    "folder deleted": (lambda r: shutil.rmtree(r / "heads"), "heads/head.safetensors is missing"),
    "added": (lambda r: (r / "heads" / "extra").write_bytes(b""), "heads/extra does not belong there; remove it"),
    "replaced by a link": (
        lambda r: ((r / "vectors.faiss").unlink(), (r / "vectors.faiss").symlink_to("/etc/hostname")),
        "link",
    ),
    "manifest deleted": (lambda r: (r / "manifest.json").unlink(), "manifest.json is missing"),
    "manifest empty": (lambda r: (r / "manifest.json").write_bytes(b""), "manifest.json is damaged"),
    "manifest binary": (lambda r: (r / "manifest.json").write_bytes(bytes(range(256))), "manifest.json is damaged"),
    "manifest a list": (lambda r: (r / "manifest.json").write_text("[]"), "not a JSON object"),
    "manifest deep": (lambda r: (r / "manifest.json").write_text("[" * 200_000), "nested too deeply"),
    "manifest truncated": (lambda r: os.truncate(r / "manifest.json", 60), "manifest.json is damaged"),
    "manifest edited": (lambda r: rewrite_manifest(r, sign=False, metadata={"tau": 0.5}), "changed after"),
    "manifest unsigned": (lambda r: rewrite_manifest(r, sign=False, digest=...), "changed after"),
    "newer version": (lambda r: rewrite_manifest(r, format_version=4), "version 4, newer than 3.*update voucher"),
    "older version": (lambda r: rewrite_manifest(r, format_version=2), "version 2, older than 3.*voucher build"),
    "no version": (lambda r: rewrite_manifest(r, format_version=...), "no format version"),
    "version of another type": (lambda r: rewrite_manifest(r, format_version=True), "no format version"),
    "other kind": (lambda r: rewrite_manifest(r, kind="model"), "expected a index artifact, found a 'model'"),
    "no kind": (lambda r: rewrite_manifest(r, kind=...), "lacks or garbles 'kind'"),
    "files a list": (lambda r: rewrite_manifest(r, files=[]), "lacks or garbles"),
    "file record garbled": (lambda r: rewrite_manifest(r, files={"v": {"sha256": 1, "bytes": 2}}), "lacks or garbles"),
    "file record extended": (lambda r: rewrite_manifest(r, files={"v": {"mode": 1}}), "lacks or garbles"),
    "bad digest": (lambda r: rewrite_manifest(r, files={"v": {"sha256": "0", "bytes": 2}}), "record of 'v'"),
    "metadata no object": (lambda r: rewrite_manifest(r, metadata=[1]), "lacks or garbles"),
    "bad date": (lambda r: rewrite_manifest(r, created_at="yesterday"), "lacks or garbles"),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corruption_is_refused_and_named(tmp_path, corruption):
    root = publish(tmp_path)
    make_writable(root)
    damage, message = CORRUPTIONS[corruption]
    damage(root)
    with pytest.raises(BundleCorrupt, match=message) as caught:
        read(root, kind="index")
    assert "index a1" in str(caught.value) or "link" in message


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "", "./a", "a//b"])
def test_manifest_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    root = publish(tmp_path)
    rewrite_manifest(root, files={name: {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(BundleCorrupt, match="file name"):
        read(root, kind="index", verify=False)


def test_a_changed_byte_anywhere_in_the_manifest_is_refused(tmp_path):
    root = publish(tmp_path)
    make_writable(root)
    path = root / "manifest.json"
    whole = path.read_bytes()
    layout = {i for i, b in enumerate(whole) if b in b" \n"}
    for at in sorted(set(range(0, len(whole), 3)) - layout):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(BundleCorrupt):
            read(root, kind="index", verify=False)
    path.write_bytes(whole)
    read(root, kind="index")


def test_without_verification_only_names_and_sizes_are_checked(tmp_path):
    root = publish(tmp_path)
    make_writable(root)
    flip_byte(root / "vectors.faiss")
    assert read(root, kind="index", verify=False).artifact_id == "a1"
    os.truncate(root / "vectors.faiss", 5)
    with pytest.raises(BundleCorrupt, match="5 bytes"):
        read(root, kind="index", verify=False)


def test_renamed_folder_is_refused(tmp_path):
    publish(tmp_path).rename(tmp_path / "a2")
    with pytest.raises(BundleCorrupt, match="renamed; give it back its name a1"):
        read(tmp_path / "a2", kind="index")


@pytest.mark.parametrize(("kind", "remedy"), [("index", "voucher build"), ("model", "voucher train"), ("x", "again")])
def test_missing_artifact_names_its_remedy(tmp_path, kind, remedy):
    with pytest.raises(BundleMissing, match=f"no {kind} a9.*{remedy}"):
        read(tmp_path / "a9", kind=kind)


def test_unreadable_file_is_reported_as_corrupt(tmp_path, monkeypatch):
    root = publish(tmp_path)

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(artifacts, "record_of", denied)
    with pytest.raises(BundleCorrupt, match=r"vectors.faiss: Permission denied|head.safetensors: Permission denied"):
        read(root, kind="index")


def test_list_is_sorted_and_holds_complete_artifacts_only(tmp_path):
    assert list_artifacts(tmp_path / "absent") == []
    publish(tmp_path, "b")
    publish(tmp_path, "a")
    (tmp_path / "no-manifest").mkdir()
    (tmp_path / "a-file").write_bytes(b"")
    shutil.copytree(tmp_path / "a", tmp_path / ".staging-c-1-00000000")
    assert list_artifacts(tmp_path) == ["a", "b"]


def test_activation_names_the_artifact_and_can_go_back(tmp_path):
    home = Home(tmp_path)
    publish(home.indexes, "a1")
    publish(home.indexes, "a2")
    activate(home, "a1")
    assert active_artifact_id(home) == "a1"
    activate(home, "a2")
    assert active_artifact_id(home) == "a2"
    activate(home, "a1")
    assert active_artifact_id(home) == "a1"
    assert everything_in(tmp_path) == ["active.json", "indexes"]


def test_damaged_or_absent_artifact_is_not_activated(tmp_path):
    home = Home(tmp_path)
    publish(home.indexes, "a1")
    activate(home, "a1")
    make_writable(publish(home.indexes, "a2"))
    flip_byte(home.indexes / "a2" / "vectors.faiss")
    with pytest.raises(BundleCorrupt):
        activate(home, "a2")
    with pytest.raises(BundleMissing):
        activate(home, "a3")
    assert active_artifact_id(home) == "a1"


def test_failed_pointer_write_keeps_the_old_one(tmp_path, monkeypatch):
    home = Home(tmp_path)
    publish(home.indexes, "a1")
    publish(home.indexes, "a2")
    activate(home, "a1")

    def disk_full(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", disk_full)
    with pytest.raises(StorageFull, match="disk is full: a2 was not put into service"):
        activate(home, "a2")
    assert active_artifact_id(home) == "a1"
    assert everything_in(tmp_path) == ["active.json", "indexes"]


def test_without_activation_the_remedy_is_to_build(tmp_path):
    with pytest.raises(BundleMissing, match="run `voucher build`"):
        active_artifact_id(Home(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "unreadable"),
        (b"\xff\x00", "unreadable"),
        (b'"a1"', "unreadable"),
        (b'{"artifact_id": "a1"}', "no format version"),
        (b'{"format_version": 4, "artifact_id": "a1"}', "newer"),
        (b'{"format_version": 1, "artifact_id": "a1"}', "older"),
        (b'{"format_version": 3}', "names no artifact"),
        (b'{"format_version": 3, "artifact_id": 7}', "names no artifact"),
        (b'{"format_version": 3, "artifact_id": "../../a1"}', "names no artifact"),
    ],
)
def test_unreadable_pointer_is_corrupt(tmp_path, content, message):
    home = Home(tmp_path)
    home.active_pointer.write_bytes(content)
    with pytest.raises(BundleCorrupt, match=message):
        active_artifact_id(home)


PUBLISH_AND_ACTIVATE = """
import sys, os
from pathlib import Path
from models.artifacts import activate, writing
from models.home import Home

home = Home(Path(sys.argv[1]))

def cycle(artifact_id):
    with writing(home.indexes, kind="index", artifact_id=artifact_id, metadata={}) as folder:
        for i in range(3):
            (folder / f"{i}.faiss").write_bytes(os.urandom(50_000))
    activate(home, artifact_id)
"""

KILLED_AT_RANDOM = PUBLISH_AND_ACTIVATE + textwrap.dedent("""
    n = 0
    while True:
        cycle(f"{os.getpid()}-{n}")
        n += 1
        if n == 1:
            print("ready", flush=True)
    """)

# Each child dies by SIGKILL just before its n-th call that changes the disk; the last one survives.
KILLED_AT_EVERY_STEP = PUBLISH_AND_ACTIVATE + textwrap.dedent("""
    import signal

    cycle("first")
    for step in range(1, 200):
        child = os.fork()
        if child == 0:
            left = [step]
            def counting(call):
                def counted(*args, **kwargs):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return call(*args, **kwargs)
                return counted
            for name in ("fsync", "rename", "replace", "mkdir", "unlink"):
                setattr(os, name, counting(getattr(os, name)))
            cycle(f"step-{step}")
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            print(step, flush=True)
            break
    """)


def check_after_kill(home: Home) -> None:
    """The active index verifies, so does every other one, and only staging leftovers of the dead remain."""
    read(home.indexes / active_artifact_id(home), kind="index")
    for artifact_id in list_artifacts(home.indexes):
        read(home.indexes / artifact_id, kind="index")
    artifacts.remove_stale_staging(home.indexes)
    artifacts.remove_stale_staging(home.root)
    assert everything_in(home.indexes) == list_artifacts(home.indexes)
    assert everything_in(home.root) == ["active.json", "indexes"]


def test_sigkill_at_random_moments_never_leaves_a_torn_artifact_or_pointer(tmp_path):
    home = Home(tmp_path)
    delays = random.Random(7)
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED_AT_RANDOM, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout.readline() == b"ready\n"
            time.sleep(delays.uniform(0, 0.06))
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        check_after_kill(home)
    assert len(list_artifacts(home.indexes)) >= 6


def test_sigkill_before_every_step_of_publishing_leaves_a_valid_active_index(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    survivor = int(result.stdout)
    assert survivor > 8, "fewer steps than files were counted"
    assert active_artifact_id(Home(tmp_path)) == f"step-{survivor}"
    check_after_kill(Home(tmp_path))


# -- what artifacts share


@pytest.fixture
def hashes(monkeypatch):
    """Names of the files that are hashed, in a process that has hashed none."""
    verified_files.forget()
    names = []
    wanted = verified_files.hashlib.file_digest

    def counting(file, kind):
        names.append(Path(file.name).name)
        return wanted(file, kind)

    monkeypatch.setattr(verified_files.hashlib, "file_digest", counting)
    return names


def settle(root: Path) -> None:
    """Make files old enough to be remembered once they are hashed."""
    for path in root.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))


def publish_sharing(parent: Path, base: Path, artifact_id: str) -> Path:
    with writing(parent, kind="index", artifact_id=artifact_id, metadata={}) as folder:
        link_or_copy(base / "vectors.faiss", folder / "vectors.faiss")
        (folder / "own").write_bytes(b"own")
    return parent / artifact_id


def test_sealed_files_are_read_only(tmp_path):
    root = publish(tmp_path)
    assert {p.stat().st_mode & 0o777 for p in root.rglob("*") if p.is_file()} == {0o444}


def test_a_shared_file_is_neither_hashed_nor_synced_again(tmp_path, hashes, monkeypatch):
    base = publish(tmp_path)
    settle(base)
    read(base, kind="index")
    synced = []
    wanted = artifacts.sync_file
    monkeypatch.setattr(artifacts, "sync_file", lambda path: (synced.append(path.name), wanted(path)))
    hashes.clear()
    shared = publish_sharing(tmp_path, base, "a2")
    artifact = read(shared, kind="index")
    assert artifact.files["vectors.faiss"] == read(base, kind="index").files["vectors.faiss"]
    assert "vectors.faiss" not in hashes
    assert set(hashes) == {"own"}
    assert "vectors.faiss" not in synced


def test_a_fresh_process_hashes_everything_and_a_shared_file_once(tmp_path, hashes):
    base = publish(tmp_path)
    shared = publish_sharing(tmp_path, base, "a2")
    settle(base)
    verified_files.forget()
    hashes.clear()
    read(base, kind="index")
    read(shared, kind="index")
    assert hashes.count("vectors.faiss") == 1


def test_damage_to_a_shared_file_is_refused_in_both_by_a_fresh_process(tmp_path, hashes):
    base = publish(tmp_path)
    shared = publish_sharing(tmp_path, base, "a2")
    make_writable(base)
    flip_byte(base / "vectors.faiss")
    settle(base)
    verified_files.forget()
    for root in (base, shared):
        with pytest.raises(BundleCorrupt, match=r"vectors\.faiss was changed"):
            read(root, kind="index")


def test_removing_an_artifact_leaves_what_others_share_with_it(tmp_path):
    base = publish(tmp_path)
    shared = publish_sharing(tmp_path, base, "a2")
    shutil.rmtree(base)
    assert read(shared, kind="index").path("vectors.faiss").read_bytes() == VECTORS


def test_a_file_is_read_back_from_the_disk_even_if_it_was_written_long_ago(tmp_path, hashes):
    with writing(tmp_path, kind="index", artifact_id="a1", metadata={}) as folder:
        (folder / "vectors.faiss").write_bytes(VECTORS)
        settle(folder)
    assert hashes.count("vectors.faiss") == 2


# -- incomplete artifacts, and who activated what


def test_what_is_no_complete_artifact_is_listed_apart(tmp_path):
    assert list_incomplete(tmp_path / "absent") == []
    publish(tmp_path, "whole")
    (tmp_path / "no-manifest").mkdir()
    shutil.copytree(tmp_path / "whole", tmp_path / ".staging-c-1-00000000")
    with writing(tmp_path, kind="index", artifact_id="now", metadata={}) as folder:
        assert list_incomplete(tmp_path) == sorted([".staging-c-1-00000000", folder.name, "no-manifest"])
    assert list_incomplete(tmp_path) == [".staging-c-1-00000000", "no-manifest"]


def test_the_pointer_names_who_activated_and_what_was_served_before(tmp_path):
    home = Home(tmp_path)
    for name in ("a1", "a2"):
        publish(home.indexes, name)

    def pointer(artifact_id, by=None):
        activate(home, artifact_id, by=by)
        content = json.loads(home.active_pointer.read_text())
        return content["artifact_id"], content["activated_by"], content["previous"]

    assert pointer("a1") == ("a1", None, None)
    assert pointer("a2", "Linné") == ("a2", "Linné", "a1")
    assert pointer("a2") == ("a2", None, "a1")
    assert pointer("a1") == ("a1", None, "a2")
    home.active_pointer.write_bytes(b"{")
    assert pointer("a2") == ("a2", None, None)


def test_models_of_the_version_before_are_read_and_indexes_are_not(tmp_path):
    model, index = publish(tmp_path, "m", "model"), publish(tmp_path, "i", "index")
    for root in (model, index):
        rewrite_manifest(root, format_version=2)
    assert read(model, kind="model").artifact_id == "m"
    with pytest.raises(BundleCorrupt, match=r"version 2, older than 3.*voucher build"):
        read(index, kind="index")
    rewrite_manifest(model, format_version=1)
    with pytest.raises(BundleCorrupt, match=r"version 1, older than 2.*voucher train"):
        read(model, kind="model")


def test_a_pointer_of_the_version_before_is_followed(tmp_path):
    home = Home(tmp_path)
    home.active_pointer.write_bytes(b'{"format_version": 2, "artifact_id": "a1"}')
    assert active_artifact_id(home) == "a1"
