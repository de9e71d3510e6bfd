"""services/gateway/asyncapi.yaml is what the gateway speaks over WebSockets, and nothing else."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.common.errors import DeviceError
from services.gateway.app import create_app
from services.gateway.documents import document
from services.gateway.session import SessionConfig
from tests.gateway.contract import channels, named, operations_of
from tests.gateway.fakes import (
    RATE,
    FakeAsr,
    FakeTranslator,
    FakeVad,
    Heard,
    Mesh,
    Transcribed,
    running,
    served,
    spans_of,
    words_at,
)
from tests.gateway.listening import CLOSE_STREAM, FINALIZE, KEEP_ALIVE, RAW
from tests.gateway.realtime import MANUAL, TRANSCRIPTION
from tests.gateway.test_openapi import RECORDED_ONLY, SESSION, WatchedQuery, broken
from voxmesh.asr.v1 import asr_pb2
from voxmesh.gateway.v1 import gateway_pb2 as pb


def asyncapi() -> dict[str, Any]:
    return document("asyncapi")


async def test_every_websocket_is_described_and_every_description_is_served() -> None:
    async with running(FakeVad([]), FakeAsr()) as mesh:
        routes = create_app(mesh.gateway).routes
    assert {route.path for route in routes if isinstance(route, WebSocketRoute)} == set(channels())


def test_every_message_belongs_to_an_operation() -> None:
    for channel, told in asyncapi()["channels"].items():
        spoken = {
            reference["$ref"].removeprefix(f"#/channels/{channel}/messages/")
            for action in ("send", "receive")
            for name in operations_of(channel, action)
            for reference in asyncapi()["operations"][name]["messages"]
        }
        assert spoken == set(told["messages"])


# What is read, and what is described

KEYS = {"token", "api_key"}
QUERIES = {
    "/asr": ("",),
    "/v1/converse": ("",),
    "/v1/listen": (RAW, RAW + "&multichannel=true"),
    "/v1/realtime": ("",),
}


@pytest.mark.parametrize("address", QUERIES)
async def test_the_parameters_of_a_channel_are_those_that_are_read(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_for: set[str] = set()

    def watched(connection: HTTPConnection) -> WatchedQuery:
        return WatchedQuery(connection.scope["query_string"], looked_for=looked_for)

    monkeypatch.setattr(HTTPConnection, "query_params", property(watched))
    async with running(FakeVad([]), FakeAsr()) as mesh, served(mesh.gateway) as port:
        for query in QUERIES[address]:
            async with connect(f"ws://127.0.0.1:{port}{address}?{query}", proxy=None):
                pass
    channel = asyncapi()["channels"][channels()[address]]
    described = channel.get("bindings", {}).get("ws", {}).get("query", {}).get("properties", {})
    assert set(described) == looked_for - KEYS - RECORDED_ONLY


def schema_of(reference: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = asyncapi()["components"]["schemas"][
        reference["$ref"].rpartition("/")[2]
    ]
    return found


@pytest.mark.parametrize("message", [pb.ConverseRequest, pb.ConverseResponse])
def test_the_messages_of_converse_are_those_of_the_contract(message: Any) -> None:
    """``error`` is the WebSocket's own: over gRPC it is a status."""
    action = "receive" if message is pb.ConverseRequest else "send"
    names: dict[str, Mapping[str, Any]] = {}
    for reference in asyncapi()["operations"][operations_of("converse", action)[0]]["messages"]:
        told = asyncapi()["channels"]["converse"]["messages"][reference["$ref"].rpartition("/")[2]]
        names |= told.get("payload", {}).get("properties", {})
    fields = message.DESCRIPTOR.fields_by_name
    assert names.keys() - {"error"} == set(fields)
    for name, found in fields.items():
        if found.message_type is not None:
            compare(schema_of(names[name]), found.message_type)


