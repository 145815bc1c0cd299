"""Each option of each command changes what is sent or printed, or is refused by its name."""

from __future__ import annotations

import copy
import math
import re
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import yaml

from pipelines.backends import options
from tests.pipelines.commands.option_cases import CASES, commands
from tf_image_classification import flags as flag_table
from tf_image_classification.flags import Flag

_ROOT = ("--pipeline_root", "gs://bucket/root")
_LOCAL = ("compile", "run")
_CHOSEN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=schedules/)\d+")  # ids


def _flag_words() -> set[str]:
    return {word for flag in flag_table.of_pipeline() for word in (flag.name, f"no{flag.name}")}


def test_every_option_has_a_case():
    parsers = dict(commands())
    assert set(parsers.pop("check").option_names()) <= {*CASES["submit"], "help"}  # it looks at some of them
    assert set(CASES) == set(parsers)
    for name, parser in parsers.items():
        flags = _flag_words() if name == "run" else set()
        assert set(parser.option_names()) - flags - {"help"} == set(CASES[name]), name


def _ended(*arguments: Any, **_: Any) -> threading.Thread:
    """In place of `Runner.start`: a run that ends at once, and does nothing."""
    arguments[-1](True)
    thread = threading.Thread()
    thread.start()
    return thread


@pytest.fixture(params=["vertex", "kubeflow"])
def service(request, tmp_path, storage_url, monkeypatch):
    """A service, and the words that lead to it."""
    from tests.standin.kubeflow import Kubeflow
    from tests.standin.vertex import Vertex

    kind = Vertex if request.param == "vertex" else Kubeflow
    started = kind(tmp_path / "service", storage_url)
    monkeypatch.setattr(started.runner, "start", _ended)
    monkeypatch.chdir(tmp_path)
    started.start()
    if kind is Vertex:
        words = ("--project", "my-project", "--location", "europe-west4", "--api_endpoint", started.url)
    else:
        words = ("--backend", "kubeflow", "--host", started.url)
    yield started, words
    started.stop()


@pytest.fixture
def see(service, command, tiny_template, registry, tmp_path) -> Callable[..., tuple[Any, ...]]:
    """Calls a command beside a run and a schedule of the tiny pipeline, `tiny`, and of this checkout's, `ours`.

    Returns the exit code, the error, what was printed and what was sent.
    """
    started, connection = service
    (tmp_path / "parameters.yaml").write_text("steps: 9\n")
    (tmp_path / "kubernetes.yaml").write_text("nodeSelector: {disk: ssd}\n")
    other = yaml.safe_load(tiny_template.read_text())
    other["pipelineInfo"]["description"] = "another"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    data = {
        "ours": ("--train_metadata", "gs://bucket/photos", "--image_registry", f"{registry.host}/team"),
        "tiny": ("--template", str(tiny_template), "--folder", "gs://bucket/words"),
    }
    create = ("schedule", "create")
    for name, words in data.items():
        for call in (("submit", "--run_id", name), (*create, name, "--cron", "0 3 * * 1")):
            done = command(*call, *_ROOT, *words, *connection)
            assert done.returncode == 0, done.stderr
    gpu = "nvidia.com/gpu" if "kubeflow" in connection else "NVIDIA_TESLA_T4"
    stores = [vars(started)[name] for name in ("jobs", "schedules", "runs", "recurring") if name in vars(started)]
    stores = stores or [started.jobs, started.schedules]
    saved = copy.deepcopy(stores)

    def call(name: str, words: tuple[str, ...], *, compiles: bool) -> tuple[Any, ...]:
        for store, content in zip(stores, saved, strict=True):
            store.clear()
            store.update(copy.deepcopy(content))
        target = "ours" if compiles else "tiny"
        if name in ("submit", "schedule create"):
            named = ("--run_id", "new") if name == "submit" else ("new", "--cron", "0 3 * * 1")
            words = (*named, *_ROOT, *data[target], *connection, *words)
        elif name.endswith(" list"):
            words = (*connection, *words)
        else:
            words = (target, *(("--run_id", "new") if name == "runs rerun" else ()), *connection, *words)
        words = tuple(word.replace("REGISTRY", registry.host).replace("GPU", gpu) for word in words)
        started.requests.clear()
        started.contents.clear()
        done = command(*name.split(), *words)
        sent = [one for one in zip(started.requests, started.contents, strict=True) if "/operations/" not in one[0]]
        seen = repr((done.stdout, sent))  # without how often the end of an operation was asked for
        return done.returncode, done.stderr, _CHOSEN.sub("ID", seen)

    return call


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, cases in CASES.items() if cases and name not in _LOCAL])
def test_every_option_of_a_service_changes_what_is_sent_or_is_refused(name, see, service):
    is_vertex = "--project" in service[1]
    without = cache(lambda words, compiles: see(name, words, compiles=compiles))
    for option, case in CASES[name].items():
        words = ("--backend", "kubeflow" if is_vertex else "vertex") if option == "backend" else case.words
        before = without(case.beside, case.compiles)
        assert before[0] == 0, before[1]
        code, error, seen = see(name, (*case.beside, *words), compiles=case.compiles)
        if code == 2:
            assert f"--{option}" in error, (name, option, error)
            assert not is_vertex or option in ("backend", "kubernetes", *options._KUBEFLOW), (option, error)
        else:
            assert (code, error, seen) != before, f"{name} --{option} changes nothing"
    assert see(name, (), compiles=False) == without((), False), "the comparison is blind to what differs each time"


