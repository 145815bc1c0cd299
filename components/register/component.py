"""register: a model that passed the gate -> the model in service."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def register(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    registered: dsl.Output[dsl.Model],
    in_service: str,
    reason: str,
    run: str,
    # flags: begin (written by `make generate`)
    billing_project: str = "",
    champion: str = "",
    promote: bool = True,
    endpoint: str = "",
    serving_machine_type: str = "e2-standard-4",
    serving_image: str = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest",
    # flags: end
) -> NamedTuple("Outputs", version=str):
    """Promotes the model: it becomes the model in service, in a folder or in Vertex AI's Model Registry.

    It fails unless the model's files are those that were exported and evaluated, and if another model was promoted
    since the run began. It is never cached, and idempotent: a rerun continues where a failed one stopped.

    Args:
        model: model folder, from train.
        evaluation: metrics of the model, from evaluate; attached to it in the Model Registry.
        registered: name of the model in service from now on, also in its metadata as resourceName.
        in_service: name of the model in service that this one was compared with, from resolve; '' for none.
        reason: why the model passed, from gate.
        run: name or resource name of the run that trained the model.

    Returns:
        version: name of the model in service from now on.
    """
    arguments = dict(locals())
    from tf_image_classification import command_line, flags, storage
    from tf_image_classification.promotion.champion import InService, check, is_registry
    from tf_image_classification.vertex.promote import promote as promote_model

    with command_line.reporting_errors():
        values = flags.for_step("register", arguments)
        storage.bill_to(values.billing_project)
        check(None, values.champion, values.endpoint)
        folder = model.uri if is_registry(values.champion) else model.path
        if values.promote:
            promoted = promote_model(values, folder, evaluation.path, compared_with=in_service, reason=reason, run=run)
        else:
            promoted = InService(in_service, "")
            print(
                "register: not promoted, as --promote is false: tf_image_classification.vertex.promote can promote it"
            )
    with open(registered.path, "w") as file:
        file.write(promoted.name)
    registered.metadata.update({"resourceName": promoted.name, "reason": reason})
    return (promoted.name,)
