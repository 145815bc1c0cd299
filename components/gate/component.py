"""gate: is the model good enough?"""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def gate(
    evaluation: dsl.Input[dsl.Artifact],
    # flags: begin (written by `make generate`)
    min_accuracy: float = 0.0,
    min_macro_f1: float = 0.0,
    min_class_recall: float = 0.0,
    max_loss: float = -1.0,
    # flags: end
) -> NamedTuple("Outputs", passed=bool, reason=str):
    """Judges the evaluation by the thresholds.

    Args:
        evaluation: what evaluate wrote.

    Returns:
        passed: whether every threshold that is set is met.
        reason: one clause for each threshold: what was received, what is required.
    """
    arguments = dict(locals())
    import json

    from tf_image_classification import command_line, flags, storage
    from tf_image_classification.evaluate import gate

    with command_line.reporting_errors():
        metrics = json.loads(storage.read_text(storage.join(evaluation.path, "metrics.json")))
        verdict = gate.judge(metrics, flags.for_step("gate", arguments))
    reason = "; ".join(verdict.reasons)
    print("gate:", "passed" if verdict.passed else "NOT passed", f"({reason})")
    return verdict.passed, reason
