"""``/asr``, as its clients see it."""

import asyncio
import io
import json
import random
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import reduce
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.common.errors import DeviceError
from services.common.words import Word
from services.gateway.protocols.wlk_view import View
from services.gateway.speakers import Speakers, Turn
from services.gateway.transcript import Scores, Transcript
from services.gateway.translation import TranslationPiece
from tests.gateway.fakes import (
    RATE,
    FakeAsr,
    FakeDiarizer,
    FakeTranslator,
    FakeVad,
    Mesh,
    running,
    served,
    spans_of,
    words_at,
)
from tests.settings.serving import until

State = dict[str, Any]

STATE_FIELDS = {
    "status",
    "lines",
    "buffer_transcription",
    "buffer_diarization",
    "buffer_translation",
    "remaining_time_transcription",
    "remaining_time_transcription_processing",
    "remaining_time_transcription_policy",
    "remaining_time_diarization",
}


def apply(state: State | None, message: State) -> State:
    """The rule by which a client of ``mode=diff`` keeps its state."""
    if message["type"] == "snapshot":
        return {key: message[key] for key in message.keys() - {"type", "seq"}}
    assert state is not None
    assert message["type"] == "diff"
    new = message.get("new_lines", [])
    lines = state["lines"][message.get("lines_pruned", 0) :]
    lines = lines[: message["n_lines"] - len(new)] + new
    assert len(lines) == message["n_lines"]
    rest = message.keys() - {"type", "seq", "n_lines", "new_lines", "lines_pruned"}
    return {"lines": lines, **{key: message[key] for key in rest}}


def last_state(messages: list[State]) -> State:
    """What a client of either mode has in the end."""
    if "type" not in messages[0]:
        return messages[-1]
    state = reduce(apply, messages, None)
    assert state is not None
    return state


words = st.tuples(
    st.text("ab c.", min_size=1, max_size=40),
    st.integers(0, 12 * RATE),
    st.integers(1, 2 * RATE),
    st.integers(0, 3),
)
steps = st.lists(
    st.tuples(
        st.lists(words, max_size=6),
        st.booleans(),
        st.text("xyz ", max_size=8),
        st.integers(0, 5 * RATE),
        st.sampled_from(["", "", "en", "fr"]),
        st.booleans(),
        st.integers(0, 2),
    ),
    max_size=12,
)


@given(history=steps, name_language=st.booleans(), diarized=st.booleans())
def test_what_a_client_rebuilds_from_diffs_is_the_full_state(
    history: list[tuple[list[tuple[str, int, int, int]], bool, str, int, str, bool, int]],
    name_language: bool,
    diarized: bool,
) -> None:
    """P4. P2: in the end, the words in lines are those that were certain."""
    transcript = Transcript()
    speakers = Speakers(transcript)
    told: dict[str, Any] = {"name_language": name_language, "diarized": diarized, "target": "pt"}
    full = View(transcript, diff=False, **told)
    diff = View(transcript, diff=True, **told)
    state: State | None = None
    at = seq = 0
    certain = ""
    translation = transcript.translation("pt")
    num_translated = 0
    for commit, release, tail, received, language, lags_too, translated in history:
        run = []
        for text, pause, length, speaker in commit:
            run.append(Word(text, at + pause, at + pause + length, speaker=speaker))
            at += pause + length
        certain += "".join(word.text for word in run)
        if run and diarized:
            turns = [Turn(w.speaker, w.first_sample, w.end_sample) for w in run if w.speaker]
            speakers.commit(run, Scores())
            speakers.hear(turns, run[0].first_sample, transcript.received_sample)
        elif run:
            transcript.commit(run)
        if release:
            speakers.release()
        transcript.replace_tail([Word(tail, at, at + 1)] if tail else [])
        transcript.received_sample += received
        transcript.decoded_sample = transcript.received_sample // 2
        if language:
            transcript.detect(language, 1.0)
        for word in transcript.words[num_translated : num_translated + translated]:
            num_translated += 1
            piece = TranslationPiece(f" T{num_translated}", word.first_sample, word.end_sample)
            translation.commit(piece)
        translation.replace_tail(tail.upper())
        expected, message = full.update(lags_too=lags_too), diff.update(lags_too=lags_too)
        assert (expected is None) is (message is None)
        if message is not None:
            seq += 1
            assert message["seq"] == seq
            state = apply(state, message)
            assert state == expected
    speakers.release()
    transcript.finish()
    last = full.last()
    assert apply(state, diff.last()) == last
    spoken = "".join(
        line["text"] or "" for line in apply(None, {"type": "snapshot", **last})["lines"]
    )
    assert spoken.replace(" ", "") == certain.replace(" ", "")
    shown = apply(None, {"type": "snapshot", **last})["lines"]
    translations = " ".join(line.get("translation", "") for line in shown).split()
    assert translations == [f"T{number + 1}" for number in range(num_translated)]
    assert last["buffer_diarization"] == ""
    failure = apply(apply(None, {"type": "snapshot", **full.last()}), diff.failure("broken"))
    assert failure["status"] == full.failure("broken")["status"] == "error"


