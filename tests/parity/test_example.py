"""The original's own example, its handwritten digits, with the original's flags: from scratch, and fine-tuned in two
stages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.parity.support import V1, save_by_name
from tf_image_classification import checkpoints

pytestmark = pytest.mark.slow

HEAD = "Small/Logits"


def train(mini_mnist: Path, model_dir: Path, *flags: str) -> float:
    """Runs the training command; returns the accuracy of its last evaluation, over all 182 images."""
    records = mini_mnist / "dataset" / "tf_records"
    command = [
        *(sys.executable, "-m", "tf_image_classification.train_estimator", "--model_dir", str(model_dir)),
        *("--train_metadata", f"{records}/train*", "--eval_metadata", f"{records}/eval*", "--eval_freq", "10"),
        *("--image_size", "32", "--batch_size", "32", "--seed", "1", *flags),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    accuracy: float = json.loads((model_dir / "export" / "model.json").read_text())["metrics"]["accuracy"]
    print(" ".join(command[1:]), f"-> accuracy {accuracy:.4f}", sep="\n")
    return accuracy


def weights_at(model_dir: Path) -> dict[str, np.ndarray]:
    with checkpoints.read(str(model_dir)) as weights:
        return dict(weights)


@pytest.fixture(scope="module")
def from_scratch(mini_mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    model_dir = tmp_path_factory.mktemp("example") / "scratch"
    accuracy = train(mini_mnist, model_dir, "--optimizer", "adadelta", "--learning_rate", "0.5", "--train_steps", "600")
    return model_dir, accuracy


def test_training_from_scratch_learns_the_digits(from_scratch: tuple[Path, float]) -> None:
    assert from_scratch[1] > 0.85


def test_two_stages_first_train_a_new_head_on_a_slim_checkpoint_and_then_everything(
    from_scratch: tuple[Path, float], mini_mnist: Path, tmp_path: Path
) -> None:
    pretrained = weights_at(from_scratch[0])
    checkpoint = save_by_name(pretrained, tmp_path / "small.ckpt", V1)
    fixed = ("--learning_rate_decay_type", "fixed", "--optimizer", "momentum", "--train_steps", "100")
    head_only = ("--trainable_scopes", HEAD, "--checkpoint_exclude_scopes", HEAD, "--checkpoint_path", checkpoint)
    first = train(mini_mnist, tmp_path / "stage1", *fixed, *head_only, "--learning_rate", "0.01")
    after = weights_at(tmp_path / "stage1")
    trained = {
        name for name, value in after.items() if not np.array_equal(value, pretrained[name]) and "/moving_" not in name
    }
    assert trained == {f"{HEAD}/weights", f"{HEAD}/biases"}
    assert first > 0.85

    second = train(
        mini_mnist,
        tmp_path / "stage2",
        *fixed,
        "--checkpoint_path",
        str(tmp_path / "stage1"),
        "--learning_rate",
        "0.001",
    )
    finished = weights_at(tmp_path / "stage2")
    assert all(not np.array_equal(finished[name], after[name]) for name in after if name.endswith("/weights"))
    assert second > 0.85
