"""On a full or read-only disk a command says so in one sentence, and what was there stays there."""

import subprocess

import pytest
from lane import COMMANDS, ROUNDS, Command, digest, holds

NAMES = list(COMMANDS) if ROUNDS > 1 else ["draw", "train", "measure"]
SHARES = (0.0, 0.3, 0.6, 0.9) if ROUNDS > 1 else (0.5,)


def mount(*options):
    return subprocess.run(["mount", *map(str, options)], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A disk that can be made small, in memory; its folder, and how to set its size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=400m", "none", folder):
        pytest.skip("only root can mount a small disk here")

    def resize(options):
        assert mount("-o", f"remount,{options}", folder)

    yield folder, resize
    subprocess.run(["umount", "--lazy", folder], check=True)


def run(name, place, folders):
    return Command(name, place, place.parents[1] / "log", **folders).end()


def used(folder):
    """Bytes that are taken, in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*"))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(name, share, disk, folders, tmp_path):
    folder, resize = disk
    assert run(name, folder / "first", folders).code == 0
    before, need = digest(folder), used(folder)
    resize(f"size={int(need * (1 + share)) + 16384}")
    full = run(name, folder / "place", folders)
    assert "Traceback" not in full.text, full.text
    if full.code:
        assert "disk" in full.sentence or "space" in full.sentence, full.text
    else:
        holds(name, folder / "place")
    after = digest(folder)
    assert all(after[path] == content for path, content in before.items())
    resize("size=400m")
    again = run(name, folder / "place", folders)
    if again.code and "resume" in again.sentence:
        COMMANDS["resume"] = [*COMMANDS["train"], "--resume"]
        again = run("resume", folder / "place", folders)
    assert again.code == 0, again.text
    holds(name, folder / "place")


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_can_only_be_read(name, disk, folders):
    folder, resize = disk
    (folder / "notes.txt").write_text("mine")
    resize("ro")
    refused = run(name, folder / "place", folders)
    assert refused.code and "Traceback" not in refused.text, refused.text
    assert str(folder) in refused.text and "read" in refused.sentence.lower(), refused.text
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
