"""Scripted services on Unix sockets: they keep the contract and know every answer."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.common.errors import (
    CheckpointError,
    ClientLeftError,
    DeviceError,
    InvalidRequestError,
    MeshError,
    OverloadedError,
)
from services.common.keys import line_of
from services.common.rpc import Metadata, Send, bidi
from services.common.words import Word, words_from_proto, words_to_proto
from services.gateway.app import create_app
from services.gateway.config import Settings
from services.gateway.gateway import Gateway
from services.gateway.http_server import http_server, listen
from tests.gateway.contract import Contract
from voxmesh.asr.v1 import asr_pb2, asr_pb2_grpc
from voxmesh.common.v1 import stage_pb2
from voxmesh.diarizer.v1 import diarizer_pb2, diarizer_pb2_grpc
from voxmesh.translator.v1 import translator_pb2, translator_pb2_grpc
from voxmesh.vad.v1 import vad_pb2, vad_pb2_grpc

WINDOW = 512
RATE = 16_000

Detected = Send[vad_pb2.DetectResponse]
Transcribed = Send[asr_pb2.TranscribeResponse]


class Faults:
    """What goes wrong, when. Positions are samples of received audio."""

    def __init__(self) -> None:
        self.once: dict[int, MeshError | type[Exception]] = {}
        """Raised the first time this position is reached."""
        self.always: dict[int, MeshError] = {}
        """Raised every time this position is reached."""
        self.hangs: set[int] = set()
        """Where the stage falls silent, once each."""
        self.refusals = 0
        """Streams that are refused before one is accepted."""
        self.at_open: list[MeshError | None] = []
        """What becomes of streams before that, one after the other; None: it falls silent."""
        self.gate = asyncio.Event()
        """Cleared: nothing is answered until it is set."""
        self.gate.set()

    async def meet(self, before: int, after: int) -> None:
        """Go through what happens between two positions."""
        for position, error in self.always.items():
            if before < position <= after:
                raise error
        for position in list(self.once):
            if before < position <= after:
                raise self.once.pop(position)
        for position in list(self.hangs):
            if before < position <= after:
                self.hangs.discard(position)
                await asyncio.Event().wait()
        await self.gate.wait()

    async def refuse(self) -> None:
        """Refuse a stream, if that is scripted."""
        if self.at_open:
            if (error := self.at_open.pop(0)) is not None:
                raise error
            await asyncio.Event().wait()
        if self.refusals:
            self.refusals -= 1
            raise OverloadedError("no room")


class Departure:
    """Says ``go_away`` on every stream that is open."""

    def __init__(self) -> None:
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Ask every open stream to go away."""
        self._leaving.set()
        self._leaving = asyncio.Event()

    async def wait(self) -> None:
        """Until streams are to go away."""
        await self._leaving.wait()


