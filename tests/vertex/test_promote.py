"""A model is promoted after its run, by an account of its own that decodes and loads nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import model_folders
from tests.vertex.conftest import MODEL
from tf_image_classification import model_folder
from tf_image_classification.errors import FlagError, UserError
from tf_image_classification.promotion import champion
from tf_image_classification.vertex import promote


def _evaluation(folder: Path, model: str, accuracy: float, compared: dict | None = None) -> str:
    """Writes what the evaluate step writes about a model, and about the one that it was compared with."""
    verified = model_folder.verify(model)
    metrics = {
        "model": {"folder": model, "digest": verified.digest, "sha256": verified.sha256},
        "num_examples": 10,
        "loss": 0.5,
        "accuracy": accuracy,
        "macro_f1": accuracy,
        "per_class": [{"name": "cat", "recall": accuracy, "support": 10}],
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    if compared:
        (folder / "champion").mkdir()
        (folder / "champion" / "metrics.json").write_text(json.dumps(compared))
    return str(folder)


def _metrics(evaluation: str) -> dict:
    return json.loads(Path(evaluation, "metrics.json").read_text())


@pytest.fixture
def trained(tmp_path) -> dict[str, str]:
    """Two model folders, and their evaluations: the second was compared with the first, and is better."""
    first = str(model_folders.write(tmp_path / "first", digest="1" * 64))
    second = str(model_folders.write(tmp_path / "second", digest="2" * 64))
    evaluated = _evaluation(tmp_path / "evaluations" / "first", first, 0.8)
    better = _evaluation(tmp_path / "evaluations" / "second", second, 0.9, _metrics(evaluated))
    return {"first": first, "second": second, "evaluated": evaluated, "better": better}


def _promote(folder: Path | str, model: str, evaluation: str, *options: str) -> None:
    promote._command(["--model", model, "--evaluation", evaluation, "--champion", str(folder), *options])


def test_the_better_model_of_each_run_is_promoted_once(trained, tmp_path, capsys):
    _promote(tmp_path / "service", trained["first"], trained["evaluated"])
    for _ in range(2):
        _promote(tmp_path / "service", trained["second"], trained["better"], "--run", "weekly")
    assert champion.in_service(str(tmp_path / "service")).name == capsys.readouterr().out.splitlines()[-1]
    pointer = json.loads((tmp_path / "service" / "champion.json").read_text())
    assert pointer["run"] == "weekly" and "accuracy is 0.9" in pointer["reason"]


def test_a_model_that_fails_the_gate_is_not_promoted(trained, tmp_path):
    with pytest.raises(UserError, match=r"does not pass the gate.*required: at least 0\.85"):
        _promote(tmp_path / "service", trained["first"], trained["evaluated"], "--min_accuracy", "0.85")
    assert not (tmp_path / "service").exists()


def test_a_model_that_was_compared_with_another_one_is_not_promoted(trained, tmp_path):
    with pytest.raises(UserError, match=r"not compared with the model in service\. Received: no model in service"):
        _promote(tmp_path / "service", trained["second"], trained["better"])
    third = str(model_folders.write(tmp_path / "third", digest="3" * 64))
    _promote(tmp_path / "service", third, _evaluation(tmp_path / "evaluations" / "third", third, 0.7))
    with pytest.raises(UserError, match=r"Received: models/3333.*Expected: .*first"):
        _promote(tmp_path / "service", trained["second"], trained["better"])


def test_the_id_of_a_model_alone_is_no_folder():
    """`submit` completes an id by the run's project; here there is none."""
    with pytest.raises(FlagError, match=r"--champion is neither a folder .*\./pets"):
        _promote("pets", "model", "evaluation")


def test_a_registered_model_is_promoted(vertex, tmp_path, capsys):
    evaluation = _evaluation(tmp_path / "evaluation", "gs://bucket/models/one", 0.8)
    _promote(MODEL, "gs://bucket/models/one", evaluation)
    assert capsys.readouterr().out == f"{MODEL}@1\n"


def test_the_account_that_deploys_decodes_no_image_and_loads_no_model(trained, tmp_path):
    program = (
        "import sys\n"
        "from tf_image_classification.vertex.promote import _command\n"
        "_command(sys.argv[1:])\n"
        "print([name for name in ('tensorflow', 'keras', 'PIL', 'simplejpeg', 'h5py') if name in sys.modules])\n"
    )
    words = ["--model", trained["first"], "--evaluation", trained["evaluated"], "--champion", str(tmp_path / "service")]
    answer = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert answer.stdout.splitlines()[-1:] == ["[]"], answer.stderr
