"""Write `docs/http.md` from the description of the HTTP interface: `make docs`."""

from pathlib import Path
from typing import Any

from stream.http.openapi import description
from stream.http.routes import ROUTES

ROOT = Path(__file__).parent.parent

PAGE = """# Recommendations and events over HTTP

`anabranch serve --broker HOST:PORT` answers at `serve.http`, which is `127.0.0.1:8080`. It needs Kafka and nothing
else: it asks the workers through the topics `requests` and `replies`. Run as many as you like. A worker with
`worker.api` answers the same paths at `worker.http`, those of its own users without Kafka.

    curl localhost:8080/v1/users/alice/recommendations?limit=5
    curl localhost:8080/v1/items/826249/related
    curl localhost:8080/v1/events -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
        -d '[{"user": "alice", "item": "826249", "event": "purchase"}]'

`GET /openapi.json` describes it in OpenAPI 3.1. This page is written from the same description by `make docs`.

## Who may do what

Three settings hold tokens. A client sends one as `Authorization: Bearer TOKEN`.

| setting | allows | where it is empty |
|---|---|---|
| `serve.read_token` | GET | everybody may |
| `serve.write_token` | POST, but no event that erases a user | nobody may |
| `serve.operate_token` | all, and acting in the console | nobody may |

- `openssl rand -hex 32` makes a token. `ANABRANCH_SERVE__WRITE_TOKEN` keeps it out of files. No token is logged.
- To replace a token, set the new one and the old one with a comma between them. Drop the old one once no client uses
  it.
- A token that many browsers have is no secret. Give pages the read token only, and let the shop's server send events.
- The interface has no TLS. Put a proxy with TLS before it, and let it pass `/v1/` only: `/metrics` needs no token.

## When the owner does not answer

The owner of a user is the worker that owns the user's partition. It answers within milliseconds. Where it does not
within `serve.timeout_ms`, the answer has something else, and its status is still 200. `fallback` says what:

| `fallback` | items |
|---|---|
| null | the owner's, of now |
| `last` | of the user's last recommendation, `age_s` seconds old. The newest are kept in `serve.last_bytes` |
| `popular` | popular with everybody, as a worker said less than a minute before workers fell silent |
| `none` | there are none: no worker has answered since this process started |

A partition that has been silent for a second is asked twice a second. All other requests to it are answered at once.
No fallback has an item that is withdrawn, and none is for a user who was forgotten.

## Limits

- A client may send `serve.client_requests_per_s` on average. More is answered with 429, and `Retry-After` says when
  to come back. Behind proxies set `serve.proxies`: otherwise all clients are one.
- Where it listens on this machine only and there is no `serve.read_token`, it answers to `localhost` and loopback
  addresses, and to no other name: a page of another site could let its name mean this machine, and read the answers.
- A body has at most `serve.max_body_bytes` and comes within ten seconds. It is not compressed.
- Pages of other origins read answers only if `serve.cors_origins` names their origin.
- Errors are `application/problem+json` (RFC 9457). `detail` is a sentence for the person who wrote the client.
- Recommendations are the user's own: they have `Cache-Control: private, no-store`. Related items may be cached for
  ten seconds.

While Kafka is away, reading goes on with fallbacks, events are answered with 503 within five seconds, and `/readyz`
stays at 200.

At SIGTERM `/readyz` answers 503. Requests are answered for `serve.drain_s` more, and then those that run are finished.
"""


def page() -> str:
    """docs/http.md"""
    document = description("")
    parts = [PAGE]
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        parts.append(f"\n## {route.method} {route.path}\n\n{route.summary}. {route.text}\n")
        if "parameters" in operation:
            rows = [_parameter(parameter) for parameter in operation["parameters"]]
            parts.append(_table(("parameter", "in", "meaning"), rows))
        if "requestBody" in operation:
            accepted = ", ".join(f"`{kind}`" for kind in operation["requestBody"]["content"])
            parts.append(f"\nThe body is one of {accepted}. Each event:\n")
            for name in ("SentEvent", "SentForget"):
                parts.append(_fields(document, name, " Optional."))
        parts.append(f"\nThe answer, with status {route.status}:\n")
        parts.append(_fields(document, route.answer.__name__))
        statuses = [
            (f"`{status}`", response["description"])
            for status, response in operation["responses"].items()
            if status != str(route.status)
        ]
        parts.append(_table(("status of an error", "meaning"), statuses))
    parts.append("\n## Types\n")
    for name in ("Recommended", "RelatedItem", "RejectedEvent", "ProblemDetails"):
        parts.append(_fields(document, name))
    return "".join(parts)


def _parameter(parameter: dict[str, Any]) -> tuple[str, str, str]:
    required = "" if parameter.get("required") else " Optional."
    return f"`{parameter['name']}`", parameter["in"], parameter["description"] + required


def _fields(document: dict[str, Any], name: str, optional: str = "") -> str:
    """The fields of a type; `optional` follows the meaning of those that need not be there."""
    schema = document["components"]["schemas"][name]
    required = schema.get("required", [])
    rows = [
        (f"`{field}`", _type(of), (of.get("description", "") + ("" if field in required else optional)).strip())
        for field, of in schema["properties"].items()
    ]
    about = " ".join(str(schema.get("description", "")).split())
    return f"\n`{name}`: {about}\n" + _table(("field", "type", "meaning"), rows)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join("null" if one is None else f"`{one}`" for one in schema["enum"])
    if schema["type"] == "array":
        return f"array of {_type(schema['items'])}"
    return str(schema["type"])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n" + "\n".join(line.replace("|  |", "| |") for line in lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs/http.md").write_text(page())