def test_words_without_a_speaker_stand_between_the_lines_and_what_may_change() -> None:
    transcript = Transcript()
    view = View(transcript, diff=False, name_language=False, diarized=True)
    transcript.received_sample, transcript.decoded_sample = 10 * RATE, 9 * RATE
    transcript.commit([Word(" one", 6 * RATE, 7 * RATE, speaker=2)])
    transcript.hold([Word(" two", 7 * RATE, 8 * RATE)])
    transcript.replace_tail([Word(" three", 17 * RATE // 2, 9 * RATE)])
    state = view.update(lags_too=False)
    assert state is not None
    assert state["lines"] == [
        {"speaker": -2, "text": None, "start": "0:00:00.00", "end": "0:00:06.00"},
        {"speaker": 2, "text": "one", "start": "0:00:06.00", "end": "0:00:07.00"},
    ]
    assert (state["buffer_diarization"], state["buffer_transcription"]) == (" two", " three")
    assert state["remaining_time_diarization"] == 2.0
    assert state["remaining_time_transcription_policy"] == 0.5
    assert state["remaining_time_transcription_processing"] == 1.0
    transcript.hold([Word(" two", 7 * RATE, 8 * RATE), Word(" three", 17 * RATE // 2, 9 * RATE)])
    state = view.update(lags_too=False)
    assert state is not None, "a word that becomes certain is news"
    assert (state["buffer_diarization"], state["buffer_transcription"]) == (" two three", "")


@pytest.mark.parametrize("diff", [False, True])
def test_a_translation_that_grows_is_one_message_though_nothing_else_has_changed(
    diff: bool,
) -> None:
    """P17."""
    transcript = Transcript()
    view = View(transcript, diff=diff, name_language=False, target="pt")
    transcript.commit([Word(" one", RATE, 2 * RATE), Word(" two", 9 * RATE, 10 * RATE)])
    transcript.replace_tail([])
    assert view.update(lags_too=False) is not None
    translation = transcript.translation("pt")
    translation.replace_tail(" U")
    message = view.update(lags_too=False)
    assert message is not None
    assert message["buffer_translation"] == " U"
    assert view.update(lags_too=False) is None
    for text, second in ((" UM", 1), (" DOIS", 9)):
        translation.commit(TranslationPiece(text, second * RATE, (second + 1) * RATE))
        assert view.update(lags_too=False) is not None
        assert view.update(lags_too=False) is None
    whole = View(transcript, diff=False, name_language=False, target="pt").last()
    state = apply(None, {"type": "snapshot", **whole})
    assert [line.get("translation") for line in state["lines"]] == ["UM", None, "DOIS"]


async def test_lines_are_translated() -> None:
    translator = FakeTranslator()
    async with (
        mesh_at_port(1.0, 2.0, 9.0, translator=translator) as (_, port),
        asr_client(port, "?language=en&target_language=pt") as client,
    ):
        await client.say(11)
        _config, *states, _end = await client.finish()
    assert [line.get("translation") for line in states[-1]["lines"]] == ["W0 W1", None, "W2"]
    assert states[-1]["buffer_translation"] == ""


@pytest.mark.parametrize(
    ("query", "translated"),
    [("", True), ("&target_language=", False), ("&target_language=de", True)],
)
async def test_a_gateway_may_translate_for_clients_that_do_not_ask(
    query: str, translated: bool
) -> None:
    translator = FakeTranslator()
    async with (
        mesh_at_port(1.0, translator=translator, target_language="pt") as (_, port),
        asr_client(port, f"?language=en{query}") as client,
    ):
        await client.say(3)
        _config, *states, _end = await client.finish()
    assert ("translation" in states[-1]["lines"][0]) is translated


@pytest.mark.trap(13)
def test_clients_that_only_append_follow_the_first_line_as_it_grows() -> None:
    """As WhisperLiveKit's own do, which knows no rule for a later line that grows either."""
    transcript = Transcript()
    view = View(transcript, diff=True, name_language=False)
    lines: list[dict[str, Any]] = []
    for number in range(5):
        transcript.commit([Word(" word", number * RATE, number * RATE + 4000)])
        message: Any = view.update(lags_too=False)
        lines = lines[message.get("lines_pruned", 0) :]
        lines += message["lines" if message["type"] == "snapshot" else "new_lines"]
        assert [line["text"] for line in lines] == [" ".join(["word"] * (number + 1))]


def test_a_diff_costs_the_same_however_long_the_transcript_is() -> None:
    """P5."""
    transcript = Transcript()
    view = View(transcript, diff=True, name_language=False)
    sizes, times = [], []
    for number in range(20_000):
        start = number * RATE // 2
        transcript.commit([Word(" word", start, start + 4000)])
        transcript.received_sample = transcript.decoded_sample = start + 4000
        began = time.perf_counter()
        sizes.append(len(json.dumps(view.update(lags_too=False))))
        times.append(time.perf_counter() - began)
    early, late = slice(100, 2100), slice(-2000, None)
    assert sum(sizes[late]) < 1.1 * sum(sizes[early])
    assert sorted(times[late])[1000] < 3 * sorted(times[early])[1000]


class Client:
    """What a client of ``/asr`` does."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[State] = []

    async def until_ready_to_stop(self) -> list[State]:
        async with asyncio.timeout(30):
            async for text in self.socket:
                self.messages.append(json.loads(text))
                if self.messages[-1].get("type") == "ready_to_stop":
                    return self.messages
        raise AssertionError("no ready_to_stop")

    async def say(self, duration_s: float, *, block: int = 3200, pause_s: float = 0.0) -> None:
        left = round(duration_s * RATE) * 2
        while left > 0:
            await self.socket.send(bytes(min(block, left)))
            left -= block
            if pause_s:
                await asyncio.sleep(pause_s)

    async def finish(self) -> list[State]:
        await self.socket.send(b"")
        return await self.until_ready_to_stop()


@asynccontextmanager
async def asr_client(port: int, query: str = "", **options: Any) -> AsyncIterator[Client]:
    async with connect(f"ws://127.0.0.1:{port}/asr{query}", **options) as socket:
        yield Client(socket)


@asynccontextmanager
async def mesh_at_port(
    *seconds: float,
    diarizer: FakeDiarizer | None = None,
    translator: FakeTranslator | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Mesh, int]]:
    said = words_at(*seconds)
    async with (
        running(FakeVad(spans_of(said)), FakeAsr(said), diarizer, translator, **settings) as mesh,
        served(mesh.gateway) as port,
    ):
        yield mesh, port


def text_of(state: State) -> str:
    return " ".join(line["text"] for line in state["lines"] if line["speaker"] > 0)


@pytest.mark.row("A1")
async def test_a_conversation_in_full_mode() -> None:
    async with mesh_at_port(1.0, 2.0, 9.0) as (_, port), asr_client(port, "?language=en") as client:
        await client.say(11, block=3201)
        config, *states, end = await client.finish()
    assert config == {"type": "config", "useAudioWorklet": True, "mode": "full"}
    assert end == {"type": "ready_to_stop"}
    assert all(state.keys() == STATE_FIELDS for state in states)
    last = states[-1]
    assert last["lines"] == [
        {"speaker": 1, "text": "w0 w1", "start": "0:00:01.00", "end": "0:00:02.40"},
        {"speaker": -2, "text": "", "start": "0:00:02.40", "end": "0:00:09.00"},
        {"speaker": 1, "text": "w2", "start": "0:00:09.00", "end": "0:00:09.40"},
    ]
    assert last["status"] == "active_transcription"
    assert last["buffer_transcription"] == ""
    assert last["remaining_time_transcription"] == 0


TURNS = ((1, 0, 5 * RATE // 2), (2, 11 * RATE // 4, 5 * RATE), (1, 8 * RATE, 12 * RATE))


@pytest.mark.parametrize("mode", ["full", "diff"])
@pytest.mark.parametrize(
    ("diarize", "query"), [(True, ""), (False, "&diarization=true"), (True, "&diarization=True")]
)
async def test_a_line_ends_where_the_speaker_changes(mode: str, diarize: bool, query: str) -> None:
    diarizer = FakeDiarizer(TURNS)
    async with (
        mesh_at_port(1.0, 2.0, 3.0, 9.0, diarizer=diarizer, diarize=diarize) as (_, port),
        asr_client(port, f"?language=en&mode={mode}{query}") as client,
    ):
        await client.say(11)
        _config, *messages, _end = await client.finish()
    state = last_state(messages)
    assert state["lines"] == [
        {"speaker": 1, "text": "w0 w1", "start": "0:00:01.00", "end": "0:00:02.40"},
        {"speaker": 2, "text": "w2", "start": "0:00:03.00", "end": "0:00:03.40"},
        {"speaker": -2, "text": None, "start": "0:00:03.40", "end": "0:00:09.00"},
        {"speaker": 1, "text": "w3", "start": "0:00:09.00", "end": "0:00:09.40"},
    ]
    assert state["buffer_diarization"] == ""
    assert state["remaining_time_diarization"] == 0


async def test_words_wait_for_their_speaker_in_a_buffer_of_their_own() -> None:
    diarizer = FakeDiarizer(TURNS)
    diarizer.faults.gate.clear()
    async with (
        mesh_at_port(1.0, 2.0, diarizer=diarizer, diarize=True, speaker_wait_s=60) as (_, port),
        asr_client(port) as client,
    ):
        await client.say(4)
        async with asyncio.timeout(10):
            while True:
                state = json.loads(await client.socket.recv())
                if state.get("buffer_diarization") == " w0 w1":
                    break
        assert (state["lines"], state["buffer_transcription"]) == ([], "")
        assert state["status"] == "active_transcription"
        assert state["remaining_time_diarization"] > 1
        diarizer.faults.gate.set()
        *_, last, _end = await client.finish()
    assert text_of(last) == "w0 w1"


@pytest.mark.parametrize(
    ("diarize", "query"), [(False, ""), (False, "?diarization="), (True, "?diarization=false")]
)
async def test_nobody_is_told_apart_unless_that_is_wanted(diarize: bool, query: str) -> None:
    diarizer = FakeDiarizer(TURNS)
    async with (
        mesh_at_port(3.0, 9.0, diarizer=diarizer, diarize=diarize) as (_, port),
        asr_client(port, query) as client,
    ):
        await client.say(11)
        *_, last, _end = await client.finish()
    assert [(line["speaker"], line["text"]) for line in last["lines"]] == [
        (1, "w0"),
        (-2, ""),
        (1, "w1"),
    ]
    assert not diarizer.opens


async def test_without_a_diarizer_everybody_is_one_speaker() -> None:
    async with mesh_at_port(1.0, 3.0, diarize=True) as (_, port), asr_client(port) as client:
        await client.say(4)
        *_, last, _end = await client.finish()
    assert [(line["speaker"], line["text"]) for line in last["lines"]] == [(1, "w0 w1")]


@pytest.mark.parametrize("mode", ["full", "diff"])
async def test_every_word_is_in_a_line_however_short_the_audio_is(mode: str) -> None:
    """P2: nothing stays behind with the diarizer."""
    said = words_at(*(tenths / 10 for tenths in range(30)), length_s=0.09)
    diarizer = FakeDiarizer([(1 + at % 3, at * RATE // 2, (at + 1) * RATE // 2) for at in range(6)])
    async with (
        running(FakeVad([(0, 3 * RATE)]), FakeAsr(said), diarizer, diarize=True) as mesh,
        served(mesh.gateway) as port,
    ):
        for tenths in range(1, 31):
            async with asr_client(port, f"?mode={mode}") as client:
                await client.say(tenths / 10)
                _config, *messages, _end = await client.finish()
            state = last_state(messages)
            assert text_of(state).split() == [word.text.strip() for word in said[:tenths]]
            assert state["buffer_diarization"] == ""


@pytest.mark.row("A2")
@pytest.mark.trap(13)
async def test_a_conversation_in_diff_mode() -> None:
    """Every word once, whatever grew."""
    starts = [0.5 * i for i in range(1, 120) if i % 20]
    async with (
        mesh_at_port(*starts) as (mesh, port),
        asr_client(port, "?mode=diff&language=auto") as client,
    ):
        await client.say(62, pause_s=0.002)
        config, *messages, _end = await client.finish()
        words = [word.text for word in mesh.asr.words]
    assert config["mode"] == "diff"
    assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
    assert messages[0]["type"] == "snapshot"
    state = None
    for message in messages:
        state = apply(state, message)
    assert state is not None
    assert text_of(state).split() == " ".join(words).split()
    assert len(messages) > 3


async def test_a_mode_nobody_knows_is_full_and_echoed() -> None:
    async with mesh_at_port() as (_, port), asr_client(port, "?mode=other") as client:
        config, state, _end = await client.finish()
    assert config["mode"] == "other"
    assert state["status"] == "no_audio_detected"
    assert "type" not in state


@pytest.mark.row("A3")
@pytest.mark.parametrize(
    "query", ["?language=tlh", "?model=none", "?target_language=fr", "?diarization=maybe"]
)
async def test_what_cannot_be_done_is_said_before_the_close(query: str) -> None:
    async with mesh_at_port() as (_, port), asr_client(port, query) as client:
        message = json.loads(await client.socket.recv())
        assert message["type"] == "error"
        assert message["error"]
        with pytest.raises(ConnectionClosed) as closed:
            await client.socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400


@pytest.mark.row("A3")
async def test_text_frames_odd_sizes_and_late_audio_do_no_harm() -> None:
    """P29."""
    chance = random.Random(29)
    async with mesh_at_port(0.5, 1.5) as (_, port), asr_client(port) as client:
        left = 2 * 3 * RATE
        while left:
            size = min(left, chance.randrange(1, 9001))
            await client.socket.send(bytes(size))
            left -= size
            await client.socket.send(chance.choice(["{", '{"type":"x"}', "stop", "\u2028", "[]"]))
        await client.socket.send(b"")
        await client.socket.send(bytes(3200))
        await client.socket.send(b"")
        *_, last, end = await client.until_ready_to_stop()
        assert end == {"type": "ready_to_stop"}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.socket.recv(), 0.3)
    assert text_of(last) == "w0 w1"


async def test_silence_sends_no_content_and_at_most_one_lag_a_second() -> None:
    """P5."""
    async with mesh_at_port() as (_, port), asr_client(port) as client:
        began = time.monotonic()
        await client.say(60, pause_s=0.005)
        _config, *states, _end = await client.finish()
        elapsed_s = time.monotonic() - began
    assert {state["status"] for state in states} == {"no_audio_detected"}
    assert len(states) <= elapsed_s + 2


@pytest.mark.trap(6)
async def test_a_dying_recogniser_is_not_the_clients_business() -> None:
    """F2. P1: no error message, which would blank the page; every word."""
    async with mesh_at_port(*range(1, 10)) as (mesh, port), asr_client(port) as client:
        mesh.asr.faults.once = {3 * RATE: DeviceError("x"), 6 * RATE: ZeroDivisionError}
        await client.say(11)
        messages = await client.finish()
    assert text_of(messages[-2]).split() == [f"w{i}" for i in range(9)]
    assert not any("error" in message for message in messages)


@pytest.mark.parametrize("mode", ["full", "diff"])
async def test_a_session_that_cannot_go_on_says_so_and_still_ends(mode: str) -> None:
    async with (
        mesh_at_port(1.0, 5.0, asr_patience_s=0.2) as (mesh, port),
        asr_client(port, f"?mode={mode}") as client,
    ):
        mesh.asr.faults.always = {round(5.2 * RATE): DeviceError("boom")}
        await client.say(8)
        messages = await client.finish()
    *_, before, failure, end = messages
    assert end == {"type": "ready_to_stop"}
    assert failure["status"] == "error"
    assert "asr" in failure["error"]
    assert sum(message.get("type") == "ready_to_stop" for message in messages) == 1
    if mode == "full":
        assert text_of(before) == "w0", "what was said is sent before it is blanked"
        assert failure["lines"] == []


async def test_a_bug_still_ends_with_ready_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("services.gateway.session.Session.run", broken)
    async with mesh_at_port() as (_, port), asr_client(port) as client:
        await client.say(1)
        *_, failure, end = await client.until_ready_to_stop()
    assert failure["error"] == "internal error"
    assert end == {"type": "ready_to_stop"}


async def test_a_file_sent_where_pcm_was_asked_for_is_decoded() -> None:
    async with mesh_at_port(0.5, 1.5) as (_, port), asr_client(port) as client:
        data = io.BytesIO()
        with wave.open(data, "wb") as file:
            file.setparams((2, 2, 48_000, 0, "NONE", ""))
            file.writeframes(bytes(4 * 3 * 48_000))
        body = data.getvalue()
        for start in range(0, len(body), 10_000):
            await client.socket.send(body[start : start + 10_000])
        *_, last, _end = await client.finish()
    assert text_of(last) == "w0 w1"


async def test_bytes_that_are_no_container_are_an_error_where_one_was_asked_for() -> None:
    """P18."""
    async with mesh_at_port(pcm_input=False) as (_, port), asr_client(port) as client:
        await client.socket.send(b"this is not audio, whatever one makes of it" * 100)
        config, *_, failure, _end = await client.finish()
    assert config["useAudioWorklet"] is False
    assert failure["status"] == "error"


@pytest.mark.parametrize(
    ("query", "worklet"), [("?format=pcm", True), ("?format=container", False)]
)
async def test_the_client_may_choose_what_it_sends(query: str, worklet: bool) -> None:
    async with (
        mesh_at_port(pcm_input=not worklet) as (_, port),
        asr_client(port, query) as client,
    ):
        config, *_ = await client.finish()
    assert config["useAudioWorklet"] is worklet


async def test_a_silent_client_is_taken_to_have_finished() -> None:
    async with mesh_at_port(0.5, idle_s=0.4) as (_, port), asr_client(port) as client:
        await client.say(2)
        *_, last, _end = await client.until_ready_to_stop()
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(20):
                await client.socket.recv()
    assert text_of(last) == "w0"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000


async def test_a_client_that_reads_slowly_gets_the_latest_state() -> None:
    """O3."""
    starts = [0.5 * i for i in range(1, 400)]
    async with mesh_at_port(*starts) as (_, port), asr_client(port) as client:
        await client.say(200)
        await client.socket.send(b"")
        await asyncio.sleep(1.5)  # it does not read meanwhile
        *_, last, _end = await client.until_ready_to_stop()
    assert len(text_of(last).split()) == 399
    assert len(client.messages) < 399 / 2


async def test_the_whole_transcript_is_sent_the_more_rarely_the_longer_it_is() -> None:
    starts = [0.4 * i for i in range(1, 750)]
    async with mesh_at_port(*starts) as (_, port), asr_client(port) as client:
        began = time.monotonic()
        await client.say(300)
        messages = await client.finish()
        elapsed_s = time.monotonic() - began
    sizes = [len(json.dumps(message)) for message in messages]
    assert sum(sizes) < 80_000 * elapsed_s + 3 * max(sizes)


async def test_fifty_clients_connect_while_others_talk() -> None:
    """P27: nobody waits for somebody else's session to be built."""
    starts = [0.3 * i for i in range(1, 200)]
    arrived: list[float] = []

    async def listen(client: Client) -> None:
        async for _text in client.socket:
            arrived.append(time.monotonic())  # noqa: PERF401 -- it is the moment that counts

    async def visit(port: int) -> str:
        async with asr_client(port) as client:
            await client.say(1)
            *_, end = await client.finish()
            return str(end["type"])

    async with mesh_at_port(*starts, max_sessions=100) as (_, port), asr_client(port) as live:
        hear = asyncio.create_task(listen(live))
        talk = asyncio.create_task(live.say(12, pause_s=0.02))
        await asyncio.sleep(0.5)  # it is in full flow
        assert await asyncio.gather(*(visit(port) for _ in range(50))) == ["ready_to_stop"] * 50
        await talk
        hear.cancel()
    assert max(after - before for before, after in pairwise(arrived)) < 2.0


async def test_clients_that_vanish_leave_nothing_behind() -> None:
    """P16: 200 connections, dropped at any moment."""
    async with mesh_at_port(0.2, max_sessions=200) as (mesh, port):
        async with asr_client(port) as client:
            await client.finish()
        await asyncio.sleep(0.2)  # the first connection is gone
        before = len(asyncio.all_tasks())

        async def visit(number: int) -> None:
            async with connect(f"ws://127.0.0.1:{port}/asr") as socket:
                for _ in range(number % 7):
                    await socket.send(bytes(3200))
                if number % 2:
                    socket.transport.abort()

        for start in range(0, 200, 25):
            await asyncio.gather(*(visit(start + i) for i in range(25)))
        async with asyncio.timeout(20):
            while mesh.asr.live or mesh.vad.live or len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 -- nobody says when a task is gone
                await asyncio.sleep(0.05)
        async with asr_client(port) as client:
            await client.finish()


async def test_a_handshake_that_is_refused_is_no_fault_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with mesh_at_port(max_sessions=1) as (_, port), asr_client(port):
        with pytest.raises(InvalidStatus):
            async with asr_client(port):
                pass
    assert caplog.records == []


async def test_a_stopping_gateway_brings_the_last_words_home() -> None:
    async with mesh_at_port(0.5, 1.5) as (mesh, port), asr_client(port) as client:
        await client.say(2)
        await until(lambda: mesh.vad.heard_sample == 2 * RATE)
        await mesh.gateway.drain(1.0)
        *_, last, _end = await client.until_ready_to_stop()
        with pytest.raises(InvalidStatus):
            async with asr_client(port):
                pass
    assert text_of(last) == "w0 w1"


async def test_a_client_in_diff_mode_that_lost_count_gets_everything_again() -> None:
    async with mesh_at_port(1.0, 9.0) as (_, port), asr_client(port, "?mode=diff") as client:
        await client.say(8)
        async with asyncio.timeout(10):
            while "w0" not in json.dumps(client.messages):
                client.messages.append(json.loads(await client.socket.recv()))
            for text in ("not json", "[]", '{"type": "other"}', '{"type": "snapshot"}'):
                await client.socket.send(text)
            while client.messages[-1]["type"] != "snapshot":
                client.messages.append(json.loads(await client.socket.recv()))
        await client.say(4)
        _, *states, _ = await client.finish()
    assert [state["seq"] for state in states] == list(range(1, len(states) + 1))
    snapshots = [state for state in states if state["type"] == "snapshot"]
    assert len(snapshots) == 2
    assert "w0" in text_of(snapshots[1])


@pytest.mark.row("A3")
@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 401),
        ("?token=wrong", {}, 401),
        ("?token=secret", {}, None),
        ("", {"Authorization": "Bearer secret"}, None),
        ("", {"Authorization": "Token secret"}, None),
        ("", {"Authorization": "token wrong"}, 401),
        ("?token=secret", {"Origin": "https://good.example"}, None),
        ("?token=secret", {"Origin": "https://evil.example"}, 403),
    ],
)
async def test_who_may_connect(query: str, headers: dict[str, str], status: int | None) -> None:
    origins = ("https://good.example",)
    async with mesh_at_port(keys={"alice": "secret"}, origins=origins) as (_, port):
        if status is None:
            async with asr_client(port, query, additional_headers=headers) as client:
                await client.finish()
            return
        with pytest.raises(InvalidStatus) as refused:
            async with asr_client(port, query, additional_headers=headers):
                pass
        assert refused.value.response.status_code == status
