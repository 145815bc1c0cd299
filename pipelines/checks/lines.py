"""A line of the checklist, and how a check becomes one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from google.auth.exceptions import GoogleAuthError

from tf_image_classification.errors import FlagError, UserError


class Verdict(StrEnum):
    """What a check found."""

    OK = "OK"
    FAIL = "FAIL"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the checklist.

    Attributes:
        name: of what was checked.
        found: what was found.
        mend: a command or a hint; '' where there is nothing to mend.
    """

    verdict: Verdict
    name: str
    found: str
    mend: str = ""


class Obstacle(Exception):
    """A run would fail, or cost more than it has to."""

    def __init__(self, found: str, mend: str = "") -> None:
        super().__init__(found)
        self.found, self.mend = found, mend


class Unknown(Exception):
    """The check could not be made, as this account may not see everything."""

    def __init__(self, found: str, mend: str = "") -> None:
        super().__init__(found)
        self.found, self.mend = found, mend


def line(name: str, check: Callable[[], str]) -> Line:
    """Makes a check.

    Args:
        check: returns what it found; raises Obstacle or Unknown, or an error of this project.
    """
    logging.captureWarnings(True)  # google-auth's, about how somebody has signed in
    try:
        return Line(Verdict.OK, name, check())
    except Obstacle as obstacle:
        return Line(Verdict.FAIL, name, obstacle.found, obstacle.mend)
    except Unknown as unknown:
        return Line(Verdict.UNKNOWN, name, unknown.found, unknown.mend)
    except FlagError as error:
        return Line(Verdict.FAIL, name, _found(error), error.hint)
    except UserError as error:
        return Line(Verdict.UNKNOWN, name, _found(error), error.hint)
    except (GoogleAuthError, OSError) as error:
        return Line(Verdict.UNKNOWN, name, str(error).partition(". ")[0])


def _found(error: UserError) -> str:
    return error.problem if error.received is None else f"{error.problem}: {error.received}"
