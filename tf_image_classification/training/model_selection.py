"""Which model of a training is exported, and when it is stopped early: --export, --early_stopping_evals."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_image_classification.checkpoints import archives
from tf_image_classification.errors import FlagError, did_you_mean
from tf_image_classification.flags import Flags
from tf_image_classification.nets import scoped_names
from tf_image_classification.training.training_folder import TrainingFolder

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

BEST = "best"
_KEY = "weights/"  # before a weight's name


class ModelSelection:
    """Compares the evaluations of a training, and keeps the weights of the best one.

    What is compared are the evaluations in the training's history, so that a resumed training decides as one that ran
    through. Of equal ones the first is the best.

    Args:
        model: its weights at the time of `update` are those that were evaluated.
        folder: keeps the weights of the best evaluation, and of the one that was the best before it: a training that
            was killed may continue from before the newest.
        flags: --export, --export_metric and --early_stopping_evals.
        patient_until: the global step up to which evaluations end nothing: that of the head's stage.
    """

    def __init__(self, model: keras.Model, folder: TrainingFolder, flags: Flags, patient_until: int) -> None:
        self._model, self._folder, self._patient_until = model, folder, patient_until
        self._keeps_best = flags.export == BEST
        self._patience = flags.early_stopping_evals
        self._metric: str | None = flags.export_metric
        self._evaluations: dict[int, float] = {}  # global step -> value, the higher the better

    def start(self, metrics: Sequence[str], history: Sequence[Mapping[str, Any]]) -> None:
        """Takes over the evaluations of an interrupted training.

        Args:
            metrics: names of the metrics of an evaluation.
            history: entries of the training's history up to the step from which it continues.

        Raises:
            FlagError: --export_metric is none of `metrics`.
        """
        if self._metric is None:
            self._metric = "accuracy" if "accuracy" in metrics else "loss"
        if self._metric not in metrics:
            raise FlagError(
                "--export_metric is not a metric of the evaluation",
                received=self._metric,
                expected="one of " + ", ".join(metrics),
                hint=did_you_mean(self._metric, metrics),
            )
        for entry in history:
            if entry["kind"] == "eval" and self._metric in entry:
                self._evaluations[entry["step"]] = self._value(entry)

    @property
    def best_step(self) -> int | None:
        """The global step of the best evaluation; None before the first."""
        return max(self._evaluations, key=lambda step: (self._evaluations[step], -step), default=None)

    @property
    def should_stop(self) -> bool:
        """Whether --early_stopping_evals evaluations in a row were no better than the best one before them."""
        best = self.best_step
        if self._patience is None or best is None:
            return False
        return sum(step > max(best, self._patient_until) for step in self._evaluations) >= self._patience

    def has_model(self, step: int) -> bool:
        """Whether the model of an evaluation at a global step is kept."""
        try:
            return self._keeps_best and bool(self._folder.read_best_model(step))
        except OSError:
            return False

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Compares the evaluation at a global step, and keeps the model's weights if it is the best one."""
        self._evaluations[step] = self._value(metrics)
        if self._keeps_best and self.best_step == step:
            arrays: dict[str, Any] = {
                _KEY + name: variable.numpy() for name, variable in scoped_names(self._model).items()
            }
            content = io.BytesIO()
            np.savez(content, **arrays)
            self._folder.write_best_model(step, content.getvalue())

    def load_best(self) -> int | None:
        """Assigns the weights of the best evaluation to the model.

        Returns:
            Its global step; None if the last model is to be exported: with --export last, or where the file of the best
            one is missing.
        """
        best = self.best_step
        if not self._keeps_best or best is None:
            return None
        try:
            weights = archives.open_npz(self._folder.read_best_model(best), self._folder.path)
        except (OSError, ValueError, zipfile.BadZipFile):
            _log.warning(
                "The weights of the best evaluation, at step %d, are not in %s any more: exporting the last model",
                best,
                self._folder.path,
            )
            return None
        for name, variable in scoped_names(self._model).items():
            variable.assign(weights[_KEY + name])
        _log.info(
            "Exporting the model of step %d, the best of %d evaluations by %s: %.4f",
            best,
            len(self._evaluations),
            self._metric,
            -self._evaluations[best] if self._is_error else self._evaluations[best],
        )
        return best

    def _value(self, metrics: Mapping[str, float]) -> float:
        assert self._metric is not None
        value = float(metrics[self._metric])
        if not np.isfinite(value):
            return -np.inf
        return -value if self._is_error else value

    @property
    def _is_error(self) -> bool:
        """Whether a lower value of the metric is better."""
        return self._metric is not None and ("loss" in self._metric or "error" in self._metric)
