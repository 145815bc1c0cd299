"""Messages of Vertex AI: the SDK's own protobuf types as JSON, with filters, pages and field masks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import field_mask_pb2, json_format
from werkzeug.wrappers import Request

from tests.standin.service import ApiError

PROJECT_NUMBER = "123456789012"  # responses name a project by its number, whatever the request has
LOCATION = "/v1/projects/<project>/locations/<location>"


def parse(kind: Any, body: bytes) -> Any:
    """A message of the SDK from a request's body.

    Raises:
        ApiError: it has a field that the message type lacks.
    """
    message = kind()
    try:
        json_format.Parse(body, kind.pb(message))
    except json_format.ParseError as error:
        raise ApiError(400, f"Invalid JSON payload received. {error}") from None
    return message


def to_json(message: Any) -> dict[str, Any]:
    """A message of the SDK as the JSON of a response."""
    return json_format.MessageToDict(type(message).pb(message))


def page(request: Request, messages: list[Any], key: str) -> dict[str, Any]:
    """One page of a list, as the response to a request.

    Supported arguments: `filter` of NAME="VALUE" terms joined by AND, `orderBy=create_time desc`, `pageSize`,
    `pageToken`, `readMask`.

    Args:
        request: of a list method.
        messages: all of the collection.
        key: the field of the response that holds the page.
    """
    terms = list(_terms(request.args.get("filter", "")))
    kept = []
    for message in messages:
        if all(_field(message, path) == value for path, value in terms):
            kept.append(message)
    if request.args.get("orderBy") == "create_time desc":
        kept.sort(key=lambda message: message.create_time, reverse=True)
    start = int(request.args.get("pageToken") or 0)
    end = start + int(request.args.get("pageSize") or 100)
    read_mask = request.args.get("readMask", "")
    response: dict[str, Any] = {key: [to_json(_masked(message, read_mask)) for message in kept[start:end]]}
    if end < len(kept):
        response["nextPageToken"] = str(end)
    return response


def _terms(text: str) -> Iterator[tuple[str, str]]:
    for term in filter(None, text.split(" AND ")):
        found = re.fullmatch(r'\s*([\w.]+)\s*=\s*"?([^"]*)"?\s*', term)
        if not found:
            raise ApiError(400, f"Invalid filter: {text}")
        yield found[1], found[2]


def _field(message: Any, path: str) -> str:
    first, _, rest = path.partition(".")
    value = getattr(message, first, None)
    value = value.get(rest, "") if rest else value
    return getattr(value, "name", None) or str(value)


def update_mask(request: Request) -> list[str]:
    """The paths of a request's updateMask: the fields to change."""
    mask = field_mask_pb2.FieldMask()
    mask.FromJsonString(request.args.get("updateMask", ""))
    return list(mask.paths)


def copy_message(message: Any) -> Any:
    """A copy of a message of the SDK."""
    copied = type(message)()
    type(message).pb(copied).CopyFrom(type(message).pb(message))
    return copied


def _masked(message: Any, mask_text: str) -> Any:
    if not mask_text:
        return message
    mask, kept = field_mask_pb2.FieldMask(), type(message)()
    mask.FromJsonString(mask_text)
    # pipeline_spec is a Struct, into which protobuf's masks do not reach.
    spec_paths = [path for path in mask.paths if path.startswith("pipeline_spec.")]
    for path in spec_paths:
        mask.paths.remove(path)
    mask.MergeMessage(type(message).pb(message), type(message).pb(kept))
    if spec_paths:
        spec = to_json(message)["pipelineSpec"]
        names = {re.sub("_(.)", lambda letter: letter[1].upper(), path.partition(".")[2]) for path in spec_paths}
        kept.pipeline_spec = {name: value for name, value in spec.items() if name in names}
    return kept
