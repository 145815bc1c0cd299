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
    champion_metric: str = "accuracy",
    min_improvement: float = 0.0,
    # flags: end
) -> NamedTuple("Outputs", passed=bool, reason=str):
    """Judges the evaluation by the thresholds, and against that of the model in service.

    Args:
        evaluation: what evaluate wrote.

    Returns:
        passed: whether every threshold that is set is met, and the model in service beaten.
        reason: one clause for each of these: what was received, what is required.
    """
    arguments = dict(locals())
    from tf_image_classification import command_line, flags
    from tf_image_classification.promotion import gate

    with command_line.reporting_errors():
        metrics, in_service = gate.read(evaluation.path)
        verdict = gate.judge(metrics, flags.for_step("gate", arguments), in_service)
    reason = "; ".join(verdict.reasons)
    print("gate:", "passed" if verdict.passed else "NOT passed", f"({reason})")
    return verdict.passed, reason
