"""Vertex AI's messages: the SDK's own protobuf types, as JSON, in pages and behind field masks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import field_mask_pb2, json_format
from werkzeug.wrappers import Request

from tests.standin.service import Refused

PROJECT_NUMBER = "123456789012"  # answers name a project by its number, whatever the request said
LOCATION = "/v1/projects/<project>/locations/<location>"


def parse(kind: Any, body: bytes) -> Any:
    """A message of the SDK from a request's body; a field that it does not have is refused."""
    message = kind()
    try:
        json_format.Parse(body, kind.pb(message))
    except json_format.ParseError as error:
        raise Refused(400, f"Invalid JSON payload received. {error}") from None
    return message


def answer(message: Any) -> dict[str, Any]:
    """A message of the SDK as the answer's JSON."""
    return json_format.MessageToDict(type(message).pb(message))


def page(request: Request, found: list[Any], key: str) -> dict[str, Any]:
    """One page of a list: `filter` of NAME="VALUE" terms joined by AND, `orderBy=create_time desc`, `pageSize`,
    `readMask`."""
    found = [
        one
        for one in found
        if all(_field(one, path) == value for path, value in _terms(request.args.get("filter", "")))
    ]
    if request.args.get("orderBy") == "create_time desc":
        found.sort(key=lambda one: one.create_time, reverse=True)
    first, size = int(request.args.get("pageToken") or 0), int(request.args.get("pageSize") or 100)
    shown = [answer(_masked(one, request.args.get("readMask", ""))) for one in found[first : first + size]]
    return {key: shown} | ({"nextPageToken": str(first + size)} if first + size < len(found) else {})


def _terms(text: str) -> Iterator[tuple[str, str]]:
    for term in filter(None, text.split(" AND ")):
        found = re.fullmatch(r'\s*([\w.]+)\s*=\s*"?([^"]*)"?\s*', term)
        if not found:
            raise Refused(400, f"Invalid filter: {text}")
        yield found[1], found[2]


def _field(message: Any, path: str) -> str:
    first, _, rest = path.partition(".")
    value = getattr(message, first, None)
    value = value.get(rest, "") if rest else value
    return getattr(value, "name", None) or str(value)


def mask_of(request: Request) -> list[str]:
    """The fields that a request wants changed."""
    mask = field_mask_pb2.FieldMask()
    mask.FromJsonString(request.args.get("updateMask", ""))
    return list(mask.paths)


def copy_of(message: Any) -> Any:
    """A message that can be changed while the one that it was made from stays."""
    copied = type(message)()
    type(message).pb(copied).CopyFrom(type(message).pb(message))
    return copied


def _masked(message: Any, mask_text: str) -> Any:
    if not mask_text:
        return message
    mask, kept = field_mask_pb2.FieldMask(), type(message)()
    mask.FromJsonString(mask_text)
    inner = [
        path for path in mask.paths if path.startswith("pipeline_spec.")
    ]  # a Struct: protobuf's masks do not look into one
    for path in inner:
        mask.paths.remove(path)
    mask.MergeMessage(type(message).pb(message), type(message).pb(kept))
    spec = answer(message)["pipelineSpec"] if inner else {}
    wanted = {re.sub("_(.)", lambda letter: letter[1].upper(), path.partition(".")[2]) for path in inner}
    if inner:
        kept.pipeline_spec = {name: value for name, value in spec.items() if name in wanted}
    return kept
