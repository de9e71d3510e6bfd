"""An engine that needs no weights, words to say, a replica to call and what it is called with."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc.aio

from services.common.batching import Batcher
from services.common.channel import open_channel
from services.common.errors import DeviceError, InvalidRequestError
from services.common.words import Word, words_to_proto
from services.translator.languages import resolve
from services.translator.policies.local_agreement import LocalAgreement
from services.translator.policies.policy import Policy
from services.translator.servicer import TranslatorServicer
from services.translator.stream import Commit, Event, Stream, Tail
from services.translator.translator import Job, Look, Pair, Translation, Translator
from voxmesh.common.v1 import stage_pb2
from voxmesh.translator.v1 import translator_pb2 as pb
from voxmesh.translator.v1 import translator_pb2_grpc as rpc

EN_PT = Pair(resolve("en"), resolve("pt"))
DRAIN_S = 7.0
WORD = 4000
"""Samples of a word."""
POISON = "poison"
"""A word that breaks the engine without weights."""

Part: TypeAlias = str | None
"""What a stream is given: words for good, and behind a ``|`` those that may change; or a flush."""
Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.TranslateRequest, pb.TranslateResponse]"
FINISH = pb.TranslateRequest(finish=stage_pb2.Finish())


class Shouting:
    """Translates a word by shouting it; of a growing sentence the newest word is whispered."""

    name = "shouting"
    example = EN_PT

    def __init__(self, *, forces_prefix: bool = False) -> None:
        self.forces_prefix = forces_prefix
        self.jobs: list[Job] = []
        self.gate = threading.Event()
        """Cleared: it hangs."""
        self.gate.set()

    def check(self, pair: Pair) -> None:
        if pair.target.tag == "la":
            raise InvalidRequestError("there is no model for it")

    def bucket(self, job: Job) -> int:
        return 0

    def translate(self, jobs: Sequence[Job]) -> list[Translation]:
        self.jobs += jobs
        assert self.gate.wait(20), "the test left the model hanging"
        if any(POISON in job.text for job in jobs):
            raise DeviceError("a bad text")
        return [self._translation(job) for job in jobs]

    def _translation(self, job: Job) -> Translation:
        words = job.text.split()
        said = [word.upper() for word in words]
        if not job.text.endswith((".", "?", "!")):
            said[-1] = said[-1].lower() + "~"
        begun = job.prefix.split()
        text = " ".join([*begun, *said[len(begun) :]])
        ends = [len(" ".join(text.split()[: n + 1])) for n in range(len(text.split()))]
        starts = [match.start() for match in re.finditer(r"\S+", job.text)]
        return Translation(text, tuple(map(Look, ends, starts)))


def pair(said: str) -> Pair:
    """Such as ``en>pt``."""
    source, target = said.split(">")
    return Pair(resolve(source), resolve(target))


class Halves:
    """Says a word with the target's tag behind it, the last one first, from or into English."""

    name = "halves"
    example = EN_PT
    pairs = ("de>en", "fr>en", "en>pt", "en>ja")

    def __init__(self, *, forces_prefix: bool = False, tells: bool = True) -> None:
        self.forces_prefix = forces_prefix
        self.calls: list[list[Job]] = []
        self._tells = tells

    def check(self, pair: Pair) -> None:
        if str(pair) not in self.pairs:
            raise InvalidRequestError(f"there is no model for {pair}, only: {self.pairs}")

    def bucket(self, job: Job) -> int:
        return len(job.text.split())

    def translate(self, jobs: Sequence[Job]) -> list[Translation]:
        assert len({self.bucket(job) for job in jobs}) == 1, "they may not share a call"
        self.calls.append(list(jobs))
        if any(f"{POISON}-{job.pair.target.tag}" in job.text for job in jobs):
            raise DeviceError("a bad text")
        return [self._translation(job) for job in jobs]

    def _translation(self, job: Job) -> Translation:
        self.check(job.pair)
        found = list(re.finditer(r"\S+", job.text))[::-1]
        begun = job.prefix.split()
        said = [*begun, *(f"{word[0]}-{job.pair.target.tag}" for word in found[len(begun) :])]
        ends = [len(" ".join(said[: number + 1])) for number in range(len(found))]
        starts = [match.start() for match in found]
        return Translation(" ".join(said), tuple(map(Look, ends, starts)) if self._tells else ())


def words(text: str, first: int = 0) -> list[Word]:
    """Words of a text, each of one length, one after the other."""
    return [
        Word(f" {word}", (first + n) * WORD, (first + n + 1) * WORD)
        for n, word in enumerate(text.split())
    ]


