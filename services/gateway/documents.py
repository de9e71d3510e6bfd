"""What the gateway serves, described for programs: OpenAPI for HTTP, AsyncAPI for WebSockets."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

NAMES = ("openapi", "asyncapi")


@cache
def document(name: str) -> dict[str, Any]:
    """A document, by one of ``NAMES``."""
    text = files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    read: dict[str, Any] = yaml.load(text, yaml.CSafeLoader)
    return read


@cache
def document_json(name: str) -> bytes:
    """The same, as it is served: without what YAML shares, so that every tool reads it."""
    return json.dumps(document(name), ensure_ascii=False, separators=(",", ":")).encode()
