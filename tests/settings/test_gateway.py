"""What each setting of the gateway changes for its clients, or for the stages behind it."""

import asyncio
import json
import os
import sys
import wave
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from services.common.errors import InvalidRequestError, MeshError
from services.common.timeline import samples, samples_of_ms, seconds
from services.gateway import __main__ as gateway_process
from services.gateway.config import Settings
from services.gateway.gateway import Gateway
from services.gateway.protocols import wlk
from services.gateway.session import Pace, Session, SessionConfig
from services.gateway.session_config import Diarization
from tests.gateway.conversing import break_off, gateway_stub, opened, resume
from tests.gateway.fakes import (
    RATE,
    FakeAsr,
    FakeDiarizer,
    FakeTranslator,
    FakeVad,
    Mesh,
    running,
    served,
    silence,
    spans_of,
    words_at,
    write_keys,
)
from tests.gateway.listening import listener, mesh_at_port
from tests.settings.flips import Flip, flips, load
from tests.settings.serving import begin_to_stop, serving, until
from voxmesh.asr.v1 import asr_pb2
from voxmesh.foreign.riva import riva_asr_pb2 as riva_pb
from voxmesh.foreign.riva import riva_asr_pb2_grpc as riva_rpc
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

SERVICE = "voxmesh.gateway.v1.GatewayService"
OPEN = pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_LINEAR16))
FINISH = pb.ConverseRequest(finish=pb.Finish())

SOON_S = 4.0
"""Less than any default that a dead setting would leave in force, in seconds."""
AWHILE_S = 0.7
"""Much more than the short one of two values, in seconds."""


# --- the process


@dataclass(frozen=True, slots=True)
class Process:
    """A gateway as it is run, reached at its own addresses."""

    channel: grpc.aio.Channel
    url: str


@asynccontextmanager
async def process(
    monkeypatch: pytest.MonkeyPatch, folder: Path, port: int, **chosen: object
) -> AsyncIterator[Process]:
    """Run a gateway with stages that are there."""
    async with running(FakeVad([]), FakeAsr()) as mesh:
        usual: dict[str, object] = {
            "vad_target": mesh.vad_replica.target,
            "asr_targets": [mesh.asr_replica.target],
            "grpc_address": f"unix:{folder}/gateway.sock",
            "port": port,
        }
        settings = load(Settings, monkeypatch, **(usual | chosen))
        url = f"http://{settings.host}:{settings.port}"
        async with serving(
            gateway_process.main(settings), settings.grpc_address, SERVICE
        ) as channel:
            yield Process(channel, url)


async def answers(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"{url}/health")).is_success
        except httpx.ConnectError:
            return False


async def found_recogniser(url: str) -> None:
    """Wait until the gateway has found out what its recogniser can do."""
    async with asyncio.timeout(10), httpx.AsyncClient(trust_env=False) as client:
        while True:
            if (await client.get(f"{url}/health")).json()["backend"]:
                return
            await asyncio.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has more than one loopback address")
@flips("GATEWAY", host={"127.0.0.1": [True, False], "127.0.0.2": [False, True]})
async def test_the_host_is_the_address_that_clients_connect_to(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unused_tcp_port: int
) -> None:
    async with process(monkeypatch, tmp_path, unused_tcp_port, host=flip.value):
        hosts = ("127.0.0.1", "127.0.0.2")
        found = [await answers(f"http://{host}:{unused_tcp_port}") for host in hosts]
    assert found == flip.effect


@flips("GATEWAY", port={"one": [True, False], "other": [False, True]})
async def test_the_port_is_the_one_that_clients_connect_to(
    flip: Flip,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    unused_tcp_port_factory: Callable[[], int],
) -> None:
    ports = {"one": unused_tcp_port_factory(), "other": unused_tcp_port_factory()}
    async with process(monkeypatch, tmp_path, ports[flip.value]):
        found = [await answers(f"http://127.0.0.1:{port}") for port in ports.values()]
    assert found == flip.effect


