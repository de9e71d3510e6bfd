"""Whatever bytes a stage is sent, it says what is wrong with them, or goes on as a stream does."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from math import inf, nan
from pathlib import Path
from typing import TypeAlias

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.asr import checkpoint as asr_checkpoint
from services.asr.checkpoint import State
from services.asr.transcriber import Transcriber
from services.asr.wire import checkpoint_to_proto
from services.common.errors import CheckpointError
from services.common.sealed import seal
from services.common.timeline import samples
from services.common.words import Word
from services.diarizer import checkpoint as diarizer_checkpoint
from services.translator import checkpoint as translator_checkpoint
from services.translator.draft import Draft
from services.translator.policies.align_att import AlignAtt
from services.translator.policies.local_agreement import LocalAgreement
from services.translator.policies.policy import Hypothesis, Policy
from services.translator.policies.wait_k import WaitK
from services.translator.policies.whole_sentence import WholeSentence
from services.translator.stream import Commit, Event
from services.translator.wire import event_to_proto
from services.vad import checkpoint as vad_checkpoint
from services.vad.detector import WINDOW_SAMPLES
from services.vad.endpointer import Endpointer, EndpointerState
from tests.asr import replica as asr
from tests.asr.harness import LIVE, STEP, ScriptedRecognizer
from tests.diarizer import harness as diarizer
from tests.diarizer.harness import FRAME, LevelDiarizer, LevelMemory
from tests.robustness.broken import broken, json_values, times
from tests.translator import harness as translator
from tests.vad import harness as vad
from voxmesh.asr.v1 import asr_pb2
from voxmesh.common.v1 import stage_pb2, text_pb2
from voxmesh.diarizer.v1 import diarizer_pb2
from voxmesh.translator.v1 import translator_pb2
from voxmesh.vad.v1 import vad_pb2

Serving: TypeAlias = AbstractAsyncContextManager[object]

TYPED = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
    }
)

# Checkpoints

HEARD = State(
    samples(2),
    samples(5),
    samples(1),
    (Word(" a", samples(2), samples(3), 0.5, (1, 2)),),
    ((Word(" b", samples(3), samples(4)),),),
    (7, 8),
    "en",
)
KEPT = asr_checkpoint.encode(HEARD)
FIELDS = json.loads(KEPT[4:])


@given(broken(KEPT, vad_checkpoint.encode(EndpointerState(0, 0), np.zeros(8, np.float32))))
def test_a_damaged_or_foreign_checkpoint_of_the_recogniser_is_refused(data: bytes) -> None:
    if data != KEPT:
        with pytest.raises(CheckpointError):
            asr_checkpoint.decode(data)


def other_fields() -> st.SearchStrategy[dict[str, object]]:
    """A checkpoint's fields, of which some are others."""
    word = st.fixed_dictionaries(
        {"text": st.just(" a"), "first_sample": st.just(0), "end_sample": st.just(9)},
        optional={"probability": json_values(), "token_ids": st.lists(st.integers(-1, 1 << 33))},
    )
    changed = json_values() | word | st.lists(word | json_values(), max_size=2)
    return st.dictionaries(st.sampled_from(sorted(FIELDS)), changed, max_size=3)


@times(3)
@given(changes=other_fields(), said=st.integers(0, 3))
def test_a_recogniser_goes_on_from_whatever_it_does_not_refuse(
    changes: dict[str, object], said: int
) -> None:
    try:
        state = asr_checkpoint.decode(seal(FIELDS | changes))
    except CheckpointError:
        return
    first = state.window_first_sample
    transcriber = Transcriber(LIVE, first_sample=first, state=state)
    transcriber.push(first, np.zeros(samples(4), np.float32))
    transcriber.skip(first + samples(4), samples(said))
    transcriber.flush(1)
    transcriber.finish()
    while (step := transcriber.next_step(STEP)) is not None:
        heard = ScriptedRecognizer([]).recognize([step.window])[0] if step.window else None
        transcriber.complete(step, heard)
    checkpoint_to_proto(transcriber.state, "f").SerializeToString()


@given(broken(vad_checkpoint.encode(EndpointerState(9, 9), np.ones(8, np.float32)), KEPT))
def test_a_damaged_or_foreign_checkpoint_of_the_vad_is_refused(data: bytes) -> None:
    if data != vad_checkpoint.encode(EndpointerState(9, 9), np.ones(8, np.float32)):
        with pytest.raises(CheckpointError):
            vad_checkpoint.decode(data, 8)


SPOKEN = diarizer_checkpoint.State(0, FRAME * 8, LevelMemory((1, 2), FRAME))


@given(broken(diarizer_checkpoint.encode(SPOKEN), KEPT))
def test_a_damaged_or_foreign_checkpoint_of_the_diarizer_is_refused(data: bytes) -> None:
    if data != diarizer_checkpoint.encode(SPOKEN):
        with pytest.raises(CheckpointError):
            diarizer_checkpoint.decode(data, LevelDiarizer())


