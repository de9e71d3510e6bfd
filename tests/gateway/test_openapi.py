"""services/gateway/openapi.yaml is what the gateway serves over HTTP, and nothing else."""

import json
import re
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from starlette.datastructures import Headers, QueryParams, UploadFile
from starlette.routing import Route

from services.gateway import auth
from services.gateway.app import create_app
from services.gateway.auth import Keys
from services.gateway.documents import NAMES, document
from services.gateway.gateway import Gateway
from services.gateway.pools import Pools
from services.gateway.protocols import realtime_wish
from services.gateway.protocols.deepgram_query import read_wish as read_query
from services.gateway.protocols.openai_form import FORMATS
from services.gateway.protocols.openai_form import read_wish as read_form
from services.gateway.protocols.realtime_mint import Mint
from services.gateway.session import SessionConfig
from services.gateway.uploads import Upload
from tests.gateway.contract import answer_faults
from tests.gateway.fakes import FakeAsr, FakeVad, Mesh, running, served, spans_of
from tests.gateway.test_openai import BOTH, WORDS, wav

ROOT = Path(__file__).parents[2]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def openapi() -> dict[str, Any]:
    return document("openapi")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each."""
    for path, item in openapi()["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def described() -> set[tuple[str, str]]:
    return {(method, path) for method, path, _ in operations()}


async def served_routes() -> set[tuple[str, str]]:
    async with running(FakeVad([]), FakeAsr()) as mesh:
        return {
            (method, re.sub(r":\w+}", "}", route.path))
            for route in create_app(mesh.gateway).routes
            if isinstance(route, Route)
            for method in (route.methods or set()) - {"HEAD"}
        }


async def test_every_route_is_described_and_every_description_is_served() -> None:
    assert await served_routes() == described()


async def test_operations_have_names_of_their_own_and_keys_are_asked_for_where_it_says_so() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    open_paths = {path for _, path, operation in operations() if operation.get("security") == []}
    assert open_paths == auth._OPEN_PATHS


@pytest.mark.parametrize("name", NAMES)
def test_a_document_has_the_version_of_the_project_and_no_empty_values(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert document(name)["info"]["version"] == project["version"]
    # A comma in a text without quotes would make a key of what follows.
    assert "null" not in re.findall(r": (null)\b", json.dumps(document(name)))


@pytest.mark.parametrize("name", NAMES)
async def test_a_document_is_served_as_it_is_written(name: str) -> None:
    async with world() as (client, _):
        answer = await client.get(f"/{name}.json")
    assert answer.json() == document(name)


# What is read, and what is described


class Watched(dict[str, Any]):
    """What was looked for in it is remembered."""

    def __init__(self, content: Mapping[str, Any], looked_for: set[str]) -> None:
        super().__init__(content)
        self._looked_for = looked_for

    def get(self, key: str, default: Any = None) -> Any:
        self._looked_for.add(key)
        return super().get(key, default)


def test_the_fields_of_the_form_are_those_that_are_read() -> None:
    properties = openapi()["components"]["schemas"]["TranscriptionForm"]["properties"]
    looked_for: set[str] = set()
    file = UploadFile(BytesIO(b"x"), size=1)
    read_form(Upload(Watched({"file": file}, looked_for), Watched({}, looked_for)))
    heeded = {
        name.removesuffix("[]")
        for name, spec in properties.items()
        if not spec.get("x-without-effect")
    }
    assert heeded == looked_for
    assert set(properties["response_format"]["enum"]) == set(FORMATS)


class WatchedQuery(QueryParams):
    """A query that remembers what was looked for in it."""

    def __init__(self, *args: Any, looked_for: set[str]) -> None:
        super().__init__(*args)
        self._looked_for = looked_for

    def get(self, key: str, default: Any = None) -> Any:
        self._looked_for.add(key)
        return super().get(key, default)

    def getlist(self, key: str) -> list[str]:
        self._looked_for.add(key)
        return super().getlist(key)


LIVE_ONLY = {"interim_results", "endpointing", "utterance_end_ms", "vad_events"}
RECORDED_ONLY = {
    *("detect_language", "utterances", "utt_split", "paragraphs"),
    *("summarize", "sentiment", "topics", "custom_topic", "intents", "custom_intent"),
}
"""Parameters that are read with the others, and mean nothing in the other of both."""


@pytest.mark.parametrize("live", [True, False])
def test_the_parameters_of_listen_are_those_that_are_read(live: bool) -> None:
    looked_for: set[str] = set()
    for query in ("", "encoding=linear16&sample_rate=16000&multichannel=true"):
        read_query(WatchedQuery(query, looked_for=looked_for), live=live, models=[])
    if live:
        channel = document("asyncapi")["channels"]["listen"]
        parameters = set(channel["bindings"]["ws"]["query"]["properties"])
    else:
        post = openapi()["paths"]["/v1/listen"]["post"]
        parameters = {each["$ref"].rpartition("/")[2] for each in post["parameters"]}
    assert parameters == looked_for - (RECORDED_ONLY if live else LIVE_ONLY)
    for name, parameter in openapi()["components"]["parameters"].items():
        assert parameter["name"] == name


SESSION = {
    "include": ["item.input_audio_transcription.logprobs"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": {
                "model": "whisper-1",
                "language": "en",
                "languages": ["en"],
                "prompt": "a",
                "keywords": ["b"],
            },
            "noise_reduction": {"type": "near_field"},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
            },
        }
    },
}
SEMANTIC = {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}


def test_the_settings_of_a_realtime_session_are_those_that_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_for: set[str] = set()

    class Watching(realtime_wish.Fields):
        def raw(self, name: str) -> Any:
            looked_for.add(self.path(name))
            return super().raw(name)

        def __contains__(self, name: str) -> bool:
            looked_for.add(self.path(name))
            return super().__contains__(name)

    monkeypatch.setattr(realtime_wish, "Fields", Watching)
    realtime_wish.updated(realtime_wish.Wish(), SESSION)
    flat = {f"input_audio_{name}": value for name, value in SESSION["audio"]["input"].items()}  # type: ignore[index]
    flat["turn_detection"] = flat.pop("input_audio_turn_detection")
    realtime_wish.updated(realtime_wish.Wish(), flat)
    realtime_wish.updated(realtime_wish.Wish(), SEMANTIC)
    realtime_wish.updated(realtime_wish.Wish(), {"audio": {"input": SEMANTIC}})
    assert set(leaves("session", {"$ref": "#/components/schemas/RealtimeSessionUpdate"})) == (
        looked_for
    )


def leaves(path: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """The paths of all properties of a schema."""
    if (reference := schema.get("$ref")) is not None:
        schema = openapi()["components"]["schemas"][reference.rpartition("/")[2]]
    for part in (schema, *schema.get("anyOf", ())):
        for name, inner in part.get("properties", {}).items():
            yield f"{path}.{name}"
            yield from leaves(f"{path}.{name}", inner)


# What is answered

MULTIPART = {"files": {"file": ("a.wav", wav(), "audio/x-wav")}, "data": {"model": "whisper-1"}}
EMPTY_FILE = {"files": {"file": ("a.wav", b"", "audio/x-wav")}}
VALID: dict[str, dict[str, Any]] = {
    "transcribe": MULTIPART,
    "transcribeAtRoot": MULTIPART,
    "translate": MULTIPART,
    "listen": {"content": wav()},
    "grantToken": {"json": {}},
    "createClientSecret": {"json": {}},
    "createTranscriptionSession": {"json": {}},
}
INVALID: dict[str, dict[str, Any]] = {
    "transcribe": EMPTY_FILE,
    "transcribeAtRoot": EMPTY_FILE,
    "translate": EMPTY_FILE,
    "listen": {"content": b"this is no audio" * 100},
    "grantToken": {"content": b"["},
    "createClientSecret": {"content": b"["},
    "createTranscriptionSession": {"content": b"["},
}
NO_MODEL = {**MULTIPART, "data": {"model": "none"}}


@asynccontextmanager
async def world(**settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Mesh]]:
    asr = FakeAsr(WORDS, tasks=BOTH)
    async with (
        running(FakeVad(spans_of(WORDS)), asr, **settings) as mesh,
        served(mesh.gateway) as port,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20
        ) as client,
    ):
        yield client, mesh


class Survey:
    """Which operation has given which answers."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()

    async def ask(
        self,
        client: httpx.AsyncClient,
        requests: Mapping[str, Mapping[str, Any]] = VALID,
        *,
        only: str | None = None,
        model: str = "whisper-1",
    ) -> None:
        """Send a request to every operation, or to those that may give one answer."""
        for method, path, operation in operations():
            name = operation["operationId"]
            if only is not None and only not in operation["responses"]:
                continue
            address = path.replace("{id}", model)
            answer = await client.request(method, address, **requests.get(name, {}))
            self.seen.add((name, str(answer.status_code)))


