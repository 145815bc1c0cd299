"""The compiled pipeline: one YAML document that Kubeflow and Vertex both load."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from pipelines.definition import Options, make_pipeline
from tf_image_classification import storage
from tf_image_classification.errors import FlagError

ROOT = Path(__file__).resolve().parents[1]
_ACCELERATOR = re.compile(r"[A-Za-z0-9_.\-/]+:[1-9][0-9]*")
_MEMORY = re.compile(r"[1-9][0-9]*(E|Ei|P|Pi|T|Ti|G|Gi|M|Mi|K|Ki)?")
_CPU = re.compile(r"[0-9]+(\.[0-9]+)?m?")


def compile_pipeline(output: str, options: Options) -> None:
    """Compiles to `output`, which appears whole.

    Raises:
        FlagError: an option has a form that KFP does not take, or `output` cannot be written.
    """
    from kfp import compiler

    for name, value, form, expected in (
        ("cpu", options.cpu, _CPU, "a number of cores, as 8"),
        ("memory", options.memory, _MEMORY, "a whole number and a unit, as 32G"),
        ("accelerator", options.accelerator, _ACCELERATOR, "TYPE:COUNT, as NVIDIA_TESLA_T4:1"),
    ):
        if value and not form.fullmatch(value):
            raise FlagError(f"--{name} has a value that it does not take", received=value, expected=expected)
    if not output.endswith((".yaml", ".yml")):
        raise FlagError("--output has a value that it does not take", received=output, expected="a file name that ends in .yaml")
    with storage.temporary_dir() as folder:
        made = os.path.join(folder, "pipeline.yaml")
        compiler.Compiler().compile(make_pipeline(options), made)
        try:
            os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
            storage.write_bytes(output, Path(made).read_bytes())
        except OSError as error:
            raise FlagError(f"Cannot write {output}", received=error.strerror, expected="a file that can be written") from error


def source_tag() -> str:
    """A tag for the code as it is: a hash of everything that goes into the images.

    It is part of the cache's keys, so changed code is not served from an older code's cache.
    """
    digest = hashlib.sha256()
    files = [
        *sorted((ROOT / "tf_image_classification").rglob("*")),
        *sorted((ROOT / "requirements").glob("*.txt")),
        ROOT / "pyproject.toml",
    ]
    for file in files:
        if file.is_file() and file.suffix != ".pyc":
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]