WRITTEN = translator_checkpoint.State(
    Draft(
        tuple(translator.words("one two three")),
        1,
        (" UM",),
        (Hypothesis(2, (" UM", " DOIS"), (0, 1)),),
    ),
    3 * translator.WORD,
)
DRAFTED = translator_checkpoint.encode(WRITTEN)


@given(broken(DRAFTED, KEPT))
def test_a_damaged_or_foreign_checkpoint_of_the_translator_is_refused(data: bytes) -> None:
    if data != DRAFTED:
        with pytest.raises(CheckpointError):
            translator_checkpoint.decode(data)


def other_drafts() -> st.SearchStrategy[dict[str, object]]:
    """Fields of a translator's checkpoint that are others."""
    place = st.integers(-1, 3 * translator.WORD)
    word = st.tuples(st.sampled_from([" a", " ", ".", ""]), place, place)
    hypothesis = st.tuples(
        st.integers(-1, 4), st.lists(st.sampled_from([" A", ""])), st.lists(st.integers(-1, 4))
    )
    return st.fixed_dictionaries(
        {},
        optional={
            "end": place | json_values(),
            "words": st.lists(word, max_size=3) | json_values(),
            "covered": st.integers(-1, 4) | json_values(),
            "units": st.lists(st.sampled_from([" UM", ""]), max_size=3) | json_values(),
            "hypotheses": st.lists(hypothesis, max_size=3) | json_values(),
        },
    )


@times(3)
@given(changes=other_drafts())
def test_a_translator_goes_on_from_whatever_it_does_not_refuse(changes: dict[str, object]) -> None:
    data = seal(json.loads(DRAFTED[4:]) | changes)
    try:
        state = translator_checkpoint.decode(data)
    except CheckpointError:
        return
    before = Commit("", 0, 0, state.end_sample, data)

    async def go_on(policy: Policy) -> list[Event]:
        model = translator.Shouting()
        async with translator.running(model) as batcher:
            said = ["more|well", " and more.", None, "end"]
            return await translator.tell(batcher, model, said, policy=policy, resumed=before)

    for policy in (LocalAgreement(2, 0), AlignAtt(1), WaitK(1), WholeSentence()):
        for event in asyncio.run(go_on(policy)):
            event_to_proto(event, "f").SerializeToString()


positions = st.sampled_from([-(1 << 63), -1, 0, 1, 512, 16_000, 1 << 48, (1 << 63) - 1])
levels = st.sampled_from([-inf, -1.0, 0.0, 0.4, 0.9, 1.0, inf, nan])


