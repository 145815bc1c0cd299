"""`make audit`: what its exit code says, with a stand-in for pip-audit that finds what the test wants."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY

FOUND = "jinja2 2.4.1   PYSEC-2019-217 2.10.1"
NOT_ASKED = "jinja2 Dependency not found on PyPI and could not be audited: jinja2 (2.4.1)"


@pytest.mark.parametrize(
    ("of_the_old_one", "of_the_locks", "code"),
    [
        (f"echo '{FOUND}'; exit 1", "exit 0", 0),
        (f"echo '{FOUND}'; exit 1", "exit 1", 1),
        (f"echo '{NOT_ASKED}'; exit 0", "exit 0", 75),
        ("echo 'ERROR: no route to host' >&2; exit 1", "exit 1", 75),
    ],
)
def test_an_audit_that_asked_nobody_is_not_one_that_found_nothing(tmp_path, of_the_old_one, of_the_locks, code):
    shutil.copytree(REPOSITORY / "requirements", tmp_path / "requirements")
    (tmp_path / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci" / "audit", tmp_path / ".ci")
    programs = tmp_path / "build" / "audit" / "bin"
    programs.mkdir(parents=True)
    shutil.copy(REPOSITORY / "requirements" / "audit.txt", programs.parent / "installed.txt")
    cases = f"*vulnerable.txt) {of_the_old_one};;\n*--strict*) {of_the_locks};;\n"
    (programs / "pip-audit").write_text(f'#!/bin/sh\ncase "$*" in\n{cases}esac\nexit 9\n')
    (programs / "pip-audit").chmod(0o755)
    answer = subprocess.run([tmp_path / ".ci" / "audit"], capture_output=True, text=True, check=False)
    assert answer.returncode == code, answer.stderr
    locks = [line for line in answer.stdout.splitlines() if line.startswith("requirements/")]
    assert len(locks) == (0 if code == 75 else len(list((REPOSITORY / "requirements").glob("*.txt"))))
    assert ("no vulnerability service answers" in answer.stderr) == (code == 75)


def test_ci_audits_wherever_a_service_answers():
    lines = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert any(line.startswith(".ci/audit || [[ $? -eq 75 ]]") for line in lines)
