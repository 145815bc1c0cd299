"""Loads a model and asks it once in the container image that is going to serve it, before it is put in service.

    python -m tf_image_classification.vertex.infra_validation --model runs/latest/model

So a model that needs more than the server's TensorFlow has is found before it replaces one that works, as TFX's
InfraValidator finds it. This needs Docker, and the image on this machine: nothing is downloaded. The model is code that
the container runs: it gets no network, no credentials, no user's rights, and nothing that it can write to but memory.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import selectors
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tf_image_classification import command_line, flags, model_folder, storage
from tf_image_classification.data import model_tasks
from tf_image_classification.data.manifest import Task
from tf_image_classification.errors import UserError, printable
from tf_image_classification.evaluation_folder import is_number
from tf_image_classification.model_folder import CLASSES, FACTS, INPUT, SAVED_MODEL, SCORES, SIGNATURE, ModelFolder

_log = logging.getLogger(__name__)

PASSED, NOT_ASKED = "passed", "not-asked"

_MEMORY, _SECONDS = "4g", 300
_ISOLATION = (  # 65534 is nobody
    "--network none --user 65534:65534 --cap-drop ALL --security-opt no-new-privileges --read-only --tmpfs /tmp "
    f"--log-driver none --memory {_MEMORY} --memory-swap {_MEMORY} --pids-limit 1024 --env HOME=/tmp"
).split()
_LAST_LINES = 8
_MAX_OUTPUT_BYTES = 2**26  # the answer of a model of 100,000 classes has a tenth of it
# How versions are in the names of images: Vertex AI's prebuilt tf2-cpu.2-15, and TensorFlow Serving's own.
_VERSION = re.compile(r"tf(?:2|_opt)-[a-z]+\.(\d+)-(\d+)|tensorflow/(?:serving|tensorflow):(\d+)\.(\d+)")
# Exit codes that say nothing about the model: docker's own failures, no such program, an instruction that an emulated
# processor lacks, and that of the script for an image without TensorFlow.
_NO_TENSORFLOW = 97
_NOT_THE_MODELS = frozenset((125, 126, 127, 132, _NO_TENSORFLOW))

# A gradient of 16 x 16 pixels: the model resizes it.
_EXAMPLE = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6jq62rZ4C8"
    "ybqmx5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKT/wAAR"
    "CAAQABADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAABAX/xAAXEAADAQAAAAAAAAAAAAAAAAAAAwRh/8QAFQEBAQAAAAAAAAAAAAAA"
    "AAAAAAH/xAAXEQADAQAAAAAAAAAAAAAAAAAAAgQD/9oADAMBAAIRAxEAPwCYqbBapsFqmwYqbCvsJaD/2Q=="
)
_MODEL = "/models/model/1"  # TensorFlow Serving wants a number at the end
# The request's body is on stdin, its length in LENGTH. A server opens its port when the model is loaded.
_SCRIPT = f"""
if command -v tensorflow_model_server >&2 && command -v bash >&2; then
  exec bash -c '
    tensorflow_model_server --rest_api_port=8501 --model_name=model --model_base_path={os.path.dirname(_MODEL)} \\
      --max_num_load_retries=0 >&2 &
    until (exec 3<>/dev/tcp/127.0.0.1/8501); do kill -0 $! || exit 1; sleep 0.2; done 2>/dev/null
    exec 3<>/dev/tcp/127.0.0.1/8501
    printf "POST /v1/models/model:predict HTTP/1.0\\r\\nContent-Length: %s\\r\\n\\r\\n" "$LENGTH" >&3
    cat >&3
    cat <&3'
elif python3 -c 'import importlib.util as u; exit(u.find_spec("tensorflow") is None)'; then
  exec python3 -c "$ASK"
else
  exit {_NO_TENSORFLOW}
fi"""
_ASK = f"""
import base64, json, sys
import tensorflow as tf
serve = tf.saved_model.load("{_MODEL}").signatures["{SIGNATURE}"]
(instance,) = json.load(sys.stdin)["instances"]
answer = serve({INPUT}=tf.constant([base64.b64decode(instance["{INPUT}"]["b64"])]))
def plain(values):
    return [value.decode() for value in values] if values.dtype == object else values.tolist()
