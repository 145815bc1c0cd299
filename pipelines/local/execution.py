"""Executes the compiled pipeline with kfp.local, and keeps what KFP itself prints apart from what the steps print."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from kfp import components, local
from kfp.local.orchestrator import task_executor

from pipelines.local.screen import Screen
from pipelines.local.steps import LOGS, Steps

KFP_LOG = "kfp.log"


def execute(
    template: Path, parameters: Mapping[str, object], runner: Any, root: Path, cache: Path, steps: Steps
) -> dict[str, Any]:
    """Executes a compiled pipeline, step after step.

    Args:
        runner: kfp.local's configuration of how a step is run.
        root: pipeline root; run folders appear in it.
        cache: folder of the cache.
        steps: shows the progress of every step.

    Returns:
        The pipeline's outputs by name: values and artifacts.

    Raises:
        RuntimeError: a step failed.
    """
    local.init(runner, pipeline_root=str(root), enable_caching=True, cache_root=str(cache))
    pipeline = components.load_component_from_file(str(template))
    with replaced(task_executor, "execute_single_task", steps.following(task_executor.execute_single_task)):
        return dict(pipeline(**parameters).outputs)


@contextlib.contextmanager
def replaced(module: Any, name: str, value: object) -> Iterator[None]:
    """Puts a value where kfp.local looks it up, for the block: kfp.local takes neither callbacks nor task handlers."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


class FollowedTask:
    """What our task handlers have in common: their first base class, before kfp.local's handler.

    Args:
        steps: of the run; `run` reports to it.
        arguments: those of kfp.local's handler.
    """

    def __init__(self, steps: Steps, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._steps = steps


@contextlib.contextmanager
def kfp_output(root: Path, steps: Steps, screen: Screen, *, verbose: bool) -> Iterator[None]:
    """Sends what this process prints, logs and warns of in the block to `kfp.log` in the run folder's logs.

    Changes sys.stdout, sys.stderr and the root logger's handlers for the block. KFP names the run folder itself; until
    then, and for ever when no step starts, the file is `.kfp.log` in `root`.

    Args:
        verbose: shows it as well.
    """
    path = root / f".{KFP_LOG}"
    logger = logging.getLogger()
    handlers = logger.handlers[:]
    with path.open("w", encoding="utf-8", buffering=1) as file:
        output: Any = _Tee(file, screen.stream) if verbose else file
        handler = logging.StreamHandler(output)
        handler.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - %(message)s", "%H:%M:%S"))
        logger.handlers[:] = [handler]
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                yield
        finally:
            logger.handlers[:] = handlers
            if steps.folder is not None:
                path.replace(steps.folder / LOGS / KFP_LOG)


class _Tee(io.TextIOBase):
    """Writes to two streams."""

    def __init__(self, *streams: TextIO) -> None:
        self._streams = streams

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()
