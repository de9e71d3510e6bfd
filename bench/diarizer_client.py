"""The diarizer service as benches use it: a replica of its own, and conversations sent to it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import psutil

from bench.mixtures import Conversation, SpokenBy
from services.common.audio import float_to_pcm
from services.common.channel import open_channel, serves
from services.common.timeline import SAMPLE_RATE_HZ, samples, seconds
from voxmesh.common.v1 import audio_pb2, stage_pb2
from voxmesh.diarizer.v1 import diarizer_pb2 as pb
from voxmesh.diarizer.v1 import diarizer_pb2_grpc as rpc

_MESSAGE_SAMPLES = samples(0.1)
_READY_TRIES = 100


@dataclass(frozen=True, slots=True)
class Told:
    """What was said of a conversation."""

    turns: tuple[SpokenBy, ...]
    """What was decided."""
    first_told: tuple[tuple[float, SpokenBy], ...]
    """How much audio there was when something was said of a stretch, decided or not."""
    cpu_s: float
    messages: tuple[pb.Turns, ...] = ()
    """All that was said, in its order."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica of the service."""

    stub: rpc.DiarizerServiceStub
    process: psutil.Process

    def cpu_s(self) -> float:
        """CPU time that it has used so far, in seconds."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def memory_mb(self) -> float:
        """Memory that is resident for it and for no other."""
        return round(self.process.memory_full_info().uss / 1e6, 1)


@asynccontextmanager
async def replica(settings: Sequence[str]) -> AsyncIterator[Replica]:
    """Run a replica on one core for the length of the ``async with`` block.

    Args:
        settings: Its settings, each as ``NAME=VALUE``.

    Raises:
        TimeoutError: It was not ready in time.

    """
    with _running(settings) as (target, process):
        async with open_channel(target) as channel:
            for _ in range(_READY_TRIES):
                if await serves(channel, "", timeout_s=1):
                    break
                await asyncio.sleep(0.2)
            else:
                raise TimeoutError("the diarizer was not ready in time")
            yield Replica(rpc.DiarizerServiceStub(channel), process)


@contextmanager
def _running(settings: Sequence[str]) -> Iterator[tuple[str, psutil.Process]]:
    with TemporaryDirectory(prefix="vm") as folder:
        address = f"unix:{folder}/diarizer"
        chosen = dict(setting.split("=", 1) for setting in settings)
        environment = os.environ | {"DIARIZER_ADDRESS": address, "DIARIZER_WORKERS": "1"} | chosen
        command = (sys.executable, "-m", "services.diarizer")
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as child:
            try:
                yield address, psutil.Process(child.pid)
            finally:
                child.terminate()


async def tell(
    diarizer: Replica,
    said: Conversation,
    latency_s: float,
    *,
    heard: Sequence[tuple[int, int]] | None = None,
    answered: Callable[[pb.DiarizeResponse], None] = lambda _: None,
) -> Told:
    """Have a conversation told apart, as fast as the replica takes it.

    Args:
        diarizer: Who tells.
        said: The conversation.
        latency_s: How long a turn may stay undecided.
        heard: Stretches that are sent, in samples; the rest is said to be left out. None: all is
            sent.
        answered: Called with every answer.

    """

    async def requests() -> AsyncIterator[pb.DiarizeRequest]:
        config = pb.DiarizeConfig()
        config.max_latency.FromMilliseconds(round(1000 * latency_s))
        yield pb.DiarizeRequest(open=pb.Open(session_id="bench", config=config))
        for request in _pieces(said, [(0, len(said.audio))] if heard is None else heard):
            yield request
        yield pb.DiarizeRequest(finish=stage_pb2.Finish())

    messages: list[pb.Turns] = []
    before_s = diarizer.cpu_s()
    timeout_s = 20 * len(said.audio) / SAMPLE_RATE_HZ
    async for response in diarizer.stub.Diarize(requests(), timeout=timeout_s):
        if response.HasField("turns"):
            messages.append(response.turns)
        answered(response)
    return told(messages, diarizer.cpu_s() - before_s)


def _pieces(said: Conversation, heard: Sequence[tuple[int, int]]) -> Iterator[pb.DiarizeRequest]:
    at = 0
    for first, end in [*heard, (len(said.audio), len(said.audio))]:
        if first > at:
            gap = audio_pb2.Gap(first_sample=at, num_samples=first - at)
            yield pb.DiarizeRequest(gap=gap)
        for begin in range(first, end, _MESSAGE_SAMPLES):
            pcm = float_to_pcm(said.audio[begin : min(begin + _MESSAGE_SAMPLES, end)])
            yield pb.DiarizeRequest(audio=audio_pb2.AudioFrame(first_sample=begin, pcm=pcm))
        at = end


def told(messages: Sequence[pb.Turns], cpu_s: float) -> Told:
    """What messages say."""
    decided: list[SpokenBy] = []
    first_told: list[tuple[float, SpokenBy]] = []
    for turns in messages:
        settled_s = seconds(turns.settled_sample)
        for turn in turns.turns:
            said = SpokenBy(seconds(turn.first_sample), seconds(turn.end_sample), str(turn.speaker))
            first_told.append((seconds(turns.through_sample), said))
            if said.start_s < settled_s:
                decided.append(replace(said, end_s=min(said.end_s, settled_s)))
    return Told(tuple(_joined(decided)), tuple(first_told), cpu_s, tuple(messages))


def _joined(turns: Sequence[SpokenBy]) -> Iterator[SpokenBy]:
    """Turns that go on where they were cut made one."""
    last: dict[str, SpokenBy] = {}
    for turn in turns:
        before = last.get(turn.speaker)
        if before is not None and turn.start_s <= before.end_s:
            last[turn.speaker] = replace(before, end_s=turn.end_s)
            continue
        if before is not None:
            yield before
        last[turn.speaker] = turn
    yield from last.values()
