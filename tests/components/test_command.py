"""The process of a step gets the signals of its container."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import dsl

from components.command import exec_python
from pipelines.compile import compile_components, compile_pipeline
from pipelines.definition import COMPONENTS, Options


def container_of(component: Any) -> Any:
    return component.component_spec.implementation.container


@pytest.mark.parametrize("step", COMPONENTS)
def test_a_steps_python_takes_the_place_of_the_shell(step, tmp_path):
    """A stand-in for python3 tells its process, which is the shell's, and what KFP sets for it."""
    python = tmp_path / "python3"
    python.write_text(
        f"#!{sys.executable}\nimport os, sys\nprint(os.getpid(), os.environ['_KFP_RUNTIME'], sys.argv[-1])\n"
    )
    python.chmod(0o755)
    command = [*container_of(COMPONENTS[step]).command, "argument"]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate()
    assert output.split() == [str(process.pid), "true", "argument"]


def test_a_shell_that_has_not_been_replaced_does_not_pass_sigterm_on(tmp_path):
    """Why the command is changed: KFP's own shell waits for Python, and ends without telling it."""

    @dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
    def unchanged():
        pass

    (tmp_path / "python3").write_text("#!/bin/sh\necho started\ntrap 'touch told' TERM\nwhile read line; do :; done\n")
    (tmp_path / "python3").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(container_of(unchanged).command, cwd=tmp_path, env=environment, **pipes) as process:
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert not (tmp_path / "told").exists()


def test_a_command_that_kfp_has_changed_is_an_error(monkeypatch):
    container = types.SimpleNamespace(command=["sh", "-ec", "python3 -m kfp.dsl.other_main"])
    implementation = types.SimpleNamespace(container=container)
    component = types.SimpleNamespace(component_spec=types.SimpleNamespace(implementation=implementation))
    with pytest.raises(RuntimeError, match="has changed"):
        exec_python(component)


def test_the_compiled_pipeline_and_the_compiled_components_have_these_commands(tmp_path):
    images = dict.fromkeys(COMPONENTS, "images/any:1")
    compile_pipeline(str(tmp_path / "pipeline.yaml"), Options(images=images, notify="projects/p/topics/t"))
    for path in [tmp_path / "pipeline.yaml", *map(Path, compile_components(str(tmp_path / "components"), images))]:
        for executor in yaml.safe_load(path.read_text())["deploymentSpec"]["executors"].values():
            assert "\nexec python3 -m kfp" in executor["container"]["command"][2]
