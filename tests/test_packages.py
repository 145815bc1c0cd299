from __future__ import annotations

import subprocess
import sys

import pytest

from tf_image_classification import estimator_specs, packages
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


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A source archive of a package with an estimator."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "own_estimator.py").write_text(MODULE)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "own-estimator"\nversion = "1"\n[tool.setuptools]\npy-modules = ["own_estimator"]\n'
    )
    code = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=folder, check=True, capture_output=True)
    (found,) = folder.glob("*.tar.gz")
    return found


def test_an_estimator_is_loaded_from_a_package_that_is_installed_for_it(archive):
    spec = estimator_specs.load("own_estimator:Spec", str(archive))
    assert type(spec).__name__ == "Spec"
    assert sys.modules["own_estimator"].__file__.startswith(sys.path[-1])


def test_a_package_cannot_replace_what_training_runs_on(archive):
    before = list(sys.path)
    folder = packages.install(str(archive))
    assert sys.path == [*before, folder]


def test_a_package_that_is_not_there_or_broken_is_an_error(tmp_path):
    with pytest.raises(FlagError, match="does not exist"):
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
        estimator_specs.load(name)