@flips("GATEWAY", grpc_address={"one": ["one"], "other": ["other"]})
async def test_the_grpc_address_is_where_grpc_clients_connect_to(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with process(monkeypatch, tmp_path, 0, grpc_address=f"unix:{tmp_path / flip.value}"):
        assert os.listdir(tmp_path) == flip.effect


@flips("GATEWAY", drain_s={0: False, 20: True})
async def test_a_stopping_gateway_lets_sessions_finish_for_as_long_as_it_drains(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unused_tcp_port: int
) -> None:
    async with process(monkeypatch, tmp_path, unused_tcp_port, drain_s=flip.value) as running:
        await found_recogniser(running.url)
        call = rpc.GatewayServiceStub(running.channel).Converse()
        await call.write(OPEN)
        opened = await call.read()
        assert isinstance(opened, pb.ConverseResponse)
        assert opened.HasField("opened")
        await begin_to_stop(running.channel)

        async def read_on() -> None:
            with suppress(grpc.aio.AioRpcError):
                while await call.read() is not grpc.aio.EOF:
                    pass

        rest = asyncio.create_task(read_on())
        await asyncio.wait({rest}, timeout=0.3 if flip.effect else 8)
        assert rest.done() is not flip.effect
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(FINISH)
        await rest
        assert (await call.code() is grpc.StatusCode.OK) is flip.effect


# --- who may connect, and with how much


@asynccontextmanager
async def http(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway behind HTTP; nobody speaks."""
    async with (
        running(FakeVad([]), FakeAsr(), **settings) as mesh,
        served(mesh.gateway) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield client


@flips("GATEWAY", keys_file={"": 200, "keys": 401})
async def test_where_there_are_keys_a_client_must_present_one(flip: Flip, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write_keys(path, {"alice": "secret"})
    async with http(keys_file=str(path) if flip.value else "") as client:
        assert (await client.get("/v1/models")).status_code == flip.effect


@flips("GATEWAY", origins={(): 200, ("https://example.org",): 403})
async def test_where_there_are_origins_pages_of_others_may_not_connect(flip: Flip) -> None:
    async with http(origins=flip.value) as client:
        answer = await client.get("/v1/models", headers={"Origin": "https://example.com"})
    assert answer.status_code == flip.effect


@flips("GATEWAY", max_upload_bytes={1024: 413, 100_000: 200})
async def test_an_upload_of_more_bytes_is_refused(flip: Flip) -> None:
    recording = BytesIO()
    with wave.open(recording, "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(bytes(8000))
    async with http(max_upload_bytes=flip.value) as client:
        answer = await client.post(
            "/v1/audio/transcriptions",
            files={"file": ("a.wav", recording.getvalue())},
            data={"model": "whisper-1"},
        )
    assert answer.status_code == flip.effect


@flips("GATEWAY", fetch_hosts={(): "Bad Request", ("127.0.0.1:1",): "REMOTE_CONTENT_ERROR"})
async def test_urls_are_followed_to_hosts_that_are_listed(flip: Flip) -> None:
    """Nobody listens there."""
    async with http(fetch_hosts=flip.value) as client:
        answer = await client.post("/v1/listen", json={"url": "https://127.0.0.1:1/a.wav"})
    assert (answer.status_code, answer.json()["err_code"]) == (400, flip.effect)


@flips(
    "GATEWAY",
    grpc_max_message_bytes={
        8000: grpc.StatusCode.RESOURCE_EXHAUSTED,
        8 << 20: grpc.StatusCode.INVALID_ARGUMENT,
    },
)
async def test_a_longer_message_is_not_taken(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unused_tcp_port: int
) -> None:
    async with process(
        monkeypatch, tmp_path, unused_tcp_port, grpc_max_message_bytes=flip.value
    ) as gateway:
        await found_recogniser(gateway.url)
        stub = riva_rpc.RivaSpeechRecognitionStub(gateway.channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Recognize(riva_pb.RecognizeRequest(audio=bytes(6 << 20)))
        assert refused.value.code() is flip.effect


# --- a session and its stages


@asynccontextmanager
async def mesh_of(
    *starts_s: float, asr: type[FakeAsr] = FakeAsr, **settings: Any
) -> AsyncIterator[Mesh]:
    """Somebody says a word at these times."""
    said = words_at(*starts_s)
    async with running(FakeVad(spans_of(said)), asr(said), **settings) as mesh:
        yield mesh


@asynccontextmanager
async def session(gateway: Gateway, pace: Pace = Pace.LIVE) -> AsyncIterator[Session]:
    async with gateway.session(SessionConfig("s1", "test", pace=pace)) as opened:
        yield opened


async def outcome(
    gateway: Gateway, duration_s: float, *, pace: Pace = Pace.LIVE, within_s: float = 20
) -> str:
    """What becomes of a session: ``finished``, ``waits`` for longer than that, or an error."""
    try:
        async with asyncio.timeout(within_s), session(gateway, pace) as opened:
            await opened.run(silence(duration_s))
    except TimeoutError:
        return "waits"
    except MeshError as error:
        return error.reason
    return "finished"


def within_s(flip: Flip) -> float:
    """How long to look: a wait shows soon, an end comes soon."""
    return AWHILE_S if flip.effect == "waits" else SOON_S


@flips("GATEWAY", vad_target={"there": True, "nowhere": False})
async def test_the_vad_is_looked_for_at_its_target(flip: Flip, tmp_path: Path) -> None:
    elsewhere: dict[str, Any] = (
        {} if flip.value == "there" else {"vad_target": f"unix:{tmp_path}/nowhere"}
    )
    async with running(FakeVad([]), FakeAsr(), **elsewhere) as mesh:
        assert (await mesh.gateway.ready())["vad"] is flip.effect


@flips("GATEWAY", asr_targets={1: ["one"], 2: ["one", "other"]})
async def test_every_target_is_a_pool_of_recognisers(flip: Flip) -> None:
    async with (
        running(FakeVad([]), FakeAsr(model="one")) as one,
        running(FakeVad([]), FakeAsr(model="other")) as other,
    ):
        targets = (one.asr_replica.target, other.asr_replica.target)[: flip.value]
        async with running(FakeVad([]), FakeAsr(), asr_targets=targets) as mesh:
            assert [info.name for info in mesh.gateway.models()] == flip.effect


@flips("GATEWAY", language={"": "", "fr": "fr"})
async def test_sessions_that_name_no_language_get_the_default(flip: Flip) -> None:
    async with mesh_of(0.5, language=flip.value) as mesh:
        assert await outcome(mesh.gateway, 1) == "finished"
        assert mesh.asr.streams[0].open.config.language_code == flip.effect


@flips("GATEWAY", max_sessions={1: "OVERLOADED", 2: "finished"})
async def test_one_session_more_than_allowed_is_refused(flip: Flip) -> None:
    async with mesh_of(max_sessions=flip.value) as mesh, session(mesh.gateway):
        assert await outcome(mesh.gateway, 0.5) == flip.effect


@flips("GATEWAY", max_session_s={1: "STREAM_TOO_LONG", 4: "finished"})
async def test_a_live_session_may_last_so_long(flip: Flip) -> None:
    async with mesh_of(max_file_s=10, max_session_s=flip.value) as mesh:
        assert await outcome(mesh.gateway, 2) == flip.effect


@flips("GATEWAY", max_file_s={1: "STREAM_TOO_LONG", 4: "finished"})
async def test_a_recording_may_last_so_long(flip: Flip) -> None:
    async with mesh_of(max_session_s=10, max_file_s=flip.value) as mesh:
        assert await outcome(mesh.gateway, 2, pace=Pace.FILE) == flip.effect


@flips("GATEWAY", pre_roll_ms={0: 0, 500: 500})
async def test_the_recogniser_hears_what_goes_before_speech(flip: Flip) -> None:
    start = 64 * 512
    async with mesh_of(pre_roll_ms=flip.value) as mesh:
        mesh.vad.add(start, start + RATE)
        assert await outcome(mesh.gateway, 4) == "finished"
        [(first, _), *_] = mesh.asr.streams[0].audio
    assert start - first == samples_of_ms(flip.effect)


@flips("GATEWAY", ring_s={45: 45.0, 60: 60.0})
async def test_so_much_audio_is_taken_ahead_of_the_stages(flip: Flip) -> None:
    async with mesh_of(ring_s=flip.value) as mesh, session(mesh.gateway) as opened:
        mesh.vad.faults.gate.clear()
        run = asyncio.create_task(opened.run(silence(70)))
        received = opened.transcript
        await until(lambda: received.received_sample >= samples(flip.effect))
        await asyncio.sleep(0.1)  # for more to be taken
        assert seconds(received.received_sample) == flip.effect
        mesh.vad.faults.gate.set()
        await run


class SlowToOpen(FakeAsr):
    """Takes a moment to accept its first stream."""

    async def _open(self, request: asr_pb2.Open, send: Any) -> Any:
        if not self.streams:
            self.streams.append(None)  # type: ignore[arg-type]
            await asyncio.sleep(AWHILE_S)
        return await super()._open(request, send)


@flips("GATEWAY", open_timeout_s={0.1: ["DEGRADED", "RECOVERED"], 20: []})
async def test_a_stage_that_does_not_accept_a_stream_in_time_is_tried_again(flip: Flip) -> None:
    async with (
        mesh_of(0.5, asr=SlowToOpen, open_timeout_s=flip.value) as mesh,
        session(mesh.gateway) as opened,
    ):
        await opened.run(silence(1))
    assert [notice.code for notice in opened.transcript.notices] == flip.effect


@flips("GATEWAY", hedge_s={0.05: [], 60: ["DEGRADED", "RECOVERED"]})
async def test_another_replica_is_asked_when_one_takes_its_time(flip: Flip) -> None:
    """F3."""
    options = {"open_timeout_s": AWHILE_S / 2, "hedge_s": flip.value}
    async with mesh_of(0.5, asr=SlowToOpen, **options) as mesh:
        async with session(mesh.gateway) as opened:
            await opened.run(silence(1))
        await until(lambda: not mesh.asr.live)
    assert [notice.code for notice in opened.transcript.notices] == flip.effect


@flips("GATEWAY", stall_s={0.2: "finished", 600: "waits"})
async def test_a_stage_that_stops_answering_to_live_audio_is_restarted(flip: Flip) -> None:
    async with mesh_of(0.1, file_stall_s=0.2, stall_s=flip.value) as mesh:
        mesh.asr.faults.hangs.add(RATE // 10)
        assert await outcome(mesh.gateway, 1, within_s=within_s(flip)) == flip.effect


@flips("GATEWAY", file_stall_s={0.2: "finished", 600: "waits"})
async def test_a_stage_that_stops_answering_to_a_recording_is_restarted(flip: Flip) -> None:
    async with mesh_of(0.1, stall_s=0.2, file_stall_s=flip.value) as mesh:
        mesh.asr.faults.hangs.add(RATE // 10)
        ended = await outcome(mesh.gateway, 1, pace=Pace.FILE, within_s=within_s(flip))
    assert ended == flip.effect


@flips("GATEWAY", vad_patience_s={0: "finished", 600: "waits"})
async def test_without_the_vad_everything_counts_as_speech_after_a_while(flip: Flip) -> None:
    async with mesh_of(0.1, vad_patience_s=flip.value) as mesh:
        await mesh.vad_replica.kill()
        assert await outcome(mesh.gateway, 1, within_s=within_s(flip)) == flip.effect


@flips("GATEWAY", asr_patience_s={0: "UPSTREAM_FAILED", 600: "waits"})
async def test_without_the_recogniser_a_session_ends_after_a_while(flip: Flip) -> None:
    async with mesh_of(0.1, asr_patience_s=flip.value) as mesh:
        await mesh.asr_replica.kill()
        assert await outcome(mesh.gateway, 1, within_s=within_s(flip)) == flip.effect


# --- a client of /asr


@dataclass
class Client:
    """A WebSocket whose other end is the test."""

    frames: Sequence[bytes] = ()
    taken: int = 0
    """Frames that the gateway has received."""
    said: list[dict[str, Any]] = field(default_factory=list)

    async def receive(self) -> dict[str, Any]:
        self.taken += 1
        if self.taken == 1:
            return {"type": "websocket.connect"}
        if self.taken - 2 < len(self.frames):
            return {"type": "websocket.receive", "bytes": self.frames[self.taken - 2]}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Any) -> None:
        if "text" in message:
            self.said.append(json.loads(message["text"]))

    @property
    def has_been_told_all(self) -> bool:
        return self.said[-1:] == [{"type": "ready_to_stop"}]

    @asynccontextmanager
    async def connected(self, gateway: Gateway) -> AsyncIterator[None]:
        scope: dict[str, Any] = {"type": "websocket", "path": "/asr", "headers": []}
        scope |= {"query_string": b"", "state": {"caller": ""}}
        websocket = WebSocket(scope, self.receive, self.send)
        serve = asyncio.create_task(wlk.serve(websocket, gateway))
        try:
            yield
        finally:
            serve.cancel()
            with suppress(asyncio.CancelledError):
                await serve


@flips("GATEWAY", idle_s={0.1: True, 300: False})
async def test_a_client_that_sends_nothing_for_so_long_has_finished(flip: Flip) -> None:
    client = Client()
    async with mesh_of(idle_s=flip.value) as mesh, client.connected(mesh.gateway):
        with suppress(TimeoutError):
            async with asyncio.timeout(SOON_S if flip.effect else AWHILE_S):
                await until(lambda: client.has_been_told_all)
    assert client.has_been_told_all is flip.effect


@flips("GATEWAY", listen_idle_s={0.1: 1011, 300: None})
async def test_a_client_of_listen_that_sends_nothing_for_so_long_is_disconnected(
    flip: Flip,
) -> None:
    async with mesh_at_port(listen_idle_s=flip.value) as (_, port), listener(port) as client:
        code = None
        with suppress(TimeoutError):
            async with asyncio.timeout(SOON_S if flip.effect else AWHILE_S):
                code, _reason = await client.closed()
    assert code == flip.effect


@flips("GATEWAY", pcm_input={True: True, False: False})
async def test_browsers_are_asked_for_the_audio_that_is_configured(flip: Flip) -> None:
    client = Client()
    async with mesh_of(pcm_input=flip.value) as mesh, client.connected(mesh.gateway):
        await until(lambda: bool(client.said))
    assert client.said[0]["useAudioWorklet"] is flip.effect


@flips("GATEWAY", inbox_bytes={64 * 1024: 1, 1024 * 1024: 16})
async def test_so_much_is_taken_from_a_client_ahead_of_its_session(flip: Flip) -> None:
    frame = bytes(64 * 1024)
    client = Client([frame] * 60)
    async with mesh_of(ring_s=45, inbox_bytes=flip.value) as mesh:
        mesh.vad.faults.gate.clear()
        async with client.connected(mesh.gateway):
            # What the ring takes, what the session and the receiver hold in their hands.
            beyond = -(-samples(45) * 2 // len(frame)) + 1 + 1
            await until(lambda: client.taken >= beyond + flip.effect)
            await asyncio.sleep(0.1)  # for more to be taken
            assert client.taken == beyond + flip.effect


@flips("GATEWAY", max_messages_per_s={1: 3, 100_000: 62})
async def test_a_client_that_sends_too_many_messages_is_read_more_slowly(flip: Flip) -> None:
    """O2."""
    client = Client([bytes(320)] * 60)  # and two more that it is asked for: first, and in vain
    async with mesh_of(max_messages_per_s=flip.value) as mesh, client.connected(mesh.gateway):
        await until(lambda: client.taken >= flip.effect)
        await asyncio.sleep(0.3)  # for more to be taken
        assert client.taken == flip.effect


@flips("GATEWAY", max_sessions_per_key={1: ["alice"], 0: []})
async def test_a_key_that_has_enough_sessions_gets_no_other(flip: Flip) -> None:
    refused = []
    async with gateway_stub(keys={"alice": "a", "bob": "b"}, max_sessions_per_key=flip.value) as (
        _,
        stub,
    ):
        for name in ("alice", "bob", "alice"):
            call = stub.Converse(metadata=(("authorization", f"Bearer {name[0]}"),))
            await call.write(OPEN)
            try:
                await call.read()
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                refused.append(name)
    assert refused == flip.effect


@flips("GATEWAY", resume_s={0.2: False, 60.0: True})
async def test_a_session_waits_so_long_for_its_client_to_return(flip: Flip) -> None:
    async with gateway_stub(resume_s=flip.value) as (_, stub):
        call, first = await opened(stub)
        assert first.resume_within.ToTimedelta().total_seconds() == flip.value
        await break_off(call)
        await asyncio.sleep(0.5)
        again = stub.Converse()
        await again.write(resume(first.resume_token, 0))
        try:
            await again.read()
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
        assert (not again.done()) is flip.effect
        again.cancel()


# --- the diarizer


DIARIZED = SessionConfig("s", "test", language_code="en", diarization=Diarization())


@flips("GATEWAY", diarizer_target={"": [1, 1], "there": [2, 2]})
async def test_the_diarizer_target_is_where_speakers_are_told_apart(flip: Flip) -> None:
    words = words_at(0.5, 1.5)
    diarizer = FakeDiarizer([(2, 0, 3 * RATE)]) if flip.value else None
    async with running(FakeVad(spans_of(words)), FakeAsr(words), diarizer) as mesh:
        async with mesh.gateway.session(DIARIZED) as session:
            await session.run(silence(3))
        assert [word.speaker for word in session.transcript.words] == flip.effect


async def paced(duration_s: float) -> AsyncIterator[bytes]:
    """Audio at ten times the pace of speech."""
    async for block in silence(duration_s):
        yield block
        await asyncio.sleep(0.01)


@flips("GATEWAY", speaker_wait_s={0.1: True, 50.0: False})
async def test_words_wait_so_long_to_be_told_who_said_them(flip: Flip) -> None:
    words = words_at(0.5, 1.5)
    diarizer = FakeDiarizer([(2, 0, 9 * RATE)])
    diarizer.faults.gate.clear()
    mesh = running(
        FakeVad(spans_of(words)), FakeAsr(words), diarizer, speaker_wait_s=flip.value, stall_s=60
    )
    async with mesh as stages, stages.gateway.session(DIARIZED) as session:
        run = asyncio.create_task(session.run(paced(20)))
        await session.changed(
            1_000_000, due=lambda: session.transcript.received_sample >= 15 * RATE
        )
        assert bool(session.transcript.words) == flip.effect
        diarizer.faults.gate.set()
        await run


@flips("GATEWAY", diarizer_patience_s={0.0: False, 50.0: True})
async def test_a_diarizer_that_is_lost_is_waited_for_so_long(flip: Flip) -> None:
    words = words_at(0.5, 1.5, 8.0)
    diarizer = FakeDiarizer([(2, 0, 9 * RATE)])
    diarizer.faults.at_open = [MeshError("refused")] * 3
    mesh = running(
        FakeVad(spans_of(words)), FakeAsr(words), diarizer, diarizer_patience_s=flip.value
    )
    async with mesh as stages, stages.gateway.session(DIARIZED) as session:
        await session.run(paced(20))
    assert (session.transcript.words[-1].speaker == 2) == flip.effect


@flips("GATEWAY", diarize={False: 0, True: 1})
async def test_clients_of_asr_that_say_nothing_of_it_have_their_speakers_told_apart(
    flip: Flip,
) -> None:
    diarizer = FakeDiarizer()
    client = Client([bytes(RATE)])
    mesh = running(FakeVad([]), FakeAsr(), diarizer, diarize=flip.value, idle_s=0.2)
    async with mesh as stages, client.connected(stages.gateway):
        async with asyncio.timeout(SOON_S):
            await until(lambda: client.has_been_told_all)
    assert len(diarizer.opens) == flip.effect


# --- the translator


TRANSLATED = SessionConfig("s", "test", language_code="en", targets=("pt",))


@flips("GATEWAY", translator_target={"": False, "there": True})
async def test_the_translator_target_is_where_words_are_translated(flip: Flip) -> None:
    words = words_at(0.5, 1.5)
    translator = FakeTranslator() if flip.value else None
    async with running(FakeVad(spans_of(words)), FakeAsr(words), None, translator) as mesh:
        with nullcontext() if flip.effect else pytest.raises(InvalidRequestError):
            async with mesh.gateway.session(TRANSLATED) as session:
                await session.run(silence(3))
            [piece] = session.transcript.translations["pt"].pieces
            assert piece.text == " W0 W1"


@flips("GATEWAY", target_language={"": None, "pt": "W0", "de": "W0"})
async def test_sessions_of_asr_that_name_no_language_are_translated_into_this_one(
    flip: Flip,
) -> None:
    words = words_at(0.5)
    translator = FakeTranslator()
    mesh = running(
        FakeVad(spans_of(words)), FakeAsr(words), None, translator, target_language=flip.value
    )
    async with (
        mesh as stages,
        served(stages.gateway) as port,
        connect(f"ws://127.0.0.1:{port}/asr?language=en", proxy=None) as socket,
    ):
        await socket.send(bytes(4 * RATE))
        await socket.send(b"")
        told = [json.loads(await asyncio.wait_for(socket.recv(), 10))]
        while told[-1] != {"type": "ready_to_stop"}:
            told.append(json.loads(await asyncio.wait_for(socket.recv(), 10)))
    assert told[-2]["lines"][0].get("translation") == flip.effect
    assert [opened.target_language_code for opened in translator.opens] == [flip.value] * bool(
        flip.value
    )


def test_a_language_to_translate_into_needs_a_translator() -> None:
    with pytest.raises(ValueError, match="needs a translator"):
        Settings(target_language="pt")


@flips("GATEWAY", translation_wait_s={0.1: False, 50.0: True})
async def test_the_end_of_a_session_waits_so_long_for_its_translation(flip: Flip) -> None:
    words = words_at(0.5)
    translator = FakeTranslator()
    translator.faults.gate.clear()
    mesh = running(
        *(FakeVad(spans_of(words)), FakeAsr(words), None, translator),
        translation_wait_s=flip.value,
        stall_s=60,
    )
    async with mesh as stages, stages.gateway.session(TRANSLATED) as session:
        run = asyncio.create_task(session.run(silence(2)))
        await asyncio.wait((run,), timeout=1)
        assert run.done() is not flip.effect
        translator.faults.gate.set()
        await run
    assert bool(session.transcript.translations["pt"].pieces) == flip.effect
