"""What a gateway says, held against what its documents say that it says.

``served`` puts every gateway of the tests behind a ``Contract``: whatever a test is about, it fails
with an answer, a message or a close code that the documents do not have.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeAlias
from urllib.parse import quote

import jsonschema_rs
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.documents import NAMES, document

Node: TypeAlias = Mapping[str, Any]

_BASE = "http://gateway/"
_CLIENT_LEFT = 499
"""Nobody is there to read it."""
_FRAMES: Mapping[str, object] = {"application/octet-stream": bytes, "text/plain": str}
"""What comes in frames that are no JSON."""
_REFUSALS = {401: "Unauthorized", 403: "Forbidden", 404: "NotServed", 405: "NotServed"}
"""What is answered before it is known whose the request is."""


@cache
def _validator(pointer: str) -> Any:
    """Of a schema; AsyncAPI's are those of JSON Schema's draft 7, OpenAPI's those of 2020-12."""
    openapi = pointer.startswith("openapi.json")
    draft = jsonschema_rs.Draft202012 if openapi else jsonschema_rs.Draft7
    kind = jsonschema_rs.Draft202012Validator if openapi else jsonschema_rs.Draft7Validator
    resources = [(f"{_BASE}{name}.json", json.loads(json.dumps(document(name)))) for name in NAMES]
    registry = jsonschema_rs.Registry(resources, draft=draft)
    reference = _BASE + quote(pointer, safe="/#~$")
    return kind({"$ref": reference}, registry=registry, validate_formats=True)


def _faults(pointer: str, value: object) -> Iterator[str]:
    for error in _validator(pointer).iter_errors(value):
        where = "/".join(map(str, error.instance_path))
        yield f"{where or 'it'}: {error.message}"[:300]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _followed(node: Node, pointer: str) -> tuple[Node, str]:
    """A node of the OpenAPI document, and where it is, behind a reference if it is one."""
    reference = node.get("$ref")
    if reference is None:
        return node, pointer
    found: Any = document("openapi")
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found, f"openapi.json{reference}"


# HTTP


@cache
def _paths() -> list[tuple[re.Pattern[str], str]]:
    """The paths of the document; those without parameters first."""
    paths = sorted(document("openapi")["paths"], key=lambda path: "{" in path)
    return [(re.compile(re.sub(r"\\\{\w+\\\}", ".*", re.escape(path))), path) for path in paths]


def answer_faults(
    method: str, path: str, status: int, headers: Headers, body: bytes
) -> Iterator[str]:
    """What an answer says that the document does not."""
    head = method == "HEAD"
    method = "get" if head else method.lower()
    written = next((written for form, written in _paths() if form.fullmatch(path)), "")
    operation = document("openapi")["paths"].get(written, {}).get(method)
    if operation is None:
        yield from _refusal_faults(status, headers, body, wanted=405 if written else 404)
        return
    response = operation["responses"].get(str(status))
    if response is None:
        yield f"the status {status} is not in the document"
        return
    place = f"openapi.json#/paths/{_escaped(written)}/{method}/responses/{status}"
    yield from _response_faults(response, place, headers, None if head else body)


def _refusal_faults(status: int, headers: Headers, body: bytes, *, wanted: int) -> Iterator[str]:
    if status not in {401, 403, wanted}:
        yield f"the document has no such operation, and the status is {status}"
        return
    if status == 405 and "allow" not in headers:
        yield "the header Allow is missing"
    response = {"$ref": f"#/components/responses/{_REFUSALS[status]}"}
    yield from _response_faults(response, "", headers, body or None)


def _response_faults(
    response: Node, place: str, headers: Headers, body: bytes | None
) -> Iterator[str]:
    response, place = _followed(response, place)
    for name, header in response.get("headers", {}).items():
        spec, spec_place = _followed(header, f"{place}/headers/{name}")
        if name in headers:
            value: object = headers[name]
            if spec["schema"].get("type") == "integer":
                value = int(headers[name])
            yield from (f"{name}: {fault}" for fault in _faults(f"{spec_place}/schema", value))
        elif spec.get("required"):
            yield f"the header {name} is missing"
    kind = headers.get("content-type", "").partition(";")[0]
    if kind not in response["content"]:
        yield f"the content type {kind!r} is not in the document"
    elif body is not None:
        place = f"{place}/content/{_escaped(kind)}"
        yield from _body_faults(response["content"][kind], place, kind, body)


def _body_faults(content: Node, place: str, kind: str, body: bytes) -> Iterator[str]:
    if kind == "application/json":
        yield from _faults(f"{place}/schema", json.loads(body))
        return
    text = body.decode()
    if "schema" in content:
        yield from _faults(f"{place}/schema", text)
    if "x-event-schema" in content:
        for line in text.splitlines():
            data = line.removeprefix("data: ")
            if data not in {line, "[DONE]"}:
                yield from _faults(f"{place}/x-event-schema", json.loads(data))


# WebSockets


@cache
def channels() -> Mapping[str, str]:
    """The name of each channel, by its address."""
    return {told["address"]: name for name, told in document("asyncapi")["channels"].items()}


