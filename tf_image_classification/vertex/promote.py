"""Puts a model in service that a run has trained and evaluated, under the account of whoever calls it.

    python -m tf_image_classification.vertex.promote --model FOLDER --evaluation FOLDER --champion FOLDER_OR_MODEL

Nothing is decoded or loaded: an account that may deploy need not touch images, checkpoints or SavedModels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from tf_image_classification import command_line, evaluation_folder, flags, model_folder, storage
from tf_image_classification.errors import UserError
from tf_image_classification.flag_types import GATE_STEP, REGISTER_STEP
from tf_image_classification.flags import Flags
from tf_image_classification.promotion import champion, gate
from tf_image_classification.promotion.champion import InService


def promote(
    values: Flags, model_dir: str, evaluation_dir: str, *, compared_with: str, reason: str, run: str
) -> InService:
    """Promotes a model that passed the gate; idempotent. Mutates the folder or the registered model of --champion.

    Args:
        values: flags of the register step.
        model_dir: its model folder; on gs:// where --champion is a registered model.
        evaluation_dir: what the evaluate step wrote about it.
        compared_with: name of the model in service that it was compared with; '' for none.
        reason: why it passed.
        run: name or resource name of the run that trained it; '' for none.

    Raises:
        UserError: the folder is not as it was exported and evaluated, or another model was promoted since.
    """
    metrics, _ = gate.read_metrics(evaluation_dir)
    if champion.is_registry(values.champion):
        from tf_image_classification.vertex import registry

        return registry.register(
            values.champion,
            model_dir,
            metrics=metrics,
            compared_with=compared_with,
            reason=reason,
            run=run,
            serving_image=values.serving_image,
            endpoint=values.endpoint or "",
            machine_type=values.serving_machine_type,
        )
    with storage.temporary_dir() as temporary:
        # The copy that was verified is what is promoted: nobody can change it in between.
        model = model_folder.verify(model_dir, os.path.join(temporary, "model"))
        evaluation_folder.check_is_of(metrics, model.sha256)
        return champion.promote(values.champion, model.local, compared_with=compared_with, reason=reason, run=run)


def _command(argv: Sequence[str] | None) -> None:
    parser = command_line.Parser(
        "python -m tf_image_classification.vertex.promote",
        "Promotes the model of a run that ended with --promote false, after checking its evaluation again.",
    )
    steps = (GATE_STEP, REGISTER_STEP)
    table = [
        flags.BY_NAME["model"],
        *(flag for step in steps for flag in flags.of_step(step) if flag.name != "promote"),
    ]
    required = ("model", "champion")
    parser.add_flags(table, required)
    parser.add_argument("--evaluation", required=True, help="Folder that the run's evaluate step wrote.")
    parser.add_argument("--run", default="", help="Name of the run, which is recorded.")
    arguments, given = parser.parse_args(argv), parser.parse_flags(table, argv, required)
    champion.check(None, given.champion, given.endpoint)
    storage.bill_to(given.billing_project)

    metrics, compared = gate.read_metrics(arguments.evaluation)
    decision = gate.decide(metrics, given, compared)
    reason = "; ".join(decision.reasons)
    if not decision.passed:
        raise UserError("The model does not pass the gate", received=reason)
    current = _in_service(given.champion)
    digest = model_folder.read_facts(current.folder).get("digest") if current else None
    if digest not in (metrics["model"].get("digest"), compared["model"].get("digest") if compared else None):
        raise UserError(
            "The model was not compared with the model in service",
            received=current.name if current else "no model in service",
            expected=compared["model"].get("folder", "another model") if compared else "no model in service",
            hint="Run the pipeline again: it compares with the model that is in service then.",
        )
    name = current.name if current else ""
    promoted = promote(given, given.model, arguments.evaluation, compared_with=name, reason=reason, run=arguments.run)
    print(promoted.name)


def _in_service(name: str) -> InService | None:
    if not champion.is_registry(name):
        return champion.in_service(name)
    from tf_image_classification.vertex import registry

    return registry.in_service(name)


if __name__ == "__main__":
    command_line.main(_command)
