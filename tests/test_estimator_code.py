from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaged import wheel
from tests.standin.bucket import Buckets
from tf_image_classification import estimator_code, storage, train_estimator
from tf_image_classification.errors import ConflictError, FlagError
from tf_image_classification.estimator_code import EstimatorCode
from tf_image_classification.evaluate import __main__ as evaluate

NAME = "own-1-py3-none-any.whl"


def of_packages(*paths: object) -> EstimatorCode:
    return estimator_code.find("nowhere:Spec", ",".join(map(str, paths)))


def test_a_replaced_package_is_other_code_also_with_the_same_size_and_time(tmp_path):
    package = wheel(tmp_path / NAME, "own", "A = 1\n")
    before, status = of_packages(package), package.stat()
    wheel(package, "own", "A = 2\n")
    os.utime(package, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert package.stat().st_size == status.st_size
    assert of_packages(package).version != before.version


def test_equal_packages_are_equal_code_whatever_their_folder_and_name(tmp_path, monkeypatch):
    one, other = (wheel(tmp_path / name, "own", "A = 1\n") for name in (f"a/{NAME}", f"b/{NAME}"))
    renamed = other.rename(other.with_name("own-1-py2.py3-none-any.whl"))
    assert of_packages(one).version == of_packages(renamed).version
    with Buckets("bucket") as service:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", service.url)
        storage.write_bytes(f"gs://bucket/{NAME}", one.read_bytes())
        assert of_packages(f"gs://bucket/{NAME}") == of_packages(one)


def test_the_order_of_packages_counts_as_they_are_installed_in_it(tmp_path):
    one, other = (wheel(tmp_path / f"{name}-1-py3-none-any.whl", "own", f"NAME = {name!r}\n") for name in "ab")
    assert of_packages(one, other).version != of_packages(other, one).version


def test_packages_without_an_estimator_that_needs_them_are_refused():
    words = ["--packages", "own.whl"]
    for refused in (
        lambda: estimator_code.find(None, "own.whl"),
        lambda: train_estimator._command(["--train_metadata", "/nowhere", *words]),
        lambda: evaluate._command(["--model", "/nowhere", "--eval_metadata", "x", "--output_dir", "y", *words]),
    ):
        with pytest.raises(FlagError, match="--packages needs an --estimator"):
            refused()


def test_a_package_that_is_a_folder_is_refused(tmp_path):
    with pytest.raises(FlagError, match=r"is a folder.*pip wheel"):
        of_packages(tmp_path)


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """The working directory, with an estimator that imports a module and a package beside it; none may be executed."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "own_spec.py": "import os, own_helper\nraise SystemExit\n",
        "own_helper.py": "def layers():\n    from own_package.deep import head\n    return head\n",
        "own_package/__init__.py": "raise SystemExit\n",
        "own_package/deep/head.py": "UNITS = 1\n",
        "own_package/notes.txt": "",
        "unrelated.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", ["own_spec.py", "own_helper.py", "own_package/deep/head.py"])
def test_an_edited_source_file_of_an_estimator_is_other_code(source, name):
    before = estimator_code.find("own_spec:Spec", None)
    assert before.version.startswith("source:")
    (source / name).write_text((source / name).read_text() + "# edited\n")
    assert estimator_code.find("own_spec:Spec", None).version != before.version


def test_files_that_an_estimator_does_not_import_are_not_its_code(source):
    before = estimator_code.find("own_spec:Spec", None)
    for name in ("unrelated.py", "own_package/notes.txt"):
        (source / name).write_text("edited = True\n")
    (source / "own_spec.py").touch()
    assert estimator_code.find("own_spec:Spec", None) == before


def test_the_code_of_an_estimator_in_a_package_is_all_of_the_package(source):
    before = estimator_code.find("own_package.deep.head:Spec", None)
    (source / "own_package" / ".#head.py").symlink_to("lock-of-an-editor")
    assert estimator_code.find("own_package.deep.head:Spec", None) == before != EstimatorCode()
    (source / "own_package" / "another.py").write_text("")
    assert estimator_code.find("own_package.deep.head:Spec", None).source != before.source


def test_what_is_installed_beside_an_estimator_is_not_its_code(source, monkeypatch):
    installed = source / "site-packages"
    installed.mkdir()
    for name in ("own_spec.py", "own_helper.py"):
        (source / name).rename(installed / name)
    monkeypatch.syspath_prepend(str(installed))
    before = estimator_code.find("own_spec:Spec", None)
    (installed / "own_helper.py").write_text("another_version = True\n")
    assert estimator_code.find("own_spec:Spec", None) == before != EstimatorCode()


@pytest.mark.parametrize("estimator", [None, "nowhere:Spec", "sys:Spec", ":Spec", "/etc/passwd:Spec", "own spec"])
def test_code_that_is_not_found_has_no_version(source, estimator):
    assert estimator_code.find(estimator, None).version == ""


def test_a_script_that_trains_a_class_of_its_own_has_the_code_that_its_name_would_have(source):
    script = source / "own_script.py"
    script.write_text("from tf_image_classification import estimator_code\nclass Spec: pass\n"
                      "if __name__ == '__main__': print(estimator_code.of_class(Spec).source)\n")  # fmt: skip
    answer = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == estimator_code.find("own_script:Spec", None).source != ""


def test_a_package_that_is_replaced_between_two_steps_of_a_run_is_an_error(tmp_path):
    package = wheel(tmp_path / NAME, "own", "A = 1\n")
    resolved = of_packages(package)
    of_packages(package).check_resolved(resolved.version)
    of_packages(package)._replace(source="0" * 64).check_resolved(resolved.version)  # as in another image
    wheel(package, "own", "A = 2\n")
    with pytest.raises(ConflictError, match=r"has changed since the resolve step.*own-1-py3-none-any.whl \(sha256"):
        of_packages(package).check_resolved(resolved.version)