async def test_every_status_in_the_document_comes_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is held against the document by ``served``."""
    survey = Survey()
    async with world() as (client, mesh):
        await survey.ask(client)
        await survey.ask(client, INVALID, only="400")
        await survey.ask(client, dict.fromkeys(VALID, NO_MODEL), only="404", model="none")
        monkeypatch.setattr(mesh.gateway.pools.default, "info", None)
        await survey.ask(client, only="404")
        monkeypatch.undo()
        mesh.gateway.draining.set()
        await survey.ask(client, only="503")
    async with (
        world(max_sessions=1) as (client, mesh),
        mesh.gateway.session(SessionConfig("s", "test")),
    ):
        await survey.ask(client, only="429")
    async with world(max_upload_bytes=1024) as (client, _):
        await survey.ask(client, only="413")
    async with world(keys={"alice": "a"}) as (client, _):
        await survey.ask(client)
        client.headers["Authorization"] = "Bearer a"
        monkeypatch.setattr(auth, "_MAX_LENT", 0)
        await survey.ask(client, only="429")
    async with world(origins=("https://good.example",)) as (client, _):
        client.headers["Origin"] = "https://evil.example"
        await survey.ask(client)
    async with world() as (client, _):
        for owner, name in BROKEN:
            monkeypatch.setattr(owner, name, broken)
        await survey.ask(client, only="500")
    documented = {
        (operation["operationId"], status)
        for _, _, operation in operations()
        for status in operation["responses"]
    }
    assert survey.seen == documented


BROKEN = [
    *((Gateway, name) for name in ("check_room", "models", "healthy", "ready")),
    (Pools, "choose"),
    (Mint, "make"),
    (Keys, "lend"),
]


def broken(*_args: object, **_options: object) -> NoReturn:
    raise ZeroDivisionError


async def test_what_a_path_does_not_do_is_refused_in_the_words_of_all() -> None:
    """The form of the refusals is held against the document by ``served``."""
    documented = described()
    async with world() as (client, _):
        for path in [*openapi()["paths"], "/v1/nothing"]:
            for method in METHODS:
                if ("GET" if method == "HEAD" else method, path) in documented:
                    continue
                answer = await client.request(method, path.replace("{id}", "base"))
                assert answer.status_code == (404 if path == "/v1/nothing" else 405)


def test_an_answer_that_is_not_in_the_document_is_found() -> None:
    """What holds the gateway against the document has to be held against something, too."""
    health = Headers({"content-type": "application/json"})

    def faults(**changes: Any) -> list[str]:
        told: dict[str, Any] = {
            "method": "GET",
            "path": "/health",
            "status": 200,
            "headers": health,
            "body": b'{"status":"ok","backend":"","ready":true}',
        }
        return list(answer_faults(**(told | changes)))

    assert faults() == []
    assert faults(method="HEAD", body=b"") == []
    for changes in (
        {"status": 418},
        {"body": b'{"status":"ok"}'},
        {"body": b'{"status":"ok","backend":"","ready":true,"more":1}'},
        {"headers": Headers({"content-type": "text/plain"})},
        {"path": "/v1/models"},
        {"path": "/v1/nothing"},
        {"path": "/v1/models/a/b", "status": 500},
        {"method": "PUT"},
        {"method": "PUT", "status": 405},
    ):
        assert faults(**changes), changes
