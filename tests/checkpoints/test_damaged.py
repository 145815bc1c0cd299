"""Damaged checkpoints of all kinds are read or refused in one paragraph: no crash, no hang, no other file opened."""

from __future__ import annotations

import collections
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from tests.checkpoints import mutations, test_untrusted

ROOT = Path(__file__).parents[2]
MAX_SECONDS = 10


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    mutations.save_all(folder)
    return folder


def read_damaged(saved: Path, first: int, end: int) -> None:
    """Reads the checkpoints of these seeds in a process of their own."""
    command = [sys.executable, "-m", "tests.checkpoints.mutations", str(saved), str(first), str(end)]
    limit = 60 + MAX_SECONDS * (end - first)
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit)
    lines = [line.split("\t") for line in process.stdout.splitlines()]
    assert process.returncode == 0, f"The process died at {lines[-1:]}\n{process.stderr}"
    counts = collections.Counter((kind, outcome) for _, kind, _, outcome in lines)
    assert {outcome for _, outcome in counts} == {"read", "refused"}, counts
    assert {kind for kind, outcome in counts if outcome == "refused"} == set(mutations.KINDS)
    assert max(float(seconds) for _, _, seconds, _ in lines) < MAX_SECONDS
    assert len(lines) == end - first
    print(sorted(counts.items()))


@pytest.mark.slow
def test_200_damaged_checkpoints_are_read_or_refused(saved: Path) -> None:
    read_damaged(saved, 0, 200)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 500))
def test_2000_damaged_checkpoints_are_read_or_refused(saved: Path, first: int) -> None:
    read_damaged(saved, first, first + 500)


def test_the_undamaged_checkpoints_are_read(saved: Path) -> None:
    for kind, (path, _) in mutations.KINDS.items():
        assert mutations.outcome(str(saved / path)) == "read", kind


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_file_but_the_checkpoints_own_is_opened(saved: Path, tmp_path: Path) -> None:
    """Of those that name other files on purpose, and of damaged ones."""
    work = tmp_path / "work"
    paths = []
    (tmp_path / "outside").mkdir()
    secret = tmp_path / "outside" / "secret.bin"
    for hole in test_untrusted.HOLES:
        test_untrusted.write_secret(secret)
        folder = work / hole.__name__
        folder.mkdir(parents=True)
        paths.append(folder / "evil.weights.h5")
        with h5py.File(paths[-1], "w") as file:
            hole(file, secret)
    for seed in range(5000, 5060):
        folder = work / str(seed)
        folder.mkdir()
        paths.append(Path(mutations.damaged_copy(saved, seed, folder)))
    read = "import sys; from tests.checkpoints import mutations; print(*map(mutations.outcome, sys.argv[1:]))"
    log = tmp_path / "strace.log"
    command = ["strace", "-f", "-qq", "-e", "trace=open,openat,creat", "-o", str(log), sys.executable, "-c", read]
    own = {"TMPDIR": str(work), "HOME": str(work)}  # Keras and matplotlib keep settings in the home folder
    result = subprocess.run(
        [*command, *map(str, paths)], cwd=ROOT, env={**os.environ, **own}, capture_output=True, check=True
    )
    assert set(result.stdout.decode().split()) == {"read", "refused"}
    opened = set(re.findall(r'"([^"]+)"[^=]*= \d+$', log.read_text(), re.MULTILINE))
    assert str(paths[0]) in opened
    code = (sys.prefix, sys.base_prefix, str(ROOT), *map(os.path.realpath, sys.path))
    system = ("/usr", "/lib", "/etc", "/sys", "/proc", "/dev", "/var/cache")
    allowed = tuple(os.path.abspath(folder) for folder in (*code, *system, str(work)))
    assert not [path for path in opened if not os.path.abspath(path).startswith(allowed)]
