"""What the step that launches a cluster and the cluster's tasks exchange: the training to do, and its results.

The tasks get the training as a word of their command. Its folder, which all of them can reach, has

outputs/     written by the chief, whole or not at all: model/, logs/, curves.html, augmentation_samples.html, and
             result.json, an object with `metrics`
tasks/       the end of each task's log, see `task_log`
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tf_image_classification import model_folder, storage
from tf_image_classification.errors import ServiceError

MODEL, LOGS, CURVES, SAMPLES = "model", "logs", "curves.html", "augmentation_samples.html"
_OUTPUTS, _RESULT = "outputs", "result.json"


@dataclass(frozen=True, slots=True)
class Training:
    """A training for the tasks of a cluster.

    Attributes:
        data: the folder that build_tfrecords wrote.
        flags: of the train step, checked; `model_dir` is the parent of the checkpoint folders.
        folder: of the exchange.
        checkpoint_version, estimator_version: as of `training_run.train`.
    """

    data: str
    flags: Mapping[str, Any]
    folder: str
    checkpoint_version: str = ""
    estimator_version: str = ""

    @classmethod
    def from_json(cls, text: str) -> Training:
        """The training that `to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """The training as a word of a command."""
        return json.dumps(asdict(self), sort_keys=True)

    def publish(self, folder: str, metrics: Mapping[str, float]) -> None:
        """Writes the outputs, as the chief does.

        Args:
            folder: a local one, with the outputs under their names.
            metrics: finite ones.
        """
        with storage.replacing_dir(storage.join(self.folder, _OUTPUTS), _RESULT) as staging:
            shutil.copytree(folder, staging, dirs_exist_ok=True)
            storage.write_text(os.path.join(staging, _RESULT), json.dumps({"metrics": metrics}))

    def collect(self, model: str, logs: str, curves: str, samples: str) -> dict[str, float]:
        """Copies the outputs to where the step writes them, removes them from the exchange, and returns the metrics.

        Raises:
            ServiceError: there are none.
        """
        published = storage.join(self.folder, _OUTPUTS)
        result = storage.join(published, _RESULT)
        if not storage.exists(result):
            raise ServiceError(
                "The cluster has ended, but it has left no model",
                received=f"no {result}",
                hint="If an earlier attempt of this step has removed it, start another run: it resumes the training.",
            )
        metrics = storage.read_json(result, expected="an object with metrics")["metrics"]
        with storage.temporary_dir() as temporary:
            local = storage.fetch_dir(published, os.path.join(temporary, _OUTPUTS))
            for name, target, marker in ((MODEL, model, model_folder.FACTS), (LOGS, logs, "eval")):
                with storage.replacing_dir(target, marker) as staging:
                    shutil.copytree(os.path.join(local, name), staging, dirs_exist_ok=True)
            for name, page in ((CURVES, curves), (SAMPLES, samples)):
                storage.write_bytes(page, storage.read_bytes(os.path.join(local, name)))
        self._remove(published)
        return dict(metrics)

    def _remove(self, folder: str) -> None:
        """Removes outputs, their result first: what a step that is killed meanwhile leaves is not taken for whole."""
        result = storage.join(folder, _RESULT)
        if not storage.is_remote(folder):
            os.remove(result)
            shutil.rmtree(folder)
            return
        for file in sorted(storage.walk(folder), key=lambda file: file.path != result):
            storage.delete(file.path)
