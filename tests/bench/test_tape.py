"""What is recorded of a session, and that every client hears the same when it is answered again."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.converse import converse
from bench.corpus import BYTES_PER_S, Clip
from bench.replay import Script, replaying
from bench.speakers import SPEAKERS
from bench.tape import ASR, VAD, Answer, Tape, load, recording, save
from tests.bench.serving import gateway_before, scripted
from voxmesh.asr.v1 import asr_pb2
from voxmesh.common.v1 import stage_pb2

CLIP = Clip("clip", bytes(4 * BYTES_PER_S), "", "en")
SAID = (0.5, 1.0, 2.0)


@pytest.fixture
def folders() -> Iterator[tuple[Path, Path]]:
    """Paths of sockets have to be short."""
    with tempfile.TemporaryDirectory(prefix="vm") as one, tempfile.TemporaryDirectory() as other:
        yield Path(one), Path(other)


async def recorded(stages: Path, own: Path) -> Tape:
    async with scripted(stages, *SAID), recording(own, stages) as tape:
        async with gateway_before(own) as mesh:
            assert (await converse(mesh.grpc_target, CLIP, pace=4)).text == " w0 w1 w2"
        return tape()


async def test_whatever_a_client_speaks_it_hears_what_was_recorded(
    folders: tuple[Path, Path],
) -> None:
    tape = await recorded(*folders)
    assert tape.text() == " w0 w1 w2"
    save(tape, folders[0] / "tape.json")
    async with (
        replaying(load(folders[0] / "tape.json"), folders[0]),
        gateway_before(folders[0]) as mesh,
    ):
        speakers = SPEAKERS.values()
        calls = [speak(mesh, CLIP, frame_s) for frame_s in (0.1, 0.02) for speak in speakers]
        for spoken in await asyncio.gather(*calls):
            assert spoken.text.split() == ["w0", "w1", "w2"]


async def test_each_answer_is_kept_with_the_audio_that_the_stage_had_received(
    folders: tuple[Path, Path],
) -> None:
    tape = await recorded(*folders)
    for kind in (VAD, ASR):
        answers = tape.streams[kind.name]
        assert [answers[0].event, answers[-1].event] == ["opened", "finished"]
        assert [answer.sample for answer in answers] == sorted(a.sample for a in answers)
        assert answers[-1].sample == len(CLIP.pcm) // 2
    for answer in tape.streams[ASR.name]:
        if answer.event == "tail":
            tail = asr_pb2.TranscribeResponse.FromString(answer.data).tail
            assert tail.through_sample <= answer.sample


def answer(sample: int, **event: object) -> Answer:
    response = asr_pb2.TranscribeResponse(**event)  # type: ignore[arg-type]
    return Answer(sample, next(iter(event)), response.SerializeToString())


def tail(sample: int, through: int) -> Answer:
    return answer(sample, tail=asr_pb2.Tail(through_sample=through))


def flushed(sample: int, mark: int) -> Answer:
    return answer(sample, flushed=stage_pb2.Flushed(flush_id=mark))


def told(answers: Iterator[bytes]) -> list[int]:
    """Tails by their positions, answers to marks as negative numbers."""
    responses = [asr_pb2.TranscribeResponse.FromString(data) for data in answers]
    return [r.tail.through_sample or -r.flushed.flush_id for r in responses]


def test_answers_come_when_as_much_has_been_received_as_then() -> None:
    script = Script(ASR, [tail(1000, 900), tail(1000, 950), tail(2000, 1900)])
    assert told(script.through(999)) == []
    assert told(script.through(1500)) == [900, 950]
    assert told(script.through(1600)) == []
    assert told(script.through(5000)) == [1900]


def test_a_mark_is_answered_after_what_came_before_it_then() -> None:
    answers = [tail(1000, 900), tail(30_000, 1200), flushed(30_000, 20_000), tail(31_000, 1300)]
    script = Script(ASR, answers)
    assert told(script.through(20_500)) == [900]
    assert told(script.flush(20_500)) == [1200, -20_500]
    assert told(script.through(40_000)) == [1300]


def test_a_mark_that_was_not_asked_for_then_is_answered_at_once() -> None:
    script = Script(ASR, [tail(1000, 900), flushed(30_000, 29_000)])
    assert told(script.flush(2000)) == [-2000]
    assert told(script.through(40_000)) == [900]


def test_all_that_is_left_is_said_at_the_end() -> None:
    script = Script(ASR, [tail(1000, 900), flushed(1000, 800), tail(1100, 1050)])
    *rest, last = script.rest()
    assert told(iter(rest)) == [900, 1050]
    assert asr_pb2.TranscribeResponse.FromString(last).HasField("finished")
