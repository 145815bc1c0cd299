"""register: a model that passed -> the model in service."""

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
    champion: str = "",
    endpoint: str = "",
    serving_machine_type: str = "e2-standard-4",
    serving_image: str = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest",
    # flags: end
) -> NamedTuple("Outputs", version=str):
    """Puts the model in service where champion says, unless another one has come into service since the run began.

    It is never cached, and does only what is still to be done: a rerun goes on where a failed one stopped.

    Args:
        model: what train wrote.
        evaluation: what evaluate wrote.
        registered: the model in service from now on; its metadata names it.
        in_service: name of the model that this one was compared with; '' for none.
        reason: why it passed.
        run: resource name of the run that made it.

    Returns:
        version: name of the model in service from now on, where it is kept.
    """
    arguments = dict(locals())
    from tf_image_classification import command_line, flags, model_folder
    from tf_image_classification.promotion import champion as home
    from tf_image_classification.promotion import gate

    with command_line.reporting_errors():
        values = flags.for_step("register", arguments)
        home.check(None, values.champion, values.endpoint)
        if home.is_registry(values.champion):
            from tf_image_classification.vertex import registry

            metrics, _ = gate.read(evaluation.path)
            found = registry.register(
                values.champion,
                model.uri,
                facts=model_folder.read_facts(model.path),
                metrics=metrics,
                instead_of=in_service,
                reason=reason,
                run=run,
                serving_image=values.serving_image,
                endpoint=values.endpoint or "",
                machine_type=values.serving_machine_type,
            )
        else:
            found = home.promote(values.champion, model.path, instead_of=in_service, reason=reason, run=run)
    with open(registered.path, "w") as file:
        file.write(found.name)
    registered.metadata.update({"resourceName": found.name, "reason": reason})
    return (found.name,)
