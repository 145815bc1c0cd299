"""Processes that write at once, are killed at a given call, or record their calls.

Run in a process of its own without threads, see `durability`: forked processes start in milliseconds.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tf_image_classification.errors import UserError
from tf_image_classification.storage import local_folders

_CALLS = ("mkdir", "fsync", "rename", "replace", "unlink", "rmdir")


def together(calls: list[Callable[[], object]], meanwhile: Callable[[], object]) -> list[str]:
    """Makes each call in a process, all at once, and `meanwhile` in this one until they end.

    Returns:
        For each its outcome: `done`, or the problem of its UserError.
    """
    start, go = os.pipe()
    children = []
    for call in calls:
        answer, answering = os.pipe()
        if (child := os.fork()) == 0:
            os.close(go)
            os.read(start, 1)  # until the parent closes its end
            os.write(answering, _outcome(call).encode())
            os._exit(0)
        os.close(answering)
        children.append((child, answer))
    os.close(start)
    os.close(go)
    running = {child for child, _ in children}
    while running:
        meanwhile()
        time.sleep(0.001)
        running -= {child for child in running if os.waitpid(child, os.WNOHANG)[0]}
    meanwhile()
    outcomes = []
    for _, answer in children:
        with os.fdopen(answer) as text:
            outcomes.append(text.read())
    return outcomes


def killed_everywhere(
    prepare: Callable[[], object], work: Callable[[], object], check: Callable[[], object], step: int
) -> Iterator[int]:
    """Makes a call in processes that are killed at every `step`-th change of the file system and sync, until one ends.

    Yields:
        The number of each call at which a process was killed and `check` passed.
    """
    for count in itertools.count(1, step):
        prepare()
        if (child := os.fork()) == 0:
            calls = itertools.count(1)
            intercept(
                lambda *_, calls=calls, count=count: (
                    os.kill(os.getpid(), signal.SIGKILL) if next(calls) == count else None
                )
            )
            os._exit(_outcome(work) != "done")
        _, status = os.waitpid(child, 0)
        check()
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return
        yield count


def recorded(work: Callable[[], object], folder: str) -> list[tuple[str, str]]:
    """The calls that `work` makes, each with the path that it changes or syncs, relative to `folder`.

    Opening a file for writing is the call `open`; renaming has the new path.
    """
    calls: list[tuple[str, str]] = []

    def record(name: str, *arguments: Any) -> None:
        path = arguments[-1] if name in ("rename", "replace", "exchange") else arguments[0]
        path = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.path.abspath(path)
        calls.append((name, os.path.relpath(path, folder)))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            record("open", arguments[0])

    sys.addaudithook(hook)
    intercept(record)
    work()
    return calls


def intercept(before: Callable[..., object]) -> None:
    """From now on, calls `before` with name and arguments of every call that changes the file system or syncs."""
    for module, function in ((os, name) for name in _CALLS):
        setattr(module, function, _intercepted(function, getattr(module, function), before))
    local_folders._exchange = _intercepted("exchange", local_folders._exchange, before)


def _intercepted(name: str, call: Callable[..., Any], before: Callable[..., object]) -> Callable[..., Any]:
    def intercepted(*arguments: Any, **keywords: Any) -> Any:
        before(name, *arguments)
        return call(*arguments, **keywords)

    return intercepted


def _outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except UserError as error:
        return error.problem
    except BaseException as error:  # the test shows it
        return repr(error)
    return "done"