@pytest.mark.slow
def test_every_option_of_compile_changes_the_file_that_is_written(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    (tmp_path / "kubernetes.yaml").write_text("nodeSelector: {disk: ssd}\n")

    def see(*words: str) -> tuple[str, ...]:
        done = command("compile", "--output", "pipeline.yaml", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr, (tmp_path / done.stdout.splitlines()[0]).read_text()

    for option, case in CASES["compile"].items():
        words = [word.replace("GPU", "NVIDIA_TESLA_T4") for word in case.words]
        assert see(*case.beside, *words) != see(*case.beside), option


def test_every_option_of_run_changes_how_the_pipeline_is_run(command, tmp_path, monkeypatch):
    from pipelines.local import run, summary

    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags.yaml").write_text("seed: 9\n")
    ran: list[tuple[Any, ...]] = []
    monkeypatch.setattr(run, "run", lambda *arguments, **others: ran.append((arguments, others)))
    monkeypatch.setattr(summary, "table", lambda finished: "")

    def see(*words: str) -> tuple[Any, ...]:
        ran.clear()
        done = command("run", "--train_metadata", ".", *words)
        if done.returncode == 2:
            return (done.stderr,)
        assert done.returncode == 0, done.stderr
        return done.stdout, repr(ran)

    for option, case in CASES["run"].items():
        before, after = see(*case.beside), see(*case.beside, *case.words)
        assert len(before) == 2, before
        assert after != before and (len(after) == 2 or f"--{option}" in after[0]), option


def _another_value(flag: Flag) -> str:
    """A valid value of a flag that is not its default."""
    if flag.type is bool:
        return str(not flag.default).lower()
    if flag.choices:
        return next(choice for choice in flag.choices if choice != flag.default)
    if flag.is_range:
        return "0.5,0.75"
    if flag.type is str:
        return "gs://bucket/x" if flag.path else "image:1" if flag.is_image else "a,b"
    low = flag.ge if math.isfinite(flag.ge) else flag.gt if math.isfinite(flag.gt) else 0
    high = min(flag.le, flag.lt, low + 4)
    middle = (low + high) / 2 if flag.type is float else int(low + high) // 2
    return str(middle if middle != flag.default else flag.type(middle + (high - middle) / 2))


def test_every_flag_of_the_pipeline_is_sent(pipelines, vertex, monkeypatch):
    monkeypatch.setattr(vertex.runner, "start", _ended)
    values = {flag.name: _another_value(flag) for flag in flag_table.of_pipeline()}
    location = "projects/p/locations/l"
    values |= {"champion": f"{location}/models/m", "endpoint": f"{location}/endpoints/1", "estimator": "m:C"}
    del values["recipe"]  # it is sent as the values of its flags
    words = [word for name, value in values.items() for word in (f"--{name}", value)]
    done = pipelines("submit", "--run_id", "first", *_ROOT, *words)
    assert done.returncode == 0, done.stderr
    sent = vertex.jobs["first"].runtime_config.parameter_values
    for name, value in values.items():
        assert flag_table.BY_NAME[name].parse(sent[name]) == flag_table.BY_NAME[name].parse(value), name
