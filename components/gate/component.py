"""gate: metrics and thresholds -> whether the model is good enough."""

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
    """Decides whether the model is good enough: it meets the thresholds and beats the model in service.

    It is never cached. Without thresholds and without a model in service, every model passes.

    Args:
        evaluation: metrics of the new model and of the model in service, from evaluate.

    Returns:
        passed: whether every threshold that is set is met, and the model in service beaten.
        reason: for each check the value, what is required, and FAILED if it is not met.
    """
    arguments = dict(locals())
    from tf_image_classification import command_line, flags
    from tf_image_classification.promotion import gate

    with command_line.reporting_errors():
        metrics, champion_metrics = gate.read_metrics(evaluation.path)
        decision = gate.decide(metrics, flags.for_step("gate", arguments), champion_metrics)
    reason = "; ".join(decision.reasons)
    print(f"gate: {'passed' if decision.passed else 'FAILED'}: {reason}")
    return decision.passed, reason