class FakeVad(vad_pb2_grpc.VadServiceServicer):
    """Hears speech in the spans it was told of. Its state is its position."""

    def __init__(self, spans: Sequence[tuple[int, int]], *, hangover: int = 8 * WINDOW) -> None:
        self.hangover = hangover
        self.faults = Faults()
        self.departure = Departure()
        self.streams = 0
        self.live = 0
        self.heard_sample = 0
        """The furthest position through which it was sent audio."""
        self.opens: list[vad_pb2.Open] = []
        self.events: list[tuple[int, vad_pb2.DetectResponse]] = []
        for first, end in spans:
            self.add(first, end)

    def add(self, first: int, end: int) -> None:
        """Somebody speaks here."""
        start = first // WINDOW * WINDOW
        stop = -(-end // WINDOW) * WINDOW
        if self.events and self.events[-1][0] > start:
            del self.events[-1]
        else:
            started = vad_pb2.SpeechStarted(first_sample=start)
            self.events.append((start + WINDOW, vad_pb2.DetectResponse(started=started)))
        ended = vad_pb2.SpeechEnded(end_sample=stop)
        self.events.append((stop + self.hangover, vad_pb2.DetectResponse(ended=ended)))

    @bidi
    async def Detect(  # noqa: N802 -- the contract's name
        self, requests: AsyncIterator[vad_pb2.DetectRequest], send: Detected, _metadata: Metadata
    ) -> None:
        self.streams += 1
        self.live += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                leave = tasks.create_task(self._leave(send))
                await self._serve(requests, send)
                leave.cancel()
        finally:
            self.live -= 1

    async def _leave(self, send: Detected) -> None:
        await self.departure.wait()
        await send(vad_pb2.DetectResponse(go_away=stage_pb2.GoAway()))

    async def _serve(self, requests: AsyncIterator[vad_pb2.DetectRequest], send: Detected) -> None:
        end = through = saved = 0
        finished = False
        async for request in requests:
            match request.WhichOneof("payload"):
                case "open":
                    await self.faults.refuse()
                    self.opens.append(request.open)
                    end = through = saved = request.open.first_sample
                    await send(vad_pb2.DetectResponse(opened=vad_pb2.Opened()))
                    continue
                case "audio":
                    _check(request.audio.first_sample, end)
                    before, end = end, end + len(request.audio.pcm) // 2
                    await self.faults.meet(before, end)
                    self.heard_sample = max(self.heard_sample, end)
                    through = await self._hear(through, end // WINDOW * WINDOW, send)
                case "flush":
                    await self._heard(end, send)
                    flushed = stage_pb2.Flushed(flush_id=request.flush.flush_id)
                    await send(vad_pb2.DetectResponse(flushed=flushed))
                case "finish":
                    finished = True
                    break
            if through - saved >= RATE:
                saved = through
                checkpoint = stage_pb2.Checkpoint(
                    format="fake/1", replay_from_sample=through, through_sample=through
                )
                await send(vad_pb2.DetectResponse(checkpoint=checkpoint))
        if not finished:
            raise ClientLeftError
        await self._hear(through, end, send)
        await send(vad_pb2.DetectResponse(finished=stage_pb2.Finished()))

    async def _hear(self, before: int, after: int, send: Detected) -> int:
        for position, event in self.events:
            if before < position <= after:
                await send(event)
        await self._heard(after, send)
        return after

    async def _heard(self, through: int, send: Detected) -> None:
        heard = vad_pb2.Heard(through_sample=through, settled_through_sample=through)
        await send(vad_pb2.DetectResponse(heard=heard))


@dataclass
class Heard:
    """What one stream of the recogniser was sent."""

    open: asr_pb2.Open
    format: str
    audio: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    flushes: list[int] = field(default_factory=list)
    committed: int = 0
    finished: bool = False

    @property
    def end(self) -> int:
        """Position after everything sent."""
        return max((end for _, end in (*self.audio, *self.gaps)), default=self.open.first_sample)

    def covers(self, word: Word) -> bool:
        """Whether all of a word was heard."""
        return any(a <= word.first_sample and word.end_sample <= b for a, b in self.audio)


class FakeAsr(asr_pb2_grpc.AsrServiceServicer):
    """Recognises the words it was told of, where it heard all of them.

    Words are certain a second after their end, or when a flush comes.
    """

    certain_after = RATE

    def __init__(
        self,
        words: Sequence[Word] = (),
        *,
        model: str = "fake",
        tasks: "Sequence[asr_pb2.Task.ValueType]" = (asr_pb2.TASK_TRANSCRIBE,),
        languages: Sequence[str] = ("en", "fr"),
        speak: Callable[[str, Word], str] = lambda _language, word: word.text,
    ) -> None:
        self.words = list(words)
        self.model = model
        self.tasks = tasks
        self.languages = languages
        self.speak = speak
        self.format = "fake/1"
        self.faults = Faults()
        self.departure = Departure()
        self.streams: list[Heard] = []
        self.live = 0

    async def Describe(  # noqa: N802 -- the contract's name
        self, request: asr_pb2.DescribeRequest, context: object
    ) -> asr_pb2.DescribeResponse:
        return asr_pb2.DescribeResponse(
            model=self.model,
            engine="fake/cpu",
            language_codes=self.languages,
            tasks=self.tasks,
            max_streams=100,
        )

    @bidi
    async def Transcribe(  # noqa: N802 -- the contract's name
        self,
        requests: AsyncIterator[asr_pb2.TranscribeRequest],
        send: Transcribed,
        _metadata: Metadata,
    ) -> None:
        self.live += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                leave = tasks.create_task(self._leave(send))
                await self._serve(requests, send)
                leave.cancel()
        finally:
            self.live -= 1

    async def _leave(self, send: Transcribed) -> None:
        await self.departure.wait()
        await send(asr_pb2.TranscribeResponse(go_away=stage_pb2.GoAway()))

    async def _serve(
        self, requests: AsyncIterator[asr_pb2.TranscribeRequest], send: Transcribed
    ) -> None:
        heard: Heard | None = None
        async for request in requests:
            if request.WhichOneof("payload") == "open":
                await self.faults.refuse()
                heard = await self._open(request.open, send)
                continue
            assert heard is not None
            match request.WhichOneof("payload"):
                case "audio":
                    first, end = _grow(
                        heard.audio,
                        heard.end,
                        request.audio.first_sample,
                        len(request.audio.pcm) // 2,
                    )
                    await self.faults.meet(first, end)
                    await self._answer(heard, end - self.certain_after, send)
                case "gap":
                    gap = request.gap
                    _grow(heard.gaps, heard.end, gap.first_sample, gap.num_samples)
                case "flush":
                    heard.flushes.append(request.flush.flush_id)
                    await self.faults.gate.wait()
                    await self._answer(heard, heard.end, send)
                    flushed = stage_pb2.Flushed(flush_id=request.flush.flush_id)
                    await send(asr_pb2.TranscribeResponse(flushed=flushed))
                case "finish":
                    heard.finished = True
                    break
        if heard is None or not heard.finished:
            raise ClientLeftError
        await self.faults.gate.wait()
        await self._answer(heard, heard.end, send)
        await send(asr_pb2.TranscribeResponse(finished=stage_pb2.Finished()))

    async def _open(self, request: asr_pb2.Open, send: Transcribed) -> Heard:
        heard = Heard(request, self.format)
        if request.HasField("checkpoint"):
            if request.checkpoint.format != self.format:
                raise CheckpointError("another engine wrote it")
            if request.first_sample != request.checkpoint.replay_from_sample:
                raise InvalidRequestError("wrong place to resume")
            heard.committed = json.loads(request.checkpoint.state)
        else:
            heard.committed = sum(w.first_sample < request.first_sample for w in self.words)
        self.streams.append(heard)
        await send(asr_pb2.TranscribeResponse(opened=asr_pb2.Opened(model=self.model)))
        return heard

    async def _answer(self, heard: Heard, certain: int, send: Transcribed) -> None:
        known = [w for w in self.words[heard.committed :] if w.end_sample <= heard.end]
        due = [word for word in known if word.end_sample <= certain]
        if due:
            heard.committed += len(due)
            checkpoint = stage_pb2.Checkpoint(
                format=heard.format,
                replay_from_sample=max(due[-1].end_sample, heard.open.first_sample),
                through_sample=heard.end,
                state=json.dumps(heard.committed).encode(),
            )
            words = self._spoken(heard, due)
            if words:
                commit = asr_pb2.Commit(words=words_to_proto(words), checkpoint=checkpoint)
                await send(asr_pb2.TranscribeResponse(commit=commit))
            else:
                await send(asr_pb2.TranscribeResponse(checkpoint=checkpoint))
        resumed = heard.open.checkpoint.through_sample
        if heard.end >= resumed:
            tail = asr_pb2.Tail(
                words=words_to_proto(self._spoken(heard, known[len(due) :])),
                through_sample=heard.end,
            )
            await send(asr_pb2.TranscribeResponse(tail=tail))

    def _spoken(self, heard: Heard, words: Sequence[Word]) -> list[Word]:
        language = heard.open.config.language_code
        return [
            Word(self.speak(language, word), word.first_sample, word.end_sample)
            for word in words
            if heard.covers(word)
        ]


class FakeDiarizer(diarizer_pb2_grpc.DiarizerServiceServicer):
    """Hears the turns it was told of, where it heard their audio. Its state is its position.

    What is older than a second is settled, and with a flush everything is.
    """

    settled_after = RATE

    def __init__(self, turns: Sequence[tuple[int, int, int]] = ()) -> None:
        self.turns = list(turns)
        """Speaker, first and end sample of each."""
        self.faults = Faults()
        self.departure = Departure()
        self.live = 0
        self.left = asyncio.Event()
        """Set when a stream has ended."""
        self.opens: list[diarizer_pb2.Open] = []

    @bidi
    async def Diarize(  # noqa: N802 -- the contract's name
        self,
        requests: AsyncIterator[diarizer_pb2.DiarizeRequest],
        send: Send[diarizer_pb2.DiarizeResponse],
        _metadata: Metadata,
    ) -> None:
        self.live += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                leave = tasks.create_task(self._leave(send))
                await self._serve(requests, send)
                leave.cancel()
        finally:
            self.live -= 1
            self.left.set()

    async def _leave(self, send: Send[diarizer_pb2.DiarizeResponse]) -> None:
        await self.departure.wait()
        await send(diarizer_pb2.DiarizeResponse(go_away=stage_pb2.GoAway()))

    async def _serve(
        self,
        requests: AsyncIterator[diarizer_pb2.DiarizeRequest],
        send: Send[diarizer_pb2.DiarizeResponse],
    ) -> None:
        end = settled = saved = 0
        finished = False
        async for request in requests:
            match request.WhichOneof("payload"):
                case "open":
                    await self.faults.refuse()
                    self.opens.append(request.open)
                    end = settled = saved = request.open.first_sample
                    await send(diarizer_pb2.DiarizeResponse(opened=diarizer_pb2.Opened()))
                    continue
                case "audio":
                    _check(request.audio.first_sample, end)
                    before, end = end, end + len(request.audio.pcm) // 2
                    await self.faults.meet(before, end)
                    settled = await self._tell(settled, end, end - self.settled_after, send)
                case "gap":
                    _check(request.gap.first_sample, end)
                    end += request.gap.num_samples
                case "flush":
                    await self.faults.gate.wait()
                    settled = await self._tell(settled, end, end, send)
                    flushed = stage_pb2.Flushed(flush_id=request.flush.flush_id)
                    await send(diarizer_pb2.DiarizeResponse(flushed=flushed))
                case "finish":
                    finished = True
                    break
            if settled - saved >= 2 * RATE:
                saved = settled
                checkpoint = stage_pb2.Checkpoint(
                    format="fake/1", replay_from_sample=settled, through_sample=settled
                )
                await send(diarizer_pb2.DiarizeResponse(checkpoint=checkpoint))
        if not finished:
            raise ClientLeftError
        await self.faults.gate.wait()
        await self._tell(settled, end, end, send)
        await send(diarizer_pb2.DiarizeResponse(finished=stage_pb2.Finished()))

    async def _tell(
        self, first: int, end: int, settled: int, send: Send[diarizer_pb2.DiarizeResponse]
    ) -> int:
        settled = max(first, settled)
        told = [
            diarizer_pb2.Turn(
                speaker=speaker, first_sample=max(first, begin), end_sample=min(end, stop)
            )
            for speaker, begin, stop in self.turns
            if max(first, begin) < min(end, stop)
        ]
        turns = diarizer_pb2.Turns(
            turns=told, first_sample=first, through_sample=end, settled_sample=settled
        )
        await send(diarizer_pb2.DiarizeResponse(turns=turns))
        return settled


class FakeTranslator(translator_pb2_grpc.TranslatorServiceServicer):
    """Shouts: commits a sentence when it ends, and shows the rest as its tail.

    There is a checkpoint with every sentence, so its state is its position. Positions of faults are
    ends of words.
    """

    def __init__(self, *, languages: Sequence[str] = ("pt", "de")) -> None:
        self.languages = languages
        self.faults = Faults()
        self.departure = Departure()
        self.opens: list[translator_pb2.Open] = []
        self.sources: list[translator_pb2.Source] = []
        self.flushes = 0
        self.live = 0
        self.format = "fake/1"

    @bidi
    async def Translate(  # noqa: N802 -- the contract's name
        self,
        requests: AsyncIterator[translator_pb2.TranslateRequest],
        send: Send[translator_pb2.TranslateResponse],
        _metadata: Metadata,
    ) -> None:
        self.live += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                leave = tasks.create_task(self._leave(send))
                await self._serve(requests, send)
                leave.cancel()
        finally:
            self.live -= 1

    async def _leave(self, send: Send[translator_pb2.TranslateResponse]) -> None:
        await self.departure.wait()
        await send(translator_pb2.TranslateResponse(go_away=stage_pb2.GoAway()))

    async def _serve(
        self,
        requests: AsyncIterator[translator_pb2.TranslateRequest],
        send: Send[translator_pb2.TranslateResponse],
    ) -> None:
        waiting: list[Word] = []
        end = 0
        finished = False
        async for request in requests:
            match request.WhichOneof("payload"):
                case "open":
                    end = await self._open(request.open, send)
                case "source":
                    self.sources.append(request.source)
                    for word in words_from_proto(request.source.words):
                        assert word.end_sample > end, "a word is said twice"
                        await self.faults.meet(end, word.end_sample)
                        end = word.end_sample
                        waiting.append(word)
                        if word.text.endswith("."):
                            await self._commit(waiting, end, send)
                    tail = "".join(word.text for word in waiting).lower()
                    told = translator_pb2.Tail(text=tail, through_sample=end)
                    await send(translator_pb2.TranslateResponse(tail=told))
                case "flush":
                    self.flushes += 1
                    await self.faults.gate.wait()
                    await self._commit(waiting, end, send)
                    flushed = stage_pb2.Flushed(flush_id=request.flush.flush_id)
                    await send(translator_pb2.TranslateResponse(flushed=flushed))
                case "finish":
                    finished = True
                    break
        if not finished:
            raise ClientLeftError
        await self.faults.gate.wait()
        await self._commit(waiting, end, send)
        await send(translator_pb2.TranslateResponse(finished=stage_pb2.Finished()))

    async def _open(
        self, wanted: translator_pb2.Open, send: Send[translator_pb2.TranslateResponse]
    ) -> int:
        await self.faults.refuse()
        if wanted.target_language_code not in self.languages:
            raise InvalidRequestError(f"no such language; there are {', '.join(self.languages)}")
        self.opens.append(wanted)
        if wanted.HasField("checkpoint") and wanted.checkpoint.format != self.format:
            raise CheckpointError("the checkpoint is another engine's")
        await send(translator_pb2.TranslateResponse(opened=translator_pb2.Opened()))
        return wanted.checkpoint.through_sample

    async def _commit(
        self, waiting: list[Word], end: int, send: Send[translator_pb2.TranslateResponse]
    ) -> None:
        if not waiting:
            return
        said = list(waiting)
        waiting.clear()
        await send(
            translator_pb2.TranslateResponse(
                commit=translator_pb2.Commit(
                    text="".join(word.text for word in said).upper(),
                    first_sample=said[0].first_sample,
                    end_sample=said[-1].end_sample,
                    checkpoint=stage_pb2.Checkpoint(
                        format=self.format,
                        replay_from_sample=end,
                        through_sample=end,
                    ),
                )
            )
        )


def _check(first_sample: int, expected: int) -> None:
    if first_sample != expected:
        raise InvalidRequestError(f"a hole: expected {expected}, got {first_sample}")


def _grow(
    spans: list[tuple[int, int]], end: int, first_sample: int, num_samples: int
) -> tuple[int, int]:
    _check(first_sample, end)
    after = first_sample + num_samples
    if spans and spans[-1][1] == first_sample:
        spans[-1] = (spans[-1][0], after)
    else:
        spans.append((first_sample, after))
    return first_sample, after


class Replica:
    """A server that can be killed and started again at the same address."""

    def __init__(self, path: Path, add: Callable[[grpc.aio.Server], None], name: str) -> None:
        self.target = f"unix:{path}"
        self._add = add
        self._name = name
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = grpc.aio.server()
        self._add(self._server)
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, self._server)
        await checks.set(self._name, health_pb2.HealthCheckResponse.SERVING)
        self._server.add_insecure_port(self.target)
        await self._server.start()

    async def kill(self) -> None:
        """Drop every stream at once."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None


@dataclass
class Mesh:
    """Stages that run, and a gateway in front of them."""

    gateway: Gateway
    vad: FakeVad
    asr: FakeAsr
    vad_replica: Replica
    asr_replica: Replica
    diarizer_replica: Replica | None = None
    translator_replica: Replica | None = None


def write_keys(path: Path, keys: Mapping[str, str]) -> Path:
    """Write the file in which a gateway finds the hashes of keys, given their names."""
    path.write_text("\n".join(line_of(name, key) for name, key in keys.items()))
    return path


@asynccontextmanager
async def running(
    vad: FakeVad,
    asr: FakeAsr,
    diarizer: FakeDiarizer | None = None,
    translator: FakeTranslator | None = None,
    *,
    keys: Mapping[str, str] | None = None,
    **settings: object,
) -> AsyncIterator[Mesh]:
    """Run a mesh.

    Args:
        vad: Its VAD.
        asr: Its recogniser.
        diarizer: Its diarizer; None: it has none.
        translator: Its translator; None: it has none.
        keys: Names and keys of who may connect; None: everybody.
        settings: The gateway's, where the test needs other than the default.

    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vm")))
        if keys is not None:
            settings["keys_file"] = str(write_keys(folder / "keys", keys))
        vad_replica = Replica(
            folder / "vad",
            lambda server: vad_pb2_grpc.add_VadServiceServicer_to_server(vad, server),
            "voxmesh.vad.v1.VadService",
        )
        asr_replica = Replica(
            folder / "asr",
            lambda server: asr_pb2_grpc.add_AsrServiceServicer_to_server(asr, server),
            "voxmesh.asr.v1.AsrService",
        )
        replicas = [vad_replica, asr_replica]
        diarizer_replica = None
        if diarizer is not None:
            heard_by = diarizer
            diarizer_replica = Replica(
                folder / "diarizer",
                lambda server: diarizer_pb2_grpc.add_DiarizerServiceServicer_to_server(
                    heard_by, server
                ),
                "voxmesh.diarizer.v1.DiarizerService",
            )
            replicas.append(diarizer_replica)
            settings["diarizer_target"] = diarizer_replica.target
        translator_replica = None
        if translator is not None:
            read_by = translator
            translator_replica = Replica(
                folder / "translator",
                lambda server: translator_pb2_grpc.add_TranslatorServiceServicer_to_server(
                    read_by, server
                ),
                "voxmesh.translator.v1.TranslatorService",
            )
            replicas.append(translator_replica)
            settings["translator_target"] = translator_replica.target
        for replica in replicas:
            await replica.start()
            stack.push_async_callback(replica.kill)
        gateway = Gateway(
            Settings.model_validate(
                {
                    "vad_target": vad_replica.target,
                    "asr_targets": (asr_replica.target,),
                    "port": 0,
                    **settings,
                }
            )
        )
        stack.push_async_callback(gateway.close)
        await gateway.pools.describe()
        upkeep = asyncio.create_task(gateway.run())
        stack.push_async_callback(_cancelled, upkeep)
        yield Mesh(
            gateway, vad, asr, vad_replica, asr_replica, diarizer_replica, translator_replica
        )


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def served(gateway: Gateway) -> AsyncIterator[int]:
    """Serve HTTP and WebSockets on a loopback port; nothing is said that no document has."""
    contract = Contract(create_app(gateway))
    server = http_server(contract)
    listener = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
    assert not contract.faults, contract.faults


def words_at(*seconds: float, length_s: float = 0.4) -> list[Word]:
    """Words `` w0``, `` w1`` ... that start at these times."""
    return [
        Word(f" w{index}", round(at * RATE), round((at + length_s) * RATE))
        for index, at in enumerate(seconds)
    ]


def spans_of(words: Sequence[Word], *, around_s: float = 0.05) -> list[tuple[int, int]]:
    """Speech where the words are."""
    around = round(around_s * RATE)
    return [(max(0, word.first_sample - around), word.end_sample + around) for word in words]


async def silence(duration_s: float, *, block_s: float = 0.1) -> AsyncIterator[bytes]:
    """Audio of a length; the fakes do not listen to what is in it."""
    left = round(duration_s * RATE)
    while left > 0:
        block = min(left, round(block_s * RATE))
        left -= block
        yield bytes(2 * block)


DEVICE_FAILED = DeviceError("the model failed")