@cache
def _messages(channel: str, operations: tuple[str, ...]) -> Mapping[object, list[tuple[str, str]]]:
    """Names and schemas of messages, by what tells them apart."""
    found: dict[object, dict[str, str]] = {}
    for operation in operations:
        for reference in document("asyncapi")["operations"][operation]["messages"]:
            name = reference["$ref"].rpartition("/")[2]
            place = f"channels/{channel}/messages/{name}"
            message = document("asyncapi")["channels"][channel]["messages"][name]
            if (shared := message.get("$ref")) is not None:
                place = shared.removeprefix("#/")
                message = document("asyncapi")["components"]["messages"][shared.rpartition("/")[2]]
            payload = message["payload"]
            kind: object = payload.get("properties", {}).get("type", {}).get("const")
            kind = _FRAMES.get(message.get("contentType", ""), kind)
            found.setdefault(kind, {})[name] = f"asyncapi.json#/{place}/payload"
    return {kind: list(named.items()) for kind, named in found.items()}


def operations_of(channel: str, action: str) -> tuple[str, ...]:
    """The operations of a channel: ``send`` is what the gateway says."""
    return tuple(
        name
        for name, operation in document("asyncapi")["operations"].items()
        if operation["action"] == action and operation["channel"]["$ref"] == f"#/channels/{channel}"
    )


def named(data: str | bytes, channel: str, operations: tuple[str, ...]) -> str:
    """The name of a message.

    Raises:
        AssertionError: The operations have none such, or several.

    """
    messages = _messages(channel, operations)
    value, kind = (data, str) if str in messages else _read(data)
    candidates = messages.get(kind, [])
    told = data[:300]
    assert candidates, f"{channel}: {operations} have no message such as {told!r}"
    names = [name for name, pointer in candidates if _validator(pointer).is_valid(value)]
    assert len(names) < 2, f"{channel}: {told!r} is {names}"
    if names:
        return names[0]
    faults = [(name, *_faults(pointer, value)) for name, pointer in candidates]
    raise AssertionError(f"{channel}: {told!r} is none of {faults}")


def _read(data: str | bytes) -> tuple[object, object]:
    """What a frame holds, and what tells it apart."""
    if isinstance(data, bytes):
        return data.decode("latin-1"), bytes
    value = json.loads(data)
    return value, value.get("type") if isinstance(value, dict) else None


# All of it


class Contract:
    """ASGI middleware that holds everything an application says against the documents."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.faults: list[str] = []
        self.answers: Counter[tuple[str, str, int]] = Counter()
        """Method, path and status of what was answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and listen in."""
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers, body = 0, Headers(), b""

        async def listen(message: Message) -> None:
            nonlocal status, headers, body
            await send(message)
            if message["type"] == "http.response.start":
                status, headers = message["status"], Headers(raw=message["headers"])
                return
            body += message.get("body", b"")
            if not message.get("more_body", False) and status != _CLIENT_LEFT:
                method, path = scope["method"], scope["path"]
                self.answers[method, path, status] += 1
                for fault in answer_faults(method, path, status, headers, body):
                    self.faults.append(f"{method} {path} {status}: {fault}")

        await self._app(scope, receive, listen)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        channel = channels().get(path)
        told = {} if channel is None else document("asyncapi")["channels"][channel]
        status, headers, body, accepted = 0, Headers(), b"", False

        async def listen(message: Message) -> None:
            nonlocal status, headers, body, accepted
            await send(message)
            match message["type"]:
                case "websocket.accept":
                    accepted = True
                    if channel is None:
                        self.faults.append(f"{path}: this channel is not in the document")
                case "websocket.send" if channel is not None:
                    data = message.get("text")
                    try:
                        named(
                            message["bytes"] if data is None else data,
                            channel,
                            operations_of(channel, "send"),
                        )
                    except AssertionError as fault:
                        self.faults.append(str(fault))
                case "websocket.close" if accepted:
                    if str(message["code"]) not in told.get("x-close-codes", {}):
                        self.faults.append(f"{path}: close code {message['code']}")
                case "websocket.http.response.start":
                    status, headers = message["status"], Headers(raw=message["headers"])
                case "websocket.http.response.body":
                    body += message.get("body", b"")
                    if not message.get("more_body", False):
                        faults = _handshake_faults(channel, status, headers, body)
                        self.faults += [f"{path} {status}: {fault}" for fault in faults]

        await self._app(scope, receive, listen)


def _handshake_faults(
    channel: str | None, status: int, headers: Headers, body: bytes
) -> Iterator[str]:
    if channel is None or status in {401, 403}:
        yield from _refusal_faults(status, headers, body, wanted=404)
        return
    if str(status) not in document("asyncapi")["channels"][channel].get("x-refusals", {}):
        yield "the document has no such refusal"
        return
    if status == 429 and not headers.get("retry-after", "").isdecimal():
        yield "the header Retry-After is missing"
    pointer = f"asyncapi.json#/channels/{channel}/x-refusals/{status}"
    yield from _faults(pointer, json.loads(body))
