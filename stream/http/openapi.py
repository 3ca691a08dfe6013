"""The description of the interface in OpenAPI 3.1, written from the types and routes of the code."""

from typing import Any

import msgspec

from state.kinds import kinds_of
from state.settings import StateSettings
from stream.config import ClickFields
from stream.http.event_body import JSON, JSON_LINES, MAX_EVENTS, SentEvent, SentForget
from stream.http.problems import CONTENT_TYPE, ProblemDetails
from stream.http.routes import MAX_LIMIT, ROUTES, Route
from stream.http.struct_docs import docstrings_of
from stream.kafka.click_values import MAX_ID_BYTES

ERRORS = {
    400: "The request is wrong.",
    401: "No token, or one that is not known.",
    403: "The token does not allow this, or nobody may do it.",
    408: "The body did not come in time.",
    413: "The body is larger than `serve.max_body_bytes`, or has too many events.",
    415: "The body is neither JSON nor JSON lines, or is compressed.",
    422: "No event is valid.",
    429: "More requests than `serve.client_requests_per_s`.",
    503: "Kafka acknowledged no event in time.",
}
PARAMETERS = {
    "user": "The user. Percent-encoded UTF-8.",
    "item": "The item. Percent-encoded UTF-8.",
}
REF = "#/components/schemas/{name}"


def description(version: str, fields: ClickFields | None = None, state: StateSettings | None = None) -> dict[str, Any]:
    """The OpenAPI document, with the event kinds of the settings. With field names of one's own an event is any
    object."""
    types = [*{route.answer for route in ROUTES}, SentEvent, SentForget, ProblemDetails]
    types.sort(key=lambda kind: kind.__name__)
    _, components = msgspec.json.schema_components(types, ref_template=REF)
    for kind in _structs(types):
        _describe(components[kind.__name__], kind)
    kinds = kinds_of(state or StateSettings())
    forgets = [name for name, code in kinds.codes.items() if kinds.forget[code]]
    others = [name for name in kinds.codes if name not in forgets]
    components["SentEvent"]["properties"]["event"]["anyOf"] = [{"enum": others}, {"type": "null"}]
    components["SentForget"]["properties"]["event"] = {"enum": forgets}
    if fields is not None and fields != ClickFields():
        places = ", ".join(f"{name}: `{path}`" for name, path in msgspec.structs.asdict(fields).items())
        components["SentEvent"] = {"type": "object", "description": f"An event, its fields at these paths: {places}."}
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Anabranch", "version": version, "description": "Recommendations and events over HTTP."},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(route: Route) -> dict[str, Any]:
    answer = {"schema": _ref(route.answer)}
    responses: dict[str, Any] = {
        str(route.status): {"description": route.summary, "content": {JSON: answer}},
    }
    for status in route.errors:
        response: dict[str, Any] = {
            "description": ERRORS[status],
            "content": {CONTENT_TYPE: {"schema": _ref(ProblemDetails)}},
        }
        if status in (429, 503):
            response["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
            }
        if status == 401:
            response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        responses[str(status)] = response
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": route.text,
        "security": [{"token": []}, {}] if route.right == "read" else [{"token": []}],
        "responses": responses,
    }
    if route.method == "GET":
        operation["parameters"] = [*(_in_path(name) for name in PARAMETERS if f"{{{name}}}" in route.path), LIMIT]
    else:
        one = {"anyOf": [_ref(SentEvent), _ref(SentForget)]}
        many = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_EVENTS}
        lines = {"type": "string", "description": "One JSON object a line."}
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": {"anyOf": [*one["anyOf"], many]}}, JSON_LINES: {"schema": lines}},
        }
    return operation


LIMIT = {
    "name": "limit",
    "in": "query",
    "description": "At most this many items. A worker ranks `ranking.k` for a user, and fifty at most for an item.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
}


def _in_path(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES}
    return {"name": name, "in": "path", "required": True, "description": PARAMETERS[name], "schema": schema}


def _ref(kind: Any) -> dict[str, str]:
    return {"$ref": REF.format(name=kind.__name__)}


def _structs(types: list[Any]) -> list[Any]:
    """The structs among types and in their fields."""
    found: dict[str, Any] = {}

    def visit(kind: Any) -> None:
        if isinstance(kind, msgspec.inspect.StructType):
            if kind.cls.__name__ in found:
                return
            found[kind.cls.__name__] = kind.cls
            for field in kind.fields:
                visit(field.type)
        elif isinstance(kind, msgspec.inspect.UnionType):
            for one in kind.types:
                visit(one)
        elif isinstance(kind, msgspec.inspect.CollectionType):
            visit(kind.item_type)

    for kind in types:
        visit(msgspec.inspect.type_info(kind))
    return list(found.values())


def _describe(schema: dict[str, Any], kind: Any) -> None:
    """Put the docstring of each field beside its schema."""
    for field, text in docstrings_of(kind).items():
        schema["properties"][field]["description"] = text
