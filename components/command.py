"""The command of a step's container, in which Python takes the place of KFP's shell."""

from typing import Any

# What KFP's shell script runs, as its first process and with its child, and what runs as the first process itself.
_CHILD = "_KFP_RUNTIME=true python3 -m "
_EXEC = "export _KFP_RUNTIME=true\nexec python3 -m "


def exec_python(component: Any) -> Any:
    """Makes Python the first process of a lightweight component's container, and returns the component.

    KFP's command is a shell that starts Python. A container's runtime sends SIGTERM to the first process alone, and a
    shell does not pass it on: without this, a training that is to be stopped is killed without saving a checkpoint.

    Raises:
        RuntimeError: KFP's command is not the one that this changes.
    """
    command = component.component_spec.implementation.container.command
    script = command[2] if command[:2] == ["sh", "-ec"] else ""
    if _EXEC not in script:
        if script.count(_CHILD) != 1:
            raise RuntimeError(
                f"The command of KFP's lightweight components has changed: {command[:3]} does not hold {_CHILD!r} once"
            )
        command[2] = script.replace(_CHILD, _EXEC)
    return component
