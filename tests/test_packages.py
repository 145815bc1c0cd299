from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaged import ESTIMATOR
from tf_image_classification import estimator_loading, packages, storage
from tf_image_classification.errors import FlagError

MODULE = """
from tf_image_classification.estimator_specs import EstimatorSpec

class Spec(EstimatorSpec):
    def get_preproc_fn(self, is_training): ...
    def get_model_fn(self, checkpoint_path): ...
    def metric_ops(self, labels, predictions): ...

class Incomplete(EstimatorSpec):
    def get_preproc_fn(self, is_training): ...

NOT_A_SPEC = 1
"""


def source_archive(folder: Path, module: str, text: str) -> Path:
    """A source archive of a package with one module."""
    (folder / f"{module}.py").write_text(text)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{module.replace("_", "-")}"\nversion = "1"\n[tool.setuptools]\npy-modules = ["{module}"]\n'
    )
    code = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=folder, check=True, capture_output=True)
    (found,) = folder.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A source archive of a package with an estimator."""
    return source_archive(tmp_path_factory.mktemp("package"), "own_estimator", MODULE)


def test_an_estimator_is_loaded_from_a_package_that_is_installed_for_it(archive):
    spec = estimator_loading.load("own_estimator:Spec", str(archive))
    assert type(spec).__name__ == "Spec"
    assert sys.modules["own_estimator"].__file__.startswith(sys.path[-1])


def test_a_package_cannot_replace_what_training_runs_on(archive):
    before = list(sys.path)
    folder = packages.install(str(archive))
    assert sys.path == [*before, folder]


def test_a_package_that_is_not_found_or_broken_is_an_error(tmp_path):
    with pytest.raises(FlagError, match="is not found"):
        packages.install(str(tmp_path / "none.whl"))
    (tmp_path / "broken-1.tar.gz").write_bytes(b"nothing")
    with pytest.raises(FlagError, match="cannot be installed"):
        packages.install(str(tmp_path / "broken-1.tar.gz"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_estimator", "package.module:Class"),
        ("no_such_module:Spec", "cannot be imported"),
        ("own_estimator:NOT_A_SPEC", "does not name an EstimatorSpec"),
        ("own_estimator:Missing", "does not name an EstimatorSpec"),
        ("own_estimator:Incomplete", "does not implement get_model_fn, metric_ops"),
    ],
)
def test_an_estimator_that_cannot_be_used_is_an_error(archive, name, message):
    packages.install(str(archive))
    with pytest.raises(FlagError, match=message):
        estimator_loading.load(name)


@pytest.fixture
def bucket(monkeypatch):
    """A bucket, served by a local emulator."""
    from gcp_storage_emulator.server import create_server

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
    yield "gs://bucket"
    server.stop()


@pytest.mark.slow
def test_an_estimator_in_a_package_on_gs_is_trained_and_its_metrics_reach_the_report(bucket, image_folder, tmp_path):
    package = f"{bucket}/packages/mean_colour-1.tar.gz"
    storage.write_bytes(package, source_archive(tmp_path, "mean_colour", ESTIMATOR).read_bytes())

    def call(command: str, *arguments: object) -> None:
        own = ["--estimator", "mean_colour:MeanColour", "--packages", package]
        done = subprocess.run(
            [sys.executable, "-m", f"tf_image_classification.{command}", *map(str, arguments), *own],
            capture_output=True, text=True, check=False, cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    call(
        "train_estimator",
        "--train_metadata",
        image_folder,
        "--model_dir",
        tmp_path / "model",
        "--image_size",
        8,
        "--batch_size",
        8,
    )
    (recorded,) = json.loads((tmp_path / "model" / "export" / "model.json").read_text())["packages"].items()
    assert recorded == ("mean_colour-1.tar.gz", hashlib.sha256(storage.read_bytes(package)).hexdigest())
    call(
        "evaluate",
        "--model",
        tmp_path / "model" / "export",
        "--eval_metadata",
        image_folder,
        "--output_dir",
        tmp_path / "evaluation",
    )
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert 0 <= metrics["user_metrics"]["surely right"] <= 1
    assert "surely right" in (tmp_path / "evaluation" / "report.html").read_text()