print("\\n" + json.dumps({{"predictions": [{{name: plain(value[0].numpy()) for name, value in answer.items()}}]}}))
"""


class _NotAtHandError(Exception):
    """The image cannot be asked here; says why."""


class _EndlessOutputError(Exception):
    """The container writes more than any answer or log needs."""


def check(model: ModelFolder, image: str) -> str:
    """Asks a model for the scores of one image in its serving container; where that is not possible, compares versions.

    Args:
        model: verified; its files are in a folder of this process's own, whose modes are changed.
        image: reference of the serving container's image.

    Returns:
        PASSED, or NOT_ASKED; the log says why, and how the versions of TensorFlow compare.

    Raises:
        UserError: the model cannot be loaded, or gives no valid answer.
    """
    exported = exporting_version(model.facts)
    tasks = model_tasks.tasks_of(os.path.join(model.local, FACTS), model.facts)
    try:
        found = _find_image(image)
        answer = _ask(found, os.path.join(model.local, SAVED_MODEL), image)
    except _NotAtHandError as reason:
        _log.warning("%s was not asked in %s: %s. %s", model.folder, image, reason, compare_versions(exported, image))
        return NOT_ASKED
    _check_answer(answer, tasks, image)
    _log.info("%s, exported by TensorFlow %s, answers in %s (%s)", model.folder, exported, image, found)
    return PASSED


def compare_versions(exported: str, image: str) -> str:
    """How the TensorFlow that exported a model compares with the one of a serving image, as a sentence.

    Args:
        exported: such as 2.21.0; '' if it is not known.
        image: its name tells the version, as of Vertex AI's prebuilt images and TensorFlow Serving's.
    """
    serving, exporting = serving_version(image), re.match(r"(\d+)\.(\d+)", exported)
    if not serving or not exporting:
        return (
            f"The model was exported by TensorFlow {exported or '(not recorded)'}; the image's name does not tell "
            "which version is in it: whether that one loads the model is not known"
        )
    found = f"The model was exported by TensorFlow {exported}, and the image serves with {serving[0]}.{serving[1]}"
    if (int(exporting[1]), int(exporting[2])) > serving:
        return f"{found}: TensorFlow promises that a newer version loads the models of an older one, not the reverse"
    return f"{found}, which loads the models of this version and of older ones"


def serving_version(image: str) -> tuple[int, int] | None:
    """The TensorFlow version in the name of a serving image, such as (2, 15); None if the name has none."""
    match = _VERSION.search(image)
    return (int(match[1] or match[3]), int(match[2] or match[4])) if match else None


def exporting_version(facts: Mapping[str, Any]) -> str:
    """The TensorFlow version that a model.json records, such as 2.21.0; '' for none."""
    versions = facts.get("versions", {})
    return str(versions.get("tensorflow", versions.get("tensorflow-cpu", "")))


def _find_image(image: str) -> str:
    """The id of an image on this machine.

    Raises:
        _NotAtHandError: there is no Docker, or it has no such image.
    """
    if shutil.which("docker") is None:
        raise _NotAtHandError("there is no docker command here")
    try:
        found = _docker("image", "inspect", "--format", "{{.Id}}", image, seconds=30)
    except subprocess.TimeoutExpired:
        raise _NotAtHandError("Docker does not answer") from None
    if found.returncode:
        is_missing = "no such image" in found.stderr.lower()
        raise _NotAtHandError(f"`docker pull {image}` was not run" if is_missing else _last_lines(found.stderr, 1))
    return found.stdout.strip()


def _ask(image_id: str, saved_model: str, image: str) -> str:
    """What the container prints: the answer of TensorFlow Serving, or its JSON alone.

    Raises:
        _NotAtHandError: the container cannot be started, or has no TensorFlow to ask.
        UserError: the model cannot be loaded or asked.
    """
    for folder, _, names in os.walk(saved_model):  # the container's user is another one
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.chmod(path, 0o755 if path == folder else 0o644)
    request = json.dumps({"instances": [{INPUT: {"b64": _EXAMPLE}}]})
    name = f"tfic-{uuid.uuid4().hex[:12]}"
    options = ["--rm", "--interactive", "--name", name, *_ISOLATION]
    options += ["--mount", f"type=bind,source={saved_model},target={_MODEL},readonly"]
    options += ["--env", f"ASK={_ASK}", "--env", f"LENGTH={len(request)}", "--entrypoint", "sh"]
    try:
        done = _docker("run", *options, image_id, "-c", _SCRIPT, text=request, seconds=_SECONDS)
    except BaseException as error:  # also when interrupted: the container would outlive this process
        with contextlib.suppress(subprocess.TimeoutExpired):
            _docker("kill", name, seconds=60)
        if isinstance(error, subprocess.TimeoutExpired):
            raise _cannot_serve(image, f"no answer within {_SECONDS} s") from None
        if isinstance(error, _EndlessOutputError):
            raise _cannot_serve(image, f"more than {_MAX_OUTPUT_BYTES:,} bytes of output") from None
        raise
    if done.returncode in _NOT_THE_MODELS:
        missing = "neither tensorflow_model_server nor Python with TensorFlow is in it"
        raise _NotAtHandError(missing if done.returncode == _NO_TENSORFLOW else _last_lines(done.stderr, 1))
    if done.returncode:
        killed = f" (killed; it may have needed more than {_MEMORY} of memory)" if done.returncode == 137 else ""
        lines = _last_lines(done.stderr + "\n" + done.stdout, _LAST_LINES)
        raise _cannot_serve(image, f"exit code {done.returncode}{killed}, after: {lines}")
    return done.stdout


def _check_answer(answer: str, tasks: Sequence[Task], image: str) -> None:
    """Checks scores and class names of one image, in the JSON form of TensorFlow Serving.

    Raises:
        UserError: they are not finite, or not those of the model's classes.
    """
    # TensorFlow Serving's JSON, over several lines, is behind the headers; without it, the last line is the JSON.
    body = answer.partition("\n\n")[2] if answer.startswith("HTTP/") else answer.rstrip().rpartition("\n")[2]
    try:
        (prediction,) = json.loads(body)["predictions"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _cannot_serve(image, _last_lines(answer, _LAST_LINES)) from None
    for task in tasks:
        prefix = model_folder.output_prefix(task.name, len(tasks))
        single = not isinstance(prediction, dict)  # TensorFlow Serving names an output only if there are several
        scores = prediction if single else prediction.get(prefix + SCORES)
        classes = [] if single else prediction.get(prefix + CLASSES, [])
        is_valid = isinstance(scores, list) and len(scores) == max(len(task.labels), 1) and all(map(is_number, scores))
        if not is_valid or classes != list(task.labels):
            raise _cannot_serve(image, f"for one image {json.dumps(prediction)[:300]}")


def _docker(*words: str, seconds: float, text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs docker with `text` as its input; killed, at the latest, after so many seconds.

    Raises:
        subprocess.TimeoutExpired: it was killed.
        _EndlessOutputError: likewise, because it wrote too much.
    """
    pipe, end = subprocess.PIPE, time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        given = stack.enter_context(tempfile.TemporaryFile())
        given.write(text.encode())
        given.seek(0)
        process = stack.enter_context(subprocess.Popen(["docker", *words], stdin=given, stdout=pipe, stderr=pipe))
        stack.callback(process.kill)  # also when interrupted
        waiting = stack.enter_context(selectors.DefaultSelector())
        outputs = {output.fileno(): bytearray() for output in (process.stdout, process.stderr) if output}
        for number in outputs:
            waiting.register(number, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(0, end - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(process.args, seconds)
            for key, _ in ready:
                block = os.read(key.fd, 2**16)
                outputs[key.fd] += block
                if not block:
                    waiting.unregister(key.fd)
                elif len(outputs[key.fd]) > _MAX_OUTPUT_BYTES:
                    raise _EndlessOutputError
        code = process.wait(max(0, end - time.monotonic()))
        texts = (output.decode(errors="replace").replace("\r\n", "\n") for output in outputs.values())
        return subprocess.CompletedProcess(process.args, code, *texts)


def _last_lines(text: str, count: int) -> str:
    # Python underlines the place of an error with carets.
    lines = [printable(line.strip()) for line in text[-100_000:].splitlines() if line.strip(" ^~\t\r")]
    return " | ".join(line[-300:] for line in lines[-count:]) or "no output"


def _cannot_serve(image: str, received: str) -> UserError:
    return UserError(
        f"The model cannot be served by {image}, and is not put in service",
        received=received,
        expected="finite scores and the class names of the model, for one small image",
        hint="Train with the server's TensorFlow, or name an image with the one of training as --serving_image.",
    )


def _command(argv: Sequence[str] | None) -> None:
    parser = command_line.Parser(
        "python -m tf_image_classification.vertex.infra_validation",
        "Loads a model in its serving container, with Docker, and asks it once. Nothing is downloaded.",
    )
    table = [flags.BY_NAME["model"], flags.BY_NAME["serving_image"]]
    parser.add_flags(table, ("model",))
    given = parser.parse_flags(table, argv, ("model",))
    with storage.temporary_dir() as temporary:
        model = model_folder.verify(given.model, os.path.join(temporary, "model"))
        if check(model, given.serving_image) == NOT_ASKED:
            raise UserError(
                "The model was not asked",
                received=given.serving_image,
                expected="an image with TensorFlow Serving, or Python and TensorFlow, that Docker has on this machine",
            )
    print(PASSED)


if __name__ == "__main__":
    command_line.main(_command)