def compare(schema: Mapping[str, Any], message: Descriptor) -> None:
    """Hold the schema of a message against its contract."""
    assert set(schema.get("properties", {})) == set(message.fields_by_name), message.name
    for name, found in message.fields_by_name.items():
        told = schema["properties"][name]
        if found.message_type is not None and found.message_type.GetOptions().map_entry:
            assert told["type"] == "object"
            assert told["additionalProperties"] == {"$ref": "#/components/schemas/Int64"}
            continue
        if found.is_repeated:
            assert told["type"] == "array"
            told = told["items"]
        if found.enum_type is not None:
            assert schema_of(told)["enum"] == list(found.enum_type.values_by_name)
        elif found.message_type is not None and found.message_type.name == "Duration":
            assert told == {"$ref": "#/components/schemas/Duration"}
        elif found.message_type is not None:
            compare(schema_of(told), found.message_type)
        elif found.type == FieldDescriptor.TYPE_INT64:
            assert told == {"$ref": "#/components/schemas/Int64"}
        else:
            kinds = {
                FieldDescriptor.TYPE_STRING: "string",
                FieldDescriptor.TYPE_BOOL: "boolean",
                FieldDescriptor.TYPE_INT32: "integer",
                FieldDescriptor.TYPE_BYTES: "string",
            }
            assert told.get("type", "string" if "enum" in told else None) == kinds.get(found.type)


# What is said


@dataclass
class Until:
    """Read on to a message of a kind."""

    kind: str


@dataclass
class Nonsense:
    """A text that is no message."""

    text: str


Step: TypeAlias = str | bytes | Until | Nonsense | Callable[[], Awaitable[object]]


@dataclass
class Record:
    """What was said and heard over the connections to a channel."""

    channel: str
    heard: list[str | bytes] = field(default_factory=list)
    said: list[str | bytes] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    async def talk(
        self,
        port: int,
        query: str,
        steps: Iterable[Step] = (),
        *,
        protocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        leaves: bool = False,
    ) -> list[dict[str, Any]]:
        """Go through the steps, then read to the end, or leave; what was said meanwhile."""
        address = asyncapi()["channels"][self.channel]["address"]
        told: list[dict[str, Any]] = []
        try:
            async with connect(
                f"ws://127.0.0.1:{port}{address}?{query}",
                proxy=None,
                subprotocols=[Subprotocol(name) for name in protocols] or None,
                additional_headers=headers,
            ) as socket:

                async def hear() -> dict[str, Any]:
                    async with asyncio.timeout(20):
                        data = await socket.recv()
                    self.said.append(data)
                    told.append(json.loads(data))
                    return told[-1]

                async def take(step: Step) -> None:
                    match step:
                        case Until(kind):
                            while kind not in (message := await hear()).values():
                                if kind in message:
                                    break
                        case Nonsense(text):
                            await socket.send(text)
                        case str() | bytes():
                            self.heard.append(step)
                            await socket.send(step)
                        case _:
                            await step()

                with suppress(ConnectionClosed):
                    for step in steps:
                        await take(step)
                try:
                    while not leaves:
                        await hear()
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None
                    self.closed.add(str(closed.rcvd.code))
        except InvalidStatus as refused:
            self.refused.add(str(refused.response.status_code))
        return told

    def check(self, hears: str, says: str) -> None:
        """See whether all that two operations describe has come about, and nothing else."""
        for operation, data in ((hears, self.heard), (says, self.said)):
            described = {
                reference["$ref"].rpartition("/")[2]
                for reference in asyncapi()["operations"][operation]["messages"]
            }
            assert {named(each, self.channel, (operation,)) for each in data} == described


class Detecting(FakeAsr):
    """A recogniser that says which language it hears."""

    async def _answer(self, heard: Heard, certain: int, send: Transcribed) -> None:
        detected = asr_pb2.LanguageDetected(language_code="en", probability=0.5)
        await send(asr_pb2.TranscribeResponse(language=detected))
        await super()._answer(heard, certain, send)


@asynccontextmanager
async def world(*seconds: float, **settings: Any) -> AsyncIterator[tuple[Mesh, int]]:
    said = words_at(*seconds)
    async with (
        running(
            FakeVad(spans_of(said)), Detecting(said), None, FakeTranslator(), **settings
        ) as mesh,
        served(mesh.gateway) as port,
    ):
        yield mesh, port