@asynccontextmanager
async def running(
    translator: Translator, *, workers: int = 1, max_batch: int = 8
) -> AsyncIterator[Batcher[Job, Translation]]:
    batcher = Batcher(
        "translator",
        translator.translate,
        translator.bucket,
        step_s=0.3,
        workers=workers,
        max_batch=max_batch,
    )
    work = asyncio.create_task(batcher.run(), name="batcher")
    try:
        yield batcher
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def tell(
    batcher: Batcher[Job, Translation],
    translator: Translator,
    parts: Iterable[Part],
    *,
    policy: Policy | None = None,
    pair: Pair = EN_PT,
    resumed: Commit | None = None,
    waits: bool = False,
) -> list[Event]:
    """What a stream says of these parts, and at its end."""
    with batcher.seat(live=True, moved=True) as seat:
        stream = Stream(
            translator,
            batcher,
            seat,
            pair,
            policy or LocalAgreement(2, 0),
            state=resumed.state if resumed else None,
            waits=lambda: waits,
        )
        said = resumed.through_sample // WORD if resumed else 0
        events = await stream.start()
        for part in parts:
            if part is None:
                events += await stream.flush()
                continue
            sure, _, tail = part.partition("|")
            certain = words(sure, said)
            said += len(certain)
            events += await stream.hear(certain, words(tail, said))
        return events + await stream.flush()


async def follow(translator: Translator, *parts: Part, policy: Policy | None = None) -> list[Event]:
    async with running(translator) as batcher:
        return await tell(batcher, translator, parts, policy=policy)


def commits(events: Iterable[Event]) -> list[Commit]:
    return [event for event in events if isinstance(event, Commit)]


def text_of(events: Iterable[Event]) -> str:
    """What was committed."""
    return "".join(commit.text for commit in commits(events))


def spans(events: Iterable[Event]) -> list[tuple[int, int]]:
    """The words that each commit translates, by number."""
    return [(one.first_sample // WORD, one.end_sample // WORD) for one in commits(events)]


def tails(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Tail)]


@dataclass(frozen=True, slots=True)
class Replica:
    """A server in this process, and a way to call it."""

    stub: rpc.TranslatorServiceStub
    batcher: Batcher[Job, Translation]
    stopping: asyncio.Event


@asynccontextmanager
async def serving(
    translator: Translator, folder: Path, *, max_streams: int = 100
) -> AsyncIterator[Replica]:
    stopping = asyncio.Event()
    async with running(translator) as batcher:
        servicer = TranslatorServicer(
            translator,
            batcher,
            LocalAgreement(2, 0),
            max_streams=max_streams,
            stopping=stopping,
            drain_s=DRAIN_S,
        )
        server = grpc.aio.server()
        rpc.add_TranslatorServiceServicer_to_server(servicer, server)
        address = f"unix:{folder}/translator.sock"
        server.add_insecure_port(address)
        await server.start()
        async with open_channel(address) as channel:
            yield Replica(rpc.TranslatorServiceStub(channel), batcher, stopping)
        await server.stop(grace=0)


def opening(
    source: str = "en", target: str = "pt", *, checkpoint: stage_pb2.Checkpoint | None = None
) -> pb.TranslateRequest:
    return pb.TranslateRequest(
        open=pb.Open(
            session_id="s1",
            source_language_code=source,
            target_language_code=target,
            checkpoint=checkpoint,
        )
    )


def source(text: str, first: int = 0, *, tail: str = "") -> pb.TranslateRequest:
    certain = words(text, first)
    return pb.TranslateRequest(
        source=pb.Source(
            words=words_to_proto(certain),
            tail=words_to_proto(words(tail, first + len(certain))),
        )
    )


def flush(flush_id: int) -> pb.TranslateRequest:
    return pb.TranslateRequest(flush=stage_pb2.Flush(flush_id=flush_id))


async def converse(
    stub: rpc.TranslatorServiceStub, messages: Iterable[pb.TranslateRequest]
) -> list[pb.TranslateResponse]:
    """Send everything; everything that came back."""
    return [response async for response in stub.Translate(iter(messages))]


async def refusal(
    stub: rpc.TranslatorServiceStub, messages: Iterable[pb.TranslateRequest]
) -> tuple[grpc.StatusCode, str]:
    """Send messages, for the last of which the server ends the stream; how it ended it."""
    call = stub.Translate()
    for message in messages:
        await call.write(message)
    with suppress(grpc.aio.AioRpcError):
        # The status comes after the messages.
        await read_rest(call)
    return await call.code(), await call.details()


async def read(call: Call) -> pb.TranslateResponse:
    """The next message of a stream that has one."""
    response = await call.read()
    assert isinstance(response, pb.TranslateResponse), "the stream ended"
    return response


async def read_rest(call: Call) -> list[pb.TranslateResponse]:
    """What comes until the stream ends."""
    responses = []
    while isinstance(response := await call.read(), pb.TranslateResponse):
        responses.append(response)
    return responses
