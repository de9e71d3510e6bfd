"""Whole streams over a Unix socket, against a replica in this process."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.asr import checkpoint, servicer
from services.asr.checkpoint import State
from services.asr.engines.ctranslate2_whisper import CTranslate2Whisper
from services.asr.recognizer import Task, Window
from services.asr.transcriber import Transcriber
from services.asr.turns import Seat
from services.common.audio import FloatArray
from services.common.timeline import samples, seconds
from services.common.words import Word, text_of
from tests.asr.harness import (
    LIVE,
    POISON,
    Piece,
    ScriptedRecognizer,
    chatter,
    cut,
    ending,
    every,
    lane,
    rest_of,
    script,
    spoken,
)
from tests.asr.metrics import metric
from tests.asr.replica import (
    DRAIN_S,
    FINISH,
    MODEL,
    Call,
    Replica,
    audio,
    commits,
    converse,
    flush,
    gap,
    heard,
    kinds,
    messages,
    opening,
    read,
    read_rest,
    read_until,
    recording,
    refusal,
    serving,
    words,
)
from tests.conftest import TWO_CITIES
from tests.mesh.wording import difference
from tests.settings.serving import until
from voxmesh.asr.v1 import asr_pb2 as pb
from voxmesh.common.v1 import stage_pb2

ENGLISH = pb.TranscribeConfig(language_code="en")
SAID = chatter(60)
LANE = list(cut(lane(SAID, ending(SAID)), every(0.1, ending(SAID))))


def probability(word: Word) -> Word:
    """As it comes back from the wire, which has 32 bits for it."""
    return replace(word, probability=float(np.float32(word.probability)))


EXPECTED = [probability(word) for word in SAID]


async def settle(streams: int = 0) -> None:
    """Give tasks on both sides of the socket time to end."""
    for _ in range(200):
        await asyncio.sleep(0.01)
        if metric("streams", stage="asr") <= streams:
            return


async def test_speech_is_told_as_the_contract_shows(tmp_path: Path) -> None:
    model = ScriptedRecognizer(SAID, language_codes=("en", "de"))
    async with serving(model, tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), *messages(LANE), flush(9), FINISH])
    order = kinds(responses)
    assert order[0] == "opened"
    assert responses[0].opened.model == MODEL
    assert order[-2:] == ["flushed", "finished"]
    assert order.count("language") == 1
    assert order.index("language") < order.index("commit")
    assert responses[-2].flushed.flush_id == 9
    assert words(responses) == EXPECTED
    for commit in commits(responses):
        assert commit.words
        assert commit.checkpoint.format == FORMAT
        assert len(commit.checkpoint.state) < 8000
        state = checkpoint.decode(commit.checkpoint.state)
        assert commit.checkpoint.replay_from_sample == state.window_first_sample
        assert commit.checkpoint.through_sample == state.through_sample
        assert commit.decoding.avg_log_probability == pytest.approx(-0.2)
        assert commit.decoding.temperature == 0
    tails = [response.tail for response in responses if response.HasField("tail")]
    assert [tail.through_sample for tail in tails] == sorted(t.through_sample for t in tails)
    assert not tails[-1].words


async def test_a_file_gets_no_tails_of_half_heard_words(tmp_path: Path) -> None:
    config = pb.TranscribeConfig(language_code="en", pace=pb.PACE_FILE)
    model = ScriptedRecognizer(SAID, 0.25)
    async with serving(model, tmp_path) as replica:
        requests = [opening(config=config), *messages(LANE), FINISH]
        responses = await converse(replica.stub, requests)
    assert words(responses) == EXPECTED
    assert len(model.batches) == 2


async def test_each_pause_is_flushed_and_answered_in_order(tmp_path: Path) -> None:
    async with serving(ScriptedRecognizer(SAID), tmp_path) as replica:
        call = replica.stub.Transcribe()
        await call.write(opening(config=ENGLISH))
        spoken: list[Word] = []
        for number, piece in enumerate(LANE):
            [message] = messages([piece])
            await call.write(message)
            if number % 60 == 59:
                await call.write(flush(number))
                answer = await asyncio.wait_for(read_until(call, "flushed"), 5)
                assert answer[-1].flushed.flush_id == number
                spoken += words(answer)
                done = [w for w in EXPECTED if w.end_sample <= piece.end_sample]
                assert spoken == done
        await call.write(FINISH)
        rest = await read_rest(call)
    assert [*spoken, *words(rest)] == EXPECTED


FORMAT = f"whisper-{MODEL}/{checkpoint.VERSION}"
GOOD = audio(0, bytes(1200))


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([GOOD], "the first message must be open"),
        ([pb.TranscribeRequest()], "the first message must be open"),
        ([opening(), opening()], "open comes once, first"),
        ([opening(), pb.TranscribeRequest()], "holds nothing"),
        ([opening(), audio(0, b"\0" * 5)], "has 5 bytes: half a sample"),
        ([opening(), audio(0, b"")], "has 0 samples, not 1 to 160000"),
        ([opening(), GOOD, audio(601, b"\0\0")], "expected sample 600, got 601"),
        ([opening(), GOOD, audio(0, b"\0\0")], "expected sample 600, got 0"),
        ([opening(5), GOOD], "expected sample 5, got 0"),
        ([opening(), GOOD, gap(601, 5)], "expected sample 600, got 601"),
        ([opening(), gap(0, 0)], "gap.num_samples is 0"),
        ([opening(1), gap(1, 1 << 48)], "beyond position"),
        ([opening(-1)], "open.first_sample is -1"),
        (
            [opening(config=pb.TranscribeConfig(language_code="xx"))],
            "has no language 'xx'; it has: en, de",
        ),
        ([opening(config=pb.TranscribeConfig(task=pb.TASK_TRANSLATE))], "cannot do task 2"),
        ([opening(config=pb.TranscribeConfig(task=7))], "cannot do task 7"),  # type: ignore[arg-type]
        (
            [opening(config=pb.TranscribeConfig(policy=7))],  # type: ignore[arg-type]
            "config.policy is 7, which is none",
        ),
        (
            [opening(config=pb.TranscribeConfig(frame_threshold=201))],
            "config.frame_threshold is 201, not 0 to 200",
        ),
        ([opening(config=pb.TranscribeConfig(frame_threshold=-1))], "is -1, not 0 to 200"),
        (
            [opening(config=pb.TranscribeConfig(hotwords=["a"] * 101))],
            "config.hotwords has 101 of at most 1 characters, not 100 of 100",
        ),
        (
            [opening(config=pb.TranscribeConfig(hotwords=["a" * 101]))],
            "config.hotwords has 1 of at most 101 characters, not 100 of 100",
        ),
        ([opening(config=pb.TranscribeConfig(temperature=1.01))], "temperature is 1.01, not 0"),
        ([opening(config=pb.TranscribeConfig(temperature=-0.1))], "temperature is -0.1"),
        ([opening(config=pb.TranscribeConfig(temperature=float("nan")))], "temperature is nan"),
        (
            [opening(5, checkpoint=stage_pb2.Checkpoint(replay_from_sample=6, format=FORMAT))],
            "open.first_sample is 5, but the checkpoint goes on from 6",
        ),
        (
            [
                opening(
                    checkpoint=stage_pb2.Checkpoint(
                        format=FORMAT, state=checkpoint.encode(State(9, 9, 9))
                    )
                )
            ],
            "the checkpoint needs audio from sample 9, not from 0",
        ),
    ],
)
async def test_a_request_that_cannot_succeed_says_why(
    requests: list[pb.TranscribeRequest], reason: str, tmp_path: Path
) -> None:
    model = ScriptedRecognizer([], language_codes=("en", "de"))
    async with serving(model, tmp_path) as replica:
        code, details = await refusal(replica.stub, requests)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in details


async def test_a_model_that_is_not_served_is_not_found(tmp_path: Path) -> None:
    async with serving(ScriptedRecognizer([]), tmp_path) as replica:
        for name, code in ((MODEL, grpc.StatusCode.OK), ("large", grpc.StatusCode.NOT_FOUND)):
            requests = [opening(config=pb.TranscribeConfig(model=name))]
            call = replica.stub.Transcribe()
            await call.write(requests[0])
            if code is grpc.StatusCode.OK:
                await call.write(FINISH)
                assert kinds(await read_rest(call)) == ["opened", "finished"]
            assert await call.code() is code
        assert await call.details() == "this replica serves 'scripted', not 'large'"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (stage_pb2.Checkpoint(format="silero/1", state=b"x"), "reads 'whisper-scripted/2'"),
        (stage_pb2.Checkpoint(format="whisper-base/1"), "reads 'whisper-scripted/2'"),
        (stage_pb2.Checkpoint(format="whisper-scripted/2", state=b"x"), "damaged"),
        (stage_pb2.Checkpoint(format="whisper-scripted/2"), "damaged"),
        (
            stage_pb2.Checkpoint(
                format=FORMAT, state=checkpoint.encode(State(0, 0, 0, language_code="xx"))
            ),
            "no language 'xx'",
        ),
    ],
)
async def test_a_foreign_or_damaged_checkpoint_is_refused(
    place: stage_pb2.Checkpoint, reason: str, tmp_path: Path
) -> None:
    async with serving(ScriptedRecognizer([]), tmp_path) as replica:
        call = replica.stub.Transcribe()
        await call.write(opening(checkpoint=place))
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason in await call.details()
        assert await reason_of(call) == "FOREIGN_CHECKPOINT"


async def reason_of(call: Call) -> str:
    status = await rpc_status.aio.from_call(call)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return str(info.reason)


async def test_one_stream_too_many_is_refused_and_told_when_to_retry(tmp_path: Path) -> None:
    async with serving(ScriptedRecognizer([]), tmp_path, max_streams=1) as replica:
        first = replica.stub.Transcribe()
        await first.write(opening())
        assert (await read(first)).HasField("opened")
        second = replica.stub.Transcribe()
        await second.write(opening())
        assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = await rpc_status.aio.from_call(second)
        assert status is not None
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.seconds > 0
        await first.write(FINISH)
        assert (await read(first)).HasField("finished")
        third = await converse(replica.stub, [opening(), FINISH])
    assert third[-1].HasField("finished"), "the slot is free again"


@pytest.mark.parametrize("leave", ["cancel", "half-close"])
@pytest.mark.parametrize("hanging", [False, True])
async def test_a_client_that_leaves_takes_its_tasks_with_it(
    leave: str, hanging: bool, tmp_path: Path
) -> None:
    model = ScriptedRecognizer(SAID)
    async with serving(model, tmp_path) as replica:
        before = asyncio.all_tasks()
        call = replica.stub.Transcribe()
        await call.write(opening())
        assert (await read(call)).HasField("opened")
        if hanging:
            model.gate.clear()
        for message in messages(LANE[:30]):
            await call.write(message)
        assert metric("streams", stage="asr") == 1
        if leave == "cancel":
            call.cancel()
        else:
            await call.done_writing()
            with pytest.raises(grpc.aio.AioRpcError, match="ended without finish"):
                await read_rest(call)
        await settle()
        assert metric("streams", stage="asr") == 0
        left = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not {name for name in left if name.startswith("asr.")}
        model.gate.set()
        assert words(await converse(replica.stub, [opening(), *messages(LANE), FINISH])) == EXPECTED


async def test_a_client_that_leaves_with_a_full_backlog_takes_its_tasks_with_it(
    tmp_path: Path,
) -> None:
    said = chatter(160)
    model = ScriptedRecognizer(said)
    async with serving(model, tmp_path) as replica:
        model.gate.clear()
        call = replica.stub.Transcribe()
        await call.write(opening())
        for piece in messages(cut(lane(said, ending(said)), every(1, ending(said)))):
            await call.write(piece)
        call.cancel()
        await settle()
        assert metric("streams", stage="asr") == 0
        model.gate.set()


async def test_a_stopping_replica_says_go_away_and_goes_on_serving(tmp_path: Path) -> None:
    async with serving(ScriptedRecognizer(SAID), tmp_path) as replica:
        calls = [replica.stub.Transcribe() for _ in range(3)]
        for call in calls:
            await call.write(opening(config=ENGLISH))
            assert (await read(call)).HasField("opened")
        replica.stopping.set()
        for call in calls:
            farewell = await read(call)
            assert farewell.go_away.deadline.seconds == DRAIN_S
            for message in [*messages(LANE), FINISH]:
                await call.write(message)
            rest = await read_rest(call)
            assert words(rest) == EXPECTED
            assert rest[-1].HasField("finished")
        code, _ = await refusal(replica.stub, [opening()])
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_backlog_makes_the_client_wait_and_loses_nothing(tmp_path: Path) -> None:
    """The model stalls for 90 s of audio; finish comes while the backlog is full."""
    said = chatter(230)
    end = ending(said)
    assert seconds(end) > 110
    model = ScriptedRecognizer(said)
    pieces = list(cut(lane(said, end), every(1, end)))
    heard_before = metric("audio_seconds_total", stage="asr")
    async with serving(model, tmp_path) as replica:
        model.gate.clear()
        call = replica.stub.Transcribe()
        for message in [opening(config=ENGLISH), *messages(pieces), FINISH]:
            await call.write(message)
        await asyncio.sleep(0.2)
        taken = metric("audio_seconds_total", stage="asr") - heard_before
        assert 59 <= taken <= 63, "the rest waits on the wire"
        model.gate.set()
        responses = await asyncio.wait_for(read_rest(call), 20)
    assert words(responses) == [probability(word) for word in said]
    assert kinds(responses)[-1] == "finished"
    assert max(len(w.samples) for batch in model.batches for w in batch) <= LIVE.window


@pytest.mark.parametrize(
    ("alive_s", "told"), [pytest.param(60.0, True, id="busy"), pytest.param(0.0, False, id="hangs")]
)
async def test_who_waits_for_a_busy_model_is_told_so_and_for_one_that_hangs_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive_s: float, told: bool
) -> None:
    """O2, F3."""
    monkeypatch.setattr(servicer, "_REASSURE_S", 0.02)
    monkeypatch.setattr(servicer, "_ALIVE_S", alive_s)
    model = ScriptedRecognizer(SAID)
    async with serving(model, tmp_path) as replica:
        call = replica.stub.Transcribe()
        await call.write(opening(config=ENGLISH))
        lane = list(messages(LANE))
        for message in lane[:30]:
            await call.write(message)
        await read_until(call, "tail")
        model.gate.clear()
        for message in [*lane[30:], FINISH]:
            await call.write(message)
        await asyncio.sleep(0.3)  # for it to be told, if it is
        model.gate.set()
        responses = await asyncio.wait_for(read_rest(call), 20)
    assert ("queued" in kinds(responses)) is told
    assert kinds(responses)[-1] == "finished"


async def test_a_slow_reader_stops_nobody_else(tmp_path: Path) -> None:
    async with serving(ScriptedRecognizer(SAID), tmp_path) as replica:
        slow = replica.stub.Transcribe()
        for message in [opening(config=ENGLISH), *messages(LANE), FINISH]:
            await slow.write(message)
        requests = [opening(config=ENGLISH), *messages(LANE), FINISH]
        assert words(await asyncio.wait_for(converse(replica.stub, requests), 10)) == EXPECTED
        assert words(await read_rest(slow)) == EXPECTED


async def test_two_streams_in_two_languages_do_not_mix(tmp_path: Path) -> None:
    model = ScriptedRecognizer(
        SAID,
        language_codes=("en", "de", "fr"),
        echo_language=True,
        tasks=(Task.TRANSCRIBE, Task.TRANSLATE),
    )
    async with serving(model, tmp_path) as replica:
        codes = ["de", "fr", "", "de", "fr", "", "de", "fr"]
        configs = [
            pb.TranscribeConfig(
                language_code=code, task=pb.TASK_TRANSLATE if number % 2 else pb.TASK_TRANSCRIBE
            )
            for number, code in enumerate(codes)
        ]
        results = await asyncio.gather(
            *(
                converse(replica.stub, [opening(config=config), *messages(LANE), FINISH])
                for config in configs
            )
        )
    for code, responses in zip(codes, results, strict=True):
        spoken = "".join(f"{word.text}@{code or 'en'}" for word in SAID)
        assert text_of(words(responses)) == spoken
        assert kinds(responses).count("language") == (code == "")
    assert max(map(len, model.batches)) > 1, "they did share batches"
    tasks = {(w.language_code, w.task) for batch in model.batches for w in batch}
    assert {("de", Task.TRANSLATE), ("de", Task.TRANSCRIBE)} <= tasks


async def test_what_a_stream_asks_for_reaches_the_model(tmp_path: Path) -> None:
    model = ScriptedRecognizer(SAID)
    config = pb.TranscribeConfig(language_code="en", prompt="ab", temperature=0.3)
    async with serving(model, tmp_path) as replica:
        await converse(replica.stub, [opening(config=config), *messages(LANE[:40]), FINISH])
    for [window] in model.batches:
        assert (window.prompt, window.temperature) == ((97, 98), 0.3)


async def test_hotwords_stand_before_the_prompt(tmp_path: Path) -> None:
    model = ScriptedRecognizer(SAID)
    config = pb.TranscribeConfig(language_code="en", prompt="ab", hotwords=["x", "y"])
    async with serving(model, tmp_path) as replica:
        await converse(replica.stub, [opening(config=config), *messages(LANE[:20]), FINISH])
    assert model.batches[0][0].prompt == tuple(map(ord, "x, y ab"))


@pytest.mark.parametrize(
    ("config", "commits_at_once"),
    [
        (pb.TranscribeConfig(), False),
        (pb.TranscribeConfig(policy=pb.POLICY_LOCAL_AGREEMENT, frame_threshold=0), False),
        (pb.TranscribeConfig(policy=pb.POLICY_ALIGN_ATT), False),
        (pb.TranscribeConfig(policy=pb.POLICY_ALIGN_ATT, frame_threshold=0), True),
        (pb.TranscribeConfig(policy=pb.POLICY_EITHER, frame_threshold=0), True),
    ],
    ids=str,
)
async def test_a_stream_has_the_policy_and_the_threshold_that_it_asks_for(
    config: pb.TranscribeConfig, commits_at_once: bool, tmp_path: Path
) -> None:
    model = ScriptedRecognizer(SAID)
    config.language_code = "en"
    end = SAID[0].end_sample + samples(1)
    async with serving(model, tmp_path) as replica:
        call = replica.stub.Transcribe()
        await call.write(opening(config=config))
        for message in messages([piece for piece in LANE if piece.end_sample <= end]):
            await call.write(message)
        first = await read(call)
        while first.WhichOneof("event") not in ("tail", "commit"):
            first = await read(call)
        assert (first.WhichOneof("event") == "commit") is commits_at_once
        call.cancel()


async def test_where_it_is_quiet_a_window_is_as_urgent_as_at_a_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    ask = Seat.ask

    def noting(seat: Seat, now_s: float, *, step_s: float, final: bool) -> float:
        asked.append(final)
        return ask(seat, now_s, step_s=step_s, final=final)

    monkeypatch.setattr(Seat, "ask", noting)
    said = script([0.4, 0.1])
    lane_of_all = messages(cut(lane(said, samples(1.5)), every(0.1, samples(1.5))))
    cadence = replace(LIVE, pause=samples(0.35))
    async with serving(ScriptedRecognizer(said), tmp_path, live=cadence) as replica:
        call = replica.stub.Transcribe()
        await call.write(opening(config=pb.TranscribeConfig(language_code="en")))
        for message in lane_of_all:
            await call.write(message)
        committed: list[Word] = []
        while text_of(committed) != text_of(said):
            committed += words([await read(call)])
        call.cancel()
    assert True in asked


async def test_who_asks_for_everything_waits_for_no_window_that_lacks_the_end(
    tmp_path: Path,
) -> None:
    asked, said = threading.Event(), script([0.2] * 8)
    end = samples(3)

    def late(calls: int, _windows: Sequence[Window]) -> bool:
        """The first call takes until the second one has been answered."""
        return calls == 1 and not asked.wait(20)

    first, *more = messages(cut(lane(said, end), every(1.5, end)))
    model = ScriptedRecognizer(said, fails=late)
    async with serving(model, tmp_path, workers=2) as replica:
        call = replica.stub.Transcribe()
        await call.write(opening(config=ENGLISH))
        await call.write(first)
        await until(lambda: bool(model.batches))
        for message in (*more, flush(1)):
            await call.write(message)
        answers = await asyncio.wait_for(read_until(call, "flushed"), 15)
        asked.set()
        assert text_of(words(answers)) == text_of([w for w in said if w.end_sample <= end])
        call.cancel()


async def test_it_says_what_it_can_do(tmp_path: Path) -> None:
    model = ScriptedRecognizer([], language_codes=("en", "de"), tasks=tuple(Task))
    async with serving(model, tmp_path, max_streams=7) as replica:
        described = await replica.stub.Describe(pb.DescribeRequest())
    assert described == pb.DescribeResponse(
        model=MODEL,
        engine="script",
        language_codes=["en", "de"],
        tasks=[pb.TASK_TRANSCRIBE, pb.TASK_TRANSLATE],
        max_streams=7,
    )


async def test_a_failing_call_of_the_model_ends_its_stream_with_a_reason(tmp_path: Path) -> None:
    """What was committed stays, and a successor goes on from there."""
    model = ScriptedRecognizer(SAID, fails=lambda calls, _: calls == 9)
    async with serving(model, tmp_path) as replica:
        call = replica.stub.Transcribe()
        await call.write(opening(config=ENGLISH))
        responses: list[pb.TranscribeResponse] = [await read(call)]
        with pytest.raises(grpc.aio.AioRpcError, match="the device is gone"):
            for number, message in enumerate(messages(LANE)):
                await call.write(message)
                if number % 10 == 9:
                    responses += await read_until(call, "tail")
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert await reason_of(call) == "DEVICE_FAILED"
        place = commits(responses)[-1].checkpoint
        first = place.replay_from_sample
        after = await converse(
            replica.stub,
            [opening(first, checkpoint=place), *messages(rest_of(LANE, first)), FINISH],
        )
    assert [*words(responses), *words(after)] == EXPECTED


async def test_a_stream_that_breaks_the_model_fails_alone(tmp_path: Path) -> None:
    poison = heard(0, np.full(samples(2), POISON / 32768, np.float32))
    model = ScriptedRecognizer(SAID)
    async with serving(model, tmp_path) as replica:
        requests = [opening(config=ENGLISH), *messages(LANE), FINISH]
        good, poisoned, other = await asyncio.gather(
            converse(replica.stub, requests),
            refusal(replica.stub, [opening(), poison]),
            converse(replica.stub, requests),
        )
    assert poisoned == (grpc.StatusCode.UNAVAILABLE, "the device is gone")
    assert words(good) == words(other) == EXPECTED


async def test_a_bug_in_the_model_is_an_internal_error_without_its_text(tmp_path: Path) -> None:
    def broken(_calls: int, _windows: Sequence[Window]) -> bool:
        raise ZeroDivisionError("a secret")

    async with serving(ScriptedRecognizer([], fails=broken), tmp_path) as replica:
        code, details = await refusal(replica.stub, [opening(), audio(0, bytes(40_000))])
    assert (code, details) == (grpc.StatusCode.INTERNAL, "internal error")


async def test_while_nobody_speaks_the_place_to_resume_from_moves_on(tmp_path: Path) -> None:
    said = script([0.3, 0.2, 0.2])
    end = ending(said, 0.5)
    minutes = samples(300)
    async with serving(ScriptedRecognizer(said), tmp_path) as replica:
        call = replica.stub.Transcribe()
        for message in [opening(config=ENGLISH), *messages(lane(said, end)), flush(1)]:
            await call.write(message)
        await read_until(call, "flushed")
        places: list[stage_pb2.Checkpoint] = []
        position = end
        for number in range(300):
            await call.write(gap(position, minutes // 300))
            position += minutes // 300
            if number % 10 == 9:
                await call.write(flush(number))
                told = await read_until(call, "flushed")
                places += [r.checkpoint for r in told if r.HasField("checkpoint")]
        await call.write(FINISH)
        assert kinds(await read_rest(call))[-1] == "finished"
        assert 28 <= len(places) <= 300, "one a second at most"
        starts = [place.replay_from_sample for place in places]
        assert starts == sorted(set(starts))
        assert end + minutes - starts[-1] <= samples(11)
        again = [(p.first_sample, p.heard) for p in lane(said, end) if p.heard is not None]
        for place in places[::7]:
            first = place.replay_from_sample
            resumed = await converse(
                replica.stub,
                [
                    opening(first, checkpoint=place),
                    *(heard(first + begin, spoken) for begin, spoken in again),
                    FINISH,
                ],
            )
            assert [(w.text, w.first_sample - first) for w in words(resumed)] == [
                (w.text, w.first_sample) for w in said
            ]


async def test_a_reading_of_dickens_is_written_down(
    tiny: CTranslate2Whisper, two_cities: FloatArray, tmp_path: Path
) -> None:
    async with serving(tiny, tmp_path, name="tiny.en") as replica:
        live, file = await asyncio.gather(
            converse(replica.stub, [opening(), *recording(two_cities), FINISH]),
            converse(
                replica.stub,
                [
                    opening(config=pb.TranscribeConfig(pace=pb.PACE_FILE)),
                    *recording(two_cities),
                    FINISH,
                ],
            ),
        )
    for responses in (live, file):
        assert difference(TWO_CITIES, text_of(words(responses))).wer_percent < 12
        positions = [p for w in words(responses) for p in (w.first_sample, w.end_sample)]
        assert positions == sorted(positions)
        assert positions[-1] <= len(two_cities)


async def test_a_successor_on_another_server_goes_on_with_the_same_commits(
    tiny: CTranslate2Whisper, two_cities: FloatArray, tmp_path: Path
) -> None:
    """Steps are made the same by asking for each second only when the one before is decoded."""
    read_aloud = two_cities[: samples(30)]
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    async with (
        serving(tiny, folders[0], name="tiny.en") as one,
        serving(tiny, folders[1], name="tiny.en") as two,
    ):
        whole = await stepwise(one.stub.Transcribe(), read_aloud)
        places = [n for n, (_, r) in enumerate(whole) if r.HasField("commit")]
        assert len(places) > 12
        assert {commits([whole[n][1]])[0].checkpoint.replay_from_sample for n in places} > {0}
        for place in (places[3], places[-4]):
            through, response = whole[place]
            resumed = await stepwise(
                two.stub.Transcribe(),
                read_aloud,
                checkpoint_=response.commit.checkpoint,
                quiet_through=through,
            )
            assert commits(r for _, r in resumed) == commits(r for _, r in whole[place + 1 :])


async def stepwise(
    call: Call,
    samples_: FloatArray,
    *,
    checkpoint_: stage_pb2.Checkpoint | None = None,
    quiet_through: int = 0,
) -> list[tuple[int, pb.TranscribeResponse]]:
    """A second of audio at a time, each decoded before the next is sent.

    Each response comes with how much had been sent. Up to ``quiet_through`` none is waited for.
    """
    first = checkpoint_.replay_from_sample if checkpoint_ else 0
    await call.write(opening(first, checkpoint=checkpoint_))
    told = [(first, await read(call))]
    position = first
    while position < len(samples_):
        # On a grid that a successor shares, wherever it starts.
        end = min(len(samples_), (position // 16_000 + 1) * 16_000)
        await call.write(heard(position, samples_[position:end]))
        position = end
        if position % 16_000 == 0 and position > quiet_through:
            told += [(position, r) for r in await read_until(call, "tail")]
    await call.write(FINISH)
    return [*told, *((position, r) for r in await read_rest(call))]


# --- under load


def slowly(run_s: float) -> Callable[[int, Sequence[Window]], bool]:
    def run(_calls: int, _windows: Sequence[Window]) -> bool:
        time.sleep(run_s)
        return False

    return run


async def open_live(replica: Replica) -> Call:
    call = replica.stub.Transcribe()
    await call.write(opening(config=ENGLISH))
    assert (await read(call)).HasField("opened")
    return call


async def speak(call: Call, piece: Piece) -> list[pb.TranscribeResponse]:
    """Say something that is decoded at once, and hear what it was."""
    [message] = messages([piece])
    await call.write(message)
    return await read_until(call, "tail")


async def test_a_slow_model_is_asked_less_often_then_refuses_then_admits_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.asr.scheduler._ADAPT_EVERY_S", 0.02)
    model = ScriptedRecognizer([], fails=slowly(0.4))
    second = [Piece(samples(n), samples(1), spoken([], samples(1))) for n in range(9)]
    async with serving(model, tmp_path, steps_s=(0.2, 2.0)) as replica:
        first = await open_live(replica)
        await speak(first, second[0])
        others = [await open_live(replica) for _ in range(2)]
        await asyncio.sleep(0.1)  # for the step to be reconsidered
        assert 1.5 <= seconds(replica.scheduler.step_samples) < 2, "3 x 0.4 s / 0.8"
        status = await status_of(replica.stub.Transcribe(iter([opening()])))
        assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info)
        assert status.details[1].Unpack(retry)
        assert (info.reason, retry.retry_delay.seconds) == ("SATURATED", 1)
        file = pb.TranscribeConfig(pace=pb.PACE_FILE)
        assert kinds(await converse(replica.stub, [opening(config=file), FINISH]))[-1] == "finished"
        others.pop().cancel()
        await settle(streams=2)
        await open_live(replica)


async def status_of(call: Call) -> status_pb2.Status:
    with suppress(grpc.aio.AioRpcError):
        await read_rest(call)
    status = await rpc_status.aio.from_call(call)
    assert isinstance(status, status_pb2.Status)
    return status


async def test_a_stream_that_floods_loses_nothing_and_slows_nobody(tmp_path: Path) -> None:
    """It sends two minutes as fast as it can, with a flush every second; the others take turns."""
    said = chatter(250)
    flood = list(cut(lane(said, ending(said)), every(1, ending(said))))
    requests = [m for n, piece in enumerate(messages(flood)) for m in (piece, flush(n))]
    model = ScriptedRecognizer(said, fails=slowly(0.02))
    waits: list[float] = []
    async with serving(model, tmp_path) as replica:
        greedy = asyncio.create_task(
            converse(replica.stub, [opening(config=ENGLISH), *requests, FINISH]), name="greedy"
        )
        modest = [await open_live(replica) for _ in range(3)]
        for piece in cut([Piece(0, samples(20), spoken([], samples(20)))], every(1, samples(20))):
            for call in modest:
                asked_s = time.perf_counter()
                await speak(call, piece)
                waits.append(time.perf_counter() - asked_s)
        assert not greedy.done(), "it floods all the while"
        flooded = await greedy
    assert words(flooded) == [probability(word) for word in said]
    assert sorted(waits)[len(waits) * 9 // 10] < 0.3, "its window in flight, and their own"
    assert max(len(w.samples) for batch in model.batches for w in batch) <= LIVE.window


async def test_a_hundred_sessions_leave_no_state(tmp_path: Path) -> None:
    model = ScriptedRecognizer(SAID)
    said = [opening(config=ENGLISH), *messages(LANE[:30])]

    def kept() -> int:
        gc.collect()
        return sum(issubclass(type(each), Transcriber | Seat) for each in gc.get_objects())

    async def leave(replica: Replica) -> None:
        call = replica.stub.Transcribe()
        for message in said:
            await call.write(message)
        await read(call)
        call.cancel()

    async with serving(model, tmp_path) as replica:
        before, tasks = kept(), len(asyncio.all_tasks())
        for _ in range(10):
            await asyncio.gather(
                *(converse(replica.stub, [*said, FINISH]) for _ in range(5)),
                *(leave(replica) for _ in range(5)),
            )
            await settle()
        assert kept() <= before
        assert len(asyncio.all_tasks()) <= tasks