def pcm(duration_s: float, rate_hz: int = RATE) -> list[bytes]:
    return [bytes(2 * rate_hz // 10)] * round(10 * duration_s)


def event(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


async def worn(record: Record, query: str, opening: Sequence[Step] = ()) -> None:
    """How connections end on a gateway that is full, breaks or stops."""
    async with (
        world(max_sessions=1) as (mesh, port),
        mesh.gateway.session(SessionConfig("s", "test")),
    ):
        await record.talk(port, query, opening)
    async with world(idle_s=0.3, listen_idle_s=0.3) as (mesh, port):
        await record.talk(port, query, opening)
        await record.talk(port, query, [*opening, *pcm(1), lambda: mesh.gateway.drain(0.5)])
        await record.talk(port, query)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.gateway.session.Session._feed", broken)
        async with world(idle_s=0.3) as (_, port):
            await record.talk(port, query, [*opening, *pcm(1)])


def check_ends(record: Record) -> None:
    """See whether all close codes and refusals of a channel have come about."""
    told = asyncapi()["channels"][record.channel]
    assert record.closed == set(told["x-close-codes"])
    assert record.refused == set(told.get("x-refusals", {}))


async def test_asr_says_what_is_described() -> None:
    record = Record("asr")
    snapshot = event("snapshot")
    async with world(1.0, 2.0, 3.0) as (_, port):
        done: list[Step] = [*pcm(4), b"", Until("ready_to_stop")]
        await record.talk(port, "language=en&target_language=pt", done, leaves=True)
        again = [*pcm(2), Until("snapshot"), snapshot, Until("snapshot"), *done]
        await record.talk(port, "mode=diff", again, leaves=True)
        await record.talk(port, "model=none")
    await worn(record, "", [b"\0\0"])
    record.check("asrHears", "asrSays")
    check_ends(record)


OPEN = json.dumps({"open": {"encoding": "ENCODING_LINEAR16", "resumable": True}})
FINISH = json.dumps({"finish": {}})


async def test_converse_says_what_is_described() -> None:
    record = Record("converse")
    async with world(1.0, 2.0, 4.0) as (mesh, port):
        gate = mesh.asr.faults.gate
        mesh.asr.faults.once = {RATE: DeviceError("lost")}

        async def shut() -> None:
            gate.clear()

        async def open_again() -> None:
            gate.set()

        encoded = json.dumps({"audio": base64.b64encode(pcm(0.1)[0]).decode()})
        opened, *_ = await record.talk(
            port,
            "",
            [
                OPEN,
                Until("opened"),
                shut,
                *pcm(3),
                encoded,
                Until("lag"),
                Until("received"),
                open_again,
                Until("captions"),
                json.dumps({"name_speaker": {"speaker": 1, "name": "Ada"}}),
                json.dumps({"translate_into": {"language_codes": ["pt"]}}),
                *pcm(2),
                Until("translated"),
                json.dumps({"flush": {"flush_id": 1}}),
                Until("flushed"),
            ],
            leaves=True,
        )
        resume = {"token": opened["opened"]["resume_token"], "num_words": "1"}
        await record.talk(port, "", [json.dumps({"resume": resume}), FINISH])
        await record.talk(port, "", [Nonsense("not json")])
    await worn(record, "", [OPEN, Until("opened")])
    record.check("converseHears", "converseSays")
    check_ends(record)


async def test_listen_says_what_is_described() -> None:
    record = Record("listen")
    query = f"{RAW}&interim_results=true&vad_events=true&utterance_end_ms=1000&keyterm=a&extra=a:b"
    async with world(0.5, 2.5, listen_idle_s=0.3) as (_, port):
        await record.talk(
            port,
            query,
            [
                KEEP_ALIVE,
                Nonsense("hello"),
                Until("Error"),
                event("Configure", keyterms=["a"]),
                Until("ConfigureSuccess"),
                event("Configure", keyterms=["b"]),
                Until("ConfigureFailure"),
                *pcm(2),
                Until("UtteranceEnd"),
                *pcm(2),
                FINALIZE,
                Until("SpeechStarted"),
                CLOSE_STREAM,
            ],
        )
        await record.talk(port, RAW + "&language=multi", [*pcm(2), b""])
        await record.talk(port, "", [b"this is no audio at all" * 100] * 20)
        await record.talk(port, RAW)
        await record.talk(port, "encoding=banana")
    await worn(record, RAW)
    record.check("listenHears", "listenSays")
    check_ends(record)


def appends(duration_s: float, rate_hz: int = 24_000) -> list[str]:
    blocks = pcm(duration_s, rate_hz)
    encoded = [base64.b64encode(block).decode() for block in blocks]
    return [event("input_audio_buffer.append", audio=block) for block in encoded]


COMMIT = event("input_audio_buffer.commit")
TURNS = {
    "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
    "input_audio_transcription": {"model": "gpt-4o-transcribe-diarize"},
}
COMPLETED = f"{TRANSCRIPTION}.completed"


async def openai_conversations(beta: bool) -> Record:
    record = Record("realtime")
    headers = {"OpenAI-Beta": "realtime=v1"} if beta else None
    flat = event("transcription_session.update", session=TURNS)
    async with world(1.0, 2.8, asr_patience_s=0.2) as (mesh, port):
        await record.talk(
            port,
            "intent=transcription",
            [
                event("session.update", session=SESSION),
                flat,
                Until("transcription_session.updated"),
                *appends(2.5),
                Until(COMPLETED),
                event("session.update", session=MANUAL),
                *pcm(0.2, 24_000),
                COMMIT,
                Until("input_audio_buffer.committed"),
                event("input_audio_buffer.clear"),
                Until("input_audio_buffer.cleared"),
                COMMIT,
                Until("error"),
            ],
            headers=headers,
            leaves=True,
        )
        mesh.asr.faults.always = {round(3.1 * RATE): DeviceError("boom")}
        manual = event("session.update", session=MANUAL)
        await record.talk(port, "", [manual, *appends(4)], headers=headers)
    return record


async def test_realtime_says_what_is_described_to_openais_clients() -> None:
    (await openai_conversations(beta=False)).check("realtimeHears", "realtimeSays")
    (await openai_conversations(beta=True)).check("realtimeHears", "realtimeBetaSays")


async def test_realtime_says_what_is_described_to_vllms_clients() -> None:
    record = Record("realtime")
    async with world(0.5, idle_s=0.3) as (_, port):
        await record.talk(
            port,
            "",
            [
                event("session.update", model="none"),
                Until("error"),
                event("session.update", model="fake"),
                COMMIT,
                *appends(1, RATE),
                *pcm(1),
                event("input_audio_buffer.commit", final=True),
            ],
        )
    record.check("realtimeVllmHears", "realtimeVllmSays")


async def test_realtime_says_what_is_described_to_nvidias_clients() -> None:
    record = Record("realtime")
    session = {
        "input_audio_params": {"sample_rate_hz": RATE, "num_channels": 1},
        "recognition_config": {},
        "word_boosting": {"word_boosting_list": [{"phrases": ["a"], "boost": 2}]},
    }
    update = event("transcription_session.update", session=session)
    done = event("input_audio_buffer.done")
    async with world(0.5) as (_, port):
        await record.talk(port, "", [update, *appends(2, RATE), COMMIT, *pcm(0.2), done])
        protocols = ("realtime", "realtime-token.any")
        await record.talk(port, "", [Nonsense("{}"), update, done], protocols=protocols)
    record.check("realtimeRivaHears", "realtimeRivaSays")


async def test_connections_to_realtime_end_as_described() -> None:
    record = Record("realtime")
    async with world(idle_s=0.2, max_session_s=2) as (mesh, port):
        await record.talk(port, "")
        await record.talk(port, "", appends(3))
        await record.talk(port, "model=none")
        await record.talk(port, "input_audio_format=mp3")
        mesh.asr.faults.always = {RATE: DeviceError("boom")}
    async with world(0.5, asr_patience_s=0.2) as (mesh, port):
        mesh.asr.faults.always = {RATE // 2: DeviceError("boom")}
        await record.talk(port, "", appends(1))
    await worn(record, "")
    check_ends(record)


def test_what_is_no_message_is_found() -> None:
    said = ("asrSays",)
    assert named('{"type":"ready_to_stop"}', "asr", said) == "readyToStop"
    for text in ('{"type":"ready_to_stop","more":1}', '{"type":"other"}', "{}", "[]"):
        with pytest.raises(AssertionError, match=re.escape(text)):
            named(text, "asr", said)
