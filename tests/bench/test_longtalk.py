from types import SimpleNamespace
from typing import cast

import pytest

from bench.diarizer_client import Replica, Told
from bench.longtalk import Odometer, Reading, parts, sent
from bench.mixtures import Conversation, SpokenBy
from services.common.audio import pcm_to_float
from services.common.timeline import samples
from voxmesh.common.v1 import stage_pb2
from voxmesh.diarizer.v1 import diarizer_pb2 as pb


def through(at_s: float) -> pb.DiarizeResponse:
    return pb.DiarizeResponse(turns=pb.Turns(through_sample=samples(at_s)))


def checkpoint(num_bytes: int) -> pb.DiarizeResponse:
    return pb.DiarizeResponse(checkpoint=stage_pb2.Checkpoint(state=bytes(num_bytes)))


def test_a_replica_is_read_once_in_each_part() -> None:
    used = iter(range(10))
    diarizer = cast(
        "Replica", SimpleNamespace(cpu_s=lambda: float(next(used)), memory_mb=lambda: 7.0)
    )
    odometer = Odometer(diarizer, 10.0)
    answers = [
        through(9.9),
        checkpoint(50),
        checkpoint(40),
        through(10.1),
        through(19),
        through(20),
    ]
    for answer in answers:
        odometer.answered(answer)
    odometer.end(21.0)
    odometer.end(26.0)
    assert odometer.readings == [
        Reading(0.0, 0.0, 7.0, 0),
        Reading(10.1, 1.0, 7.0, 50),
        Reading(20.0, 2.0, 7.0, 0),
        Reading(26.0, 3.0, 7.0, 0),
    ]


def test_what_is_sent_is_speech_and_what_lies_close_to_it() -> None:
    turns = (SpokenBy(0.1, 1, "ada"), SpokenBy(1.9, 2.5, "grace"), SpokenBy(6, 9.8, "ada"))
    assert sent(turns, 10.0) == [(0.0, pytest.approx(3.2)), (pytest.approx(5.7), 10.0)]


def test_cost_is_that_of_what_was_sent_and_errors_are_by_who_is_who_in_all() -> None:
    truth = (SpokenBy(0, 10, "ada"), SpokenBy(10, 20, "grace"), SpokenBy(20, 25, "ada"))
    said = Conversation("one", pcm_to_float(b""), truth)
    told = (SpokenBy(0, 10, "1"), SpokenBy(10, 20, "2"), SpokenBy(20, 25, "3"))
    readings = [Reading(0, 1.0, 90, 0), Reading(20, 3.0, 91, 800), Reading(25, 4.0, 92, 900)]
    first, last = parts(said, Told(told, (), 0.0), [(0.0, 15.0), (20.0, 25.0)], readings)
    assert (first["cpu_s_per_audio_s"], first["audio_s"]) == (pytest.approx(2 / 15, abs=1e-4), 15)
    assert (first["wrong_percent"], last["wrong_percent"]) == (0, 100)
    assert (first["speakers_told"], last["speakers_told"]) == (2, 3)
    assert (last["memory_mb"], last["checkpoint_bytes"]) == (92, 900)