@given(
    state=st.builds(
        EndpointerState,
        through_sample=positions,
        floor_sample=positions,
        probability=levels,
        start_sample=st.none() | positions,
        speaking=st.booleans(),
        end_sample=positions,
        quietest=levels,
        quietest_sample=positions,
    ),
    heard=st.lists(st.sampled_from([0.0, 0.4, 0.9]), max_size=5),
)
def test_a_vad_goes_on_from_whatever_it_does_not_refuse(
    state: EndpointerState, heard: list[float]
) -> None:
    try:
        decoded, memory = vad_checkpoint.decode(
            vad_checkpoint.encode(state, np.zeros(8, np.float32)), 8
        )
    except CheckpointError:
        return
    endpointer = Endpointer(vad.DEFAULTS, decoded)
    for probability in heard:
        endpointer.push(probability)
    endpointer.flush(endpointer.state.through_sample + 5, None)
    # An hour of windows: whoever follows each of them takes seconds.
    endpointer.skip(3600 * 16_000 // WINDOW_SAMPLES)
    endpointer.finish(endpointer.state.through_sample + 5, 0.9)
    assert vad_checkpoint.encode(endpointer.state, memory)


# Messages


def status_of(
    runner: asyncio.Runner, channel: grpc.aio.Channel, path: str, messages: list[bytes]
) -> grpc.StatusCode:
    """How a call ends in which these bytes are sent."""

    async def call() -> grpc.StatusCode:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        made = method(iter(messages))
        async with asyncio.timeout(20):
            async for _ in made:
                pass
            return await made.code()

    try:
        return runner.run(call())
    except grpc.aio.AioRpcError as error:
        # What grpc.aio makes of a call that ended while something was being written to it.
        forgotten = "Internal error from Core" in (error.details() or "")
        return grpc.StatusCode.OK if forgotten else error.code()


PLACE = stage_pb2.Checkpoint(format="energy/1", state=b"state")
DETECT = [
    *(vad.opening(), vad.opening(512), vad.opening(checkpoint=PLACE), vad.FINISH, vad.flush(1)),
    vad.opening(config=vad_pb2.DetectConfig(onset_threshold=0.5, offset_threshold=0.2)),
    *(vad.audio(0, bytes(1024)), vad.audio(512, bytes(64)), vad.gap(512, 1 << 40), vad.gap(0, 9)),
]
TRANSCRIBE = [
    *(asr.opening(), asr.opening(16), asr.opening(checkpoint=PLACE), asr.FINISH, asr.flush(1)),
    asr.opening(config=asr_pb2.TranscribeConfig(language_code="en", hotwords=["a"], prompt="b")),
    asr.opening(
        config=asr_pb2.TranscribeConfig(
            frame_threshold=3, temperature=0.5, policy=asr_pb2.POLICY_EITHER
        )
    ),
    *(asr.audio(0, bytes(1024)), asr.audio(512, bytes(64)), asr.gap(512, 1 << 40), asr.gap(0, 9)),
]


STOOD = stage_pb2.Checkpoint(
    format="level/1", state=diarizer_checkpoint.encode(SPOKEN), through_sample=FRAME * 8
)
ANN = diarizer_pb2.DiarizeConfig(
    max_speakers=3, num_speakers=2, enrolled=[diarizer.tone((2, samples(1)))]
)
DIARIZE = [
    *(diarizer.opening(), diarizer.opening(512), diarizer.opening(checkpoint=STOOD)),
    *(diarizer.opening(checkpoint=PLACE), diarizer.opening(config=ANN)),
    diarizer.opening(config=diarizer_pb2.DiarizeConfig(max_latency=Duration(seconds=2))),
    *(diarizer.FINISH, diarizer.flush(1), diarizer.gap(512, 1 << 40), diarizer.gap(0, 9)),
    *(diarizer.audio(0, diarizer.tone((3, 512))), diarizer.audio(512, bytes(64))),
]


TRANSLATED = stage_pb2.Checkpoint(format="shouting/2", state=DRAFTED)
BLANK = text_pb2.Word(text=" ", first_sample=1, end_sample=2)
NOWHERE = text_pb2.Word(text="a", first_sample=-1, end_sample=1 << 60)
TRANSLATE = [
    *(translator.opening(), translator.opening("", ""), translator.opening("de", "la")),
    *(translator.opening(checkpoint=PLACE), translator.opening(checkpoint=TRANSLATED)),
    *(translator.FINISH, translator.flush(1), translator.flush(-1)),
    *(translator.source("one two. three", 3), translator.source("", tail="four five")),
    *(translator.source("six.", 5, tail="seven"), translator.source("one", 0)),
    translator_pb2.TranslateRequest(source=translator_pb2.Source(words=[BLANK])),
    translator_pb2.TranslateRequest(source=translator_pb2.Source(tail=[BLANK, NOWHERE])),
    translator_pb2.TranslateRequest(source=translator_pb2.Source(words=[NOWHERE])),
]


class TirelessDiarizer(LevelDiarizer):
    """Nothing that is said breaks it."""

    poison = nan


def sent(valid: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Messages, of which most are broken; often the first is one to begin with."""
    rest = st.lists(broken(*valid), max_size=4)
    begun = st.tuples(st.just(valid[0]), rest).map(lambda both: [both[0], *both[1]])
    return begun | rest


def check_messages(serving: Serving, address: str, method: str, valid: list[bytes]) -> None:
    """Send broken messages to a replica that runs meanwhile."""
    with asyncio.Runner() as runner, capture_logs() as logs:
        stack = AsyncExitStack()
        runner.run(stack.enter_async_context(serving))
        channel = runner.run(_channel(address))

        @times(2)
        @given(sent(valid))
        def check(messages: list[bytes]) -> None:
            assert status_of(runner, channel, method, messages) in TYPED

        check()
        runner.run(channel.close(None))
        runner.run(stack.aclose())
    assert [log for log in logs if log["event"] == "unexpected error"] == []


async def _channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address)


def test_the_vad_refuses_broken_messages_with_a_reason(tmp_path: Path) -> None:
    serving = vad.serving(vad.EnergyDetector(), tmp_path)
    valid = [message.SerializeToString() for message in DETECT]
    check_messages(serving, f"unix:{tmp_path}/vad.sock", "/voxmesh.vad.v1.VadService/Detect", valid)


def test_the_diarizer_refuses_broken_messages_with_a_reason(tmp_path: Path) -> None:
    serving = diarizer.serving(TirelessDiarizer(), tmp_path)
    valid = [message.SerializeToString() for message in DIARIZE]
    check_messages(
        serving,
        f"unix:{tmp_path}/diarizer.sock",
        "/voxmesh.diarizer.v1.DiarizerService/Diarize",
        valid,
    )


def test_the_recogniser_refuses_broken_messages_with_a_reason(tmp_path: Path) -> None:
    serving = asr.serving(ScriptedRecognizer([]), tmp_path)
    valid = [message.SerializeToString() for message in TRANSCRIBE]
    check_messages(
        serving, f"unix:{tmp_path}/asr.sock", "/voxmesh.asr.v1.AsrService/Transcribe", valid
    )


def test_the_translator_refuses_broken_messages_with_a_reason(tmp_path: Path) -> None:
    serving = translator.serving(translator.Shouting(), tmp_path)
    check_messages(
        serving,
        f"unix:{tmp_path}/translator.sock",
        "/voxmesh.translator.v1.TranslatorService/Translate",
        [message.SerializeToString() for message in TRANSLATE],
    )
