"""``/v1/realtime``, as its clients see it."""

import asyncio
import base64
import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.common.errors import DeviceError
from tests.gateway.fakes import RATE, FakeDiarizer
from tests.gateway.realtime import MANUAL, TRANSCRIPTION, Client, Told, connected, mesh_at_port
from tests.settings.serving import until

COMPLETED = f"{TRANSCRIPTION}.completed"
SHORT_TURNS = {
    "type": "transcription",
    "audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 300}}},
}
PCM16 = base64.b64encode(bytes(4800)).decode()


def input_of(message: Told) -> Any:
    return message["session"]["audio"]["input"]


async def closed(client: Client) -> int:
    with pytest.raises(ConnectionClosed) as closing:
        while True:
            await client.next()
    assert closing.value.rcvd is not None
    return closing.value.rcvd.code


async def test_turns_become_items_one_after_the_other() -> None:
    """W1."""
    async with mesh_at_port(1.0, 1.5, 4.0, 4.5) as (_, port), connected(port) as client:
        created = await client.next()
        assert created["type"] == "session.created"
        assert created["id"] == created["session"]["id"]
        updated = await client.update(**SHORT_TURNS)
        assert updated["session"]["type"] == "transcription"
        await client.say(7)
        await client.until(COMPLETED, times=2)
    turn = [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        f"{TRANSCRIPTION}.delta",
        COMPLETED,
    ]
    # A turn may begin before the one before it is transcribed.
    told_of: dict[str, list[str]] = {}
    for event in client.told:
        item = event.get("item_id") or event.get("item", {}).get("id")
        kinds = told_of.setdefault(item, []) if item else []
        if event["type"] in turn and event["type"] not in kinds:
            kinds.append(event["type"])
    assert list(told_of.values()) == [turn, turn]
    assert list(client.transcripts().values()) == ["w0 w1", "w2 w3"]
    first, second = client.of("input_audio_buffer.committed")
    assert first["previous_item_id"] is None
    assert second["previous_item_id"] == first["item_id"] != second["item_id"]
    started, stopped = client.told[2], client.of("input_audio_buffer.speech_stopped")[0]
    assert started["item_id"] == stopped["item_id"] == first["item_id"]
    assert 600 <= started["audio_start_ms"] <= 700
    assert 1900 <= stopped["audio_end_ms"] <= 2000
    completed = client.of(COMPLETED)[0]
    assert completed["content_index"] == 0
    assert completed["usage"]["type"] == "duration"
    assert len({message["event_id"] for message in client.told}) == len(client.told)


async def test_without_a_vad_turns_end_where_no_word_follows() -> None:
    """F5."""
    async with (
        mesh_at_port(1.0, 1.5, 5.0, vad_patience_s=0.2) as (mesh, port),
        connected(port) as client,
    ):
        await mesh.vad_replica.kill()
        await client.update(**SHORT_TURNS)
        await client.say(3.5)
        await client.until(COMPLETED)
        await client.say(3.5)
        await client.until(COMPLETED)
    assert list(client.transcripts().values()) == ["w0 w1", "w2"]
    assert [event["audio_end_ms"] for event in client.of("input_audio_buffer.speech_stopped")] == [
        1900,
        5400,
    ]


async def test_a_client_that_ends_its_turns_gets_what_it_said_up_to_there() -> None:
    async with mesh_at_port(1.0, 1.5, 4.0, 7.0) as (_, port), connected(port) as client:
        updated = await client.update(**MANUAL)
        assert input_of(updated)["turn_detection"] is None
        await client.say(2.2)
        await client.send("input_audio_buffer.commit")
        await client.until(COMPLETED)
        await client.say(3)
        await client.send("input_audio_buffer.clear")
        await client.send("input_audio_buffer.commit", event_id="mine")
        error = (await client.until("error"))["error"]
        assert error["code"] == "input_audio_buffer_commit_empty"
        assert (error["type"], error["event_id"]) == ("invalid_request_error", "mine")
        await client.say(3)
        await client.send("input_audio_buffer.commit")
        await client.until(COMPLETED)
    assert "input_audio_buffer.cleared" in client.kinds()
    assert "input_audio_buffer.speech_started" not in client.kinds()
    assert list(client.transcripts().values()) == ["w0 w1", "w3"]
    assert [item["usage"]["seconds"] for item in client.of(COMPLETED)] == [2.2, 3.0]


@pytest.mark.trap(9)
async def test_silence_that_is_committed_is_an_item_without_text() -> None:
    async with mesh_at_port() as (_, port), connected(port) as client:
        await client.update(**MANUAL)
        await client.say(0.5)
        await client.send("input_audio_buffer.commit")
        completed = await client.until(COMPLETED)
    assert completed["transcript"] == ""
    assert completed["usage"] == {"type": "duration", "seconds": 0.5}


async def test_a_client_may_end_a_turn_before_the_speaker_does() -> None:
    async with mesh_at_port(1.0, 1.4, 1.9, 2.3) as (_, port), connected(port) as client:
        await client.update(**SHORT_TURNS)
        await client.say(1.85)
        await client.send("input_audio_buffer.commit")
        await client.until(COMPLETED)
        await client.say(3)
        await client.until(COMPLETED)
    assert list(client.transcripts().values()) == ["w0 w1", "w2 w3"]
    started = client.of("input_audio_buffer.speech_started")
    committed = client.of("input_audio_buffer.committed")
    assert [item["item_id"] for item in started] == [item["item_id"] for item in committed]
    assert started[1]["audio_start_ms"] == 1850


async def test_words_are_told_while_the_turn_goes_on() -> None:
    starts = [0.3 * i for i in range(1, 20)]
    async with mesh_at_port(*starts) as (_, port), connected(port) as client:
        await client.update(**MANUAL)
        await client.say(4)
        delta = await client.until(f"{TRANSCRIPTION}.delta")
        await client.say(4)
        await client.send("input_audio_buffer.commit")
        completed = await client.until(COMPLETED)
    assert completed["item_id"] == delta["item_id"]
    assert completed["transcript"].startswith(delta["delta"])
    assert list(client.transcripts().values()) == [" ".join(f"w{i}" for i in range(19))]


@pytest.mark.parametrize(
    ("audio_format", "rate_hz", "sample_bytes"),
    [
        ({"type": "audio/pcm", "rate": 24000}, 24_000, 2),
        ({"type": "audio/pcm", "rate": 16000}, 16_000, 2),
        ({"type": "audio/pcmu"}, 8000, 1),
        ({"type": "audio/pcma"}, 8000, 1),
        ("pcm16", 24_000, 2),
        ("g711_ulaw", 8000, 1),
    ],
)
async def test_audio_is_taken_in_every_format_however_it_is_cut(
    audio_format: object, rate_hz: int, sample_bytes: int
) -> None:
    session = {"audio": {"input": {"format": audio_format, "turn_detection": None}}}
    async with mesh_at_port(1.0) as (mesh, port), connected(port) as client:
        await client.update(**session)
        await client.say(2, rate_hz=rate_hz, sample_bytes=sample_bytes, block=1001)
        await client.send("input_audio_buffer.commit")
        completed = await client.until(COMPLETED)
    assert completed["transcript"] == "w0"
    assert completed["usage"]["seconds"] == 2
    assert mesh.asr.streams[-1].end >= 1.4 * RATE


async def test_audio_in_binary_frames_is_audio_too() -> None:
    async with mesh_at_port(1.0) as (_, port), connected(port) as client:
        await client.update(**MANUAL)
        await client.socket.send(bytes(2 * 48_000))
        await client.send("input_audio_buffer.commit")
        assert (await client.until(COMPLETED))["transcript"] == "w0"


@pytest.mark.trap(9)
@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ("not json", "invalid_json", None),
        ("[]", "invalid_event", None),
        ("{}", "invalid_event", None),
        ("[" * 100_000, "invalid_json", None),
        ({"type": "response.create"}, "invalid_event", None),
        ({"type": "conversation.item.retrieve"}, "invalid_event", None),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "?"}, "invalid_value", "audio"),
        (
            {"type": "input_audio_buffer.append", "audio": "A" * (15 * 2**20 + 4)},
            "invalid_value",
            "audio",
        ),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None),
        ({"type": "session.update"}, "invalid_value", "session"),
        (
            {"type": "session.update", "session": {"input_audio_format": "mp3"}},
            "invalid_value",
            "session.input_audio_format",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"transcription": {"model": "none"}}}},
            },
            "model_not_found",
            "model",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"transcription": {"language": "tlh"}}}},
            },
            "invalid_value",
            "session.audio.input.transcription.language",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"transcription": {"language": "de"}}}},
            },
            None,
            None,
        ),
    ],
)
async def test_what_cannot_be_done_is_an_error_and_no_end(
    event: object, code: str, param: str | None
) -> None:
    async with mesh_at_port(1.0) as (_, port), connected(port) as client:
        await client.update(**MANUAL)
        text = event if isinstance(event, str) else json.dumps({**event, "event_id": "e1"})  # type: ignore[dict-item]
        await client.socket.send(text)
        error = (await client.until("error"))["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
        assert error["param"] == param
        assert error["event_id"] == ("e1" if isinstance(event, dict) and param != "audio" else None)
        assert error["message"]
        await client.say(2)
        await client.send("input_audio_buffer.commit")
        assert (await client.until(COMPLETED))["transcript"] == "w0"


async def test_a_long_message_is_taken() -> None:
    audio = base64.b64encode(bytes(2 * 24_000 * 60)).decode()
    async with mesh_at_port(1.0, 50.0) as (_, port), connected(port) as client:
        await client.update(**MANUAL)
        await client.send("input_audio_buffer.append", audio=audio)
        await client.send("input_audio_buffer.commit")
        assert (await client.until(COMPLETED))["transcript"] == "w0 w1"


async def test_what_an_update_asks_for_reaches_the_stages_and_is_shown() -> None:
    session = {
        "type": "transcription",
        "include": ["item.input_audio_transcription.logprobs"],
        "audio": {
            "input": {
                "transcription": {
                    "model": "gpt-4o-transcribe-2025-03-20",
                    "language": "fr",
                    "prompt": "Names",
                    "keywords": ["Zinfandel"],
                },
                "noise_reduction": {"type": "near_field"},
                "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
            }
        },
    }
    async with mesh_at_port(1.0) as (mesh, port), connected(port) as client:
        updated = await client.update(**session)
        await client.say(3)
        completed = await client.until(COMPLETED)
    shown = input_of(updated)
    assert shown["transcription"]["prompt"] == "Names"
    assert shown["noise_reduction"] == {"type": "near_field"}
    assert shown["turn_detection"] == {"type": "semantic_vad", "eagerness": "high"}
    assert shown["format"] == {"type": "audio/pcm", "rate": 24000}
    config = mesh.asr.streams[-1].open.config
    assert (config.language_code, config.prompt) == ("fr", "Names")
    assert list(config.hotwords) == ["Zinfandel"]
    [logprob] = completed["logprobs"]
    assert (logprob["token"], logprob["bytes"]) == ("w0", [119, 48])
    assert logprob["logprob"] <= 0


async def test_an_update_while_somebody_speaks_ends_the_turn_and_loses_nothing() -> None:
    async with mesh_at_port(1.0, 1.5, 2.0, 2.5) as (mesh, port), connected(port) as client:
        await client.update(**SHORT_TURNS)
        await client.say(1.95)
        await client.update(audio={"input": {"transcription": {"language": "fr"}}})
        for word in mesh.asr.words[2:]:  # another stream: its clock starts here
            mesh.asr.words[mesh.asr.words.index(word)] = type(word)(
                word.text, word.first_sample - round(1.95 * RATE), word.end_sample - 31_200
            )
        mesh.vad.events.clear()
        mesh.vad.add(500, 16_000)
        mesh.asr.words[:2] = []
        await client.say(3)
        await client.until(COMPLETED)
    assert list(client.transcripts().values()) == ["w0 w1", "w2 w3"]
    assert mesh.asr.streams[-1].open.config.language_code == "fr"
    first, second = client.of("input_audio_buffer.committed")
    assert second["previous_item_id"] == first["item_id"]
    assert client.of("input_audio_buffer.speech_started")[1]["audio_start_ms"] >= 1950


async def test_an_update_that_changes_nothing_interrupts_nothing() -> None:
    async with mesh_at_port(1.0, 1.5) as (mesh, port), connected(port) as client:
        await client.update(**SHORT_TURNS)
        await client.say(1.4)
        await client.update(**SHORT_TURNS)
        await client.say(2)
        await client.until(COMPLETED)
    assert list(client.transcripts().values()) == ["w0 w1"]
    assert [stream.finished for stream in mesh.asr.streams] == [False, False], "at the handshake"


@pytest.mark.trap(9)
@pytest.mark.parametrize(
    ("query", "session", "shown"),
    [
        ("?intent=transcription", {}, "server_vad"),
        ("?intent=transcription&model=gpt-realtime-whisper", {}, None),
        ("", {"model": "gpt-realtime-whisper"}, None),
        ("", {"model": "gpt-live-transcribe"}, None),
        ("", {"model": "gpt-4o-transcribe"}, "server_vad"),
        ("?model=gpt-4o-realtime-preview", {}, "server_vad"),
    ],
)
async def test_who_ends_turns_follows_from_the_model_unless_it_is_said(
    query: str, session: dict[str, object], shown: str | None
) -> None:
    async with mesh_at_port() as (_, port), connected(port, query) as client:
        updated = await client.update(audio={"input": {"transcription": session}})
        turns = input_of(updated)["turn_detection"]
        assert (turns and turns["type"]) == shown
        chosen = await client.update(
            audio={
                "input": {"transcription": session, "turn_detection": {"type": "server_vad"}},
            }
        )
        assert input_of(chosen)["turn_detection"]["type"] == "server_vad"
        again = await client.update(audio={"input": {"transcription": session}})
        assert input_of(again)["turn_detection"]["type"] == "server_vad"


BETA: dict[str, Any] = {"additional_headers": {"OpenAI-Beta": "realtime=v1"}}


@pytest.mark.trap(12)
@pytest.mark.parametrize(
    ("protocols", "options"),
    [((), BETA), (("realtime", "openai-beta.realtime-v1"), {})],
)
async def test_the_beta_has_its_own_words(
    protocols: tuple[str, ...], options: dict[str, Any]
) -> None:
    session = {
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "gpt-4o-transcribe", "language": "en"},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
        "input_audio_noise_reduction": {"type": "near_field"},
    }
    async with (
        mesh_at_port(1.0) as (_, port),
        connected(port, "?intent=transcription", *protocols, **options) as client,
    ):
        assert (await client.next())["type"] == "transcription_session.created"
        updated = await client.configure("transcription_session.update", session)
        assert updated["type"] == "transcription_session.updated"
        for name in ("input_audio_format", "input_audio_noise_reduction"):
            assert updated["session"][name] == session[name]
        assert updated["session"]["turn_detection"]["silence_duration_ms"] == 300
        assert (await client.update(**session))["type"] == "session.updated"
        await client.say(3)
        await client.until(COMPLETED)
    assert "conversation.item.created" in client.kinds()
    assert "conversation.item.added" not in client.kinds()
    assert list(client.transcripts().values()) == ["w0"]


@pytest.mark.trap(12)
async def test_vllms_clients_get_one_text_for_each_utterance() -> None:
    async with mesh_at_port(1.0, 1.5) as (mesh, port), connected(port, "") as client:
        created = await client.next()
        assert created["type"] == "session.created"
        assert {"id", "created"} <= created.keys()
        await client.send("session.update", model="none")
        error = await client.next()
        assert isinstance(error["error"], str)
        assert error["code"] == "model_not_found"
        await client.send("input_audio_buffer.commit")
        assert (await client.next())["code"] == "model_not_validated"
        await client.send("session.update", model="fake")
        for _ in range(2):
            await client.send("input_audio_buffer.commit")
            await client.say(3, rate_hz=RATE, block=4096)
            await client.send("input_audio_buffer.commit", final=True)
            done = await client.until("transcription.done")
            deltas = client.of("transcription.delta")
            assert "".join(delta["delta"] for delta in deltas) == done["text"] == "w0 w1"
            assert done["usage"].keys() == {"prompt_tokens", "completion_tokens", "total_tokens"}
            client.told.clear()
        await client.send("input_audio_buffer.commit", final=True)
        assert (await client.next())["text"] == ""
    assert mesh.asr.streams[-2].end >= 3 * RATE


def riva_session(**fields: Any) -> dict[str, Any]:
    return {
        "input_audio_format": "none",
        "input_audio_transcription": {"language": "en-US"},
        "input_audio_params": {"sample_rate_hz": 16_000, "num_channels": 1},
        "recognition_config": {"enable_word_time_offsets": True},
        **fields,
    }


@pytest.mark.trap(12)
@pytest.mark.parametrize("protocols", [(), ("realtime", "realtime-token.any")])
async def test_rivas_clients_get_utterances_and_then_everything(protocols: tuple[str, ...]) -> None:
    async with (
        mesh_at_port(1.0, 1.5, 4.0) as (_, port),
        connected(port, "?intent=transcription", *protocols) as client,
    ):
        first = await client.next()
        assert first["type"] == ("conversation.created" if protocols else "session.created")
        await client.send("transcription_session.update", session=riva_session())
        assert (await client.next())["type"] == "transcription_session.updated"
        for _ in range(60):
            await client.say(0.1, rate_hz=RATE)
            await client.send("input_audio_buffer.commit")
        await client.send("input_audio_buffer.done")
        assert await closed(client) == 1000
    *utterances, last = client.of(COMPLETED)
    assert [utterance["transcript"] for utterance in utterances] == ["w0 w1", "w2"]
    assert not any(utterance["is_last_result"] for utterance in utterances)
    assert (last["transcript"], last["is_last_result"]) == ("w0 w1 w2", True)
    assert [word["word"] for word in last["words_info"]["words"]] == ["w0", "w1", "w2"]
    assert last["words_info"]["words"][0]["start_time"] == 1000
    assert client.kinds()[-1] == COMPLETED
    assert "error" not in client.kinds()


@pytest.mark.parametrize("model", ["gpt-4o-transcribe-diarize", "gpt-4o-transcribe"])
@pytest.mark.parametrize("beta", [True, False])
async def test_a_model_of_that_name_says_who_spoke(model: str, beta: bool) -> None:
    diarizer = FakeDiarizer([(1, 0, 2 * RATE), (2, 7 * RATE // 2, 6 * RATE)])
    async with (
        mesh_at_port(1.0, 1.5, 4.0, diarizer=diarizer) as (_, port),
        connected(port) as client,
    ):
        if beta:
            session = {"input_audio_transcription": {"model": model}}
            told = await client.configure("transcription_session.update", session)
            shown = told["session"]["input_audio_transcription"]
        else:
            told = await client.update(
                type="transcription", audio={"input": {"transcription": {"model": model}}}
            )
            shown = input_of(told)["transcription"]
        assert shown["model"] == model
        await client.say(6)
        await client.until(COMPLETED, times=2)
    wanted = model.endswith("diarize")
    items = [item["item_id"] for item in client.of(COMPLETED)]
    segments = client.of(f"{TRANSCRIPTION}.segment")
    assert [(one["item_id"], one["text"], one["speaker"]) for one in segments] == (
        [(items[0], "w0 w1", "A"), (items[1], "w2", "B")] if wanted else []
    )
    assert len(diarizer.opens) == wanted


async def test_without_a_diarizer_everybody_is_one_speaker() -> None:
    async with (
        mesh_at_port(1.0, 4.0) as (_, port),
        connected(port, "?intent=transcription&model=gpt-4o-transcribe-diarize") as client,
    ):
        await client.say(6)
        await client.until(COMPLETED, times=2)
    segments = client.of(f"{TRANSCRIPTION}.segment")
    assert [(one["text"], one["speaker"]) for one in segments] == [("w0", "A"), ("w1", "A")]


@pytest.mark.parametrize("wanted", [True, False])
async def test_rivas_clients_may_ask_who_spoke(wanted: bool) -> None:
    diarizer = FakeDiarizer([(1, 0, 2 * RATE), (2, 7 * RATE // 2, 6 * RATE)])
    apart = {"enable_speaker_diarization": wanted, "max_speaker_count": 2}
    async with (
        mesh_at_port(1.0, 1.5, 4.0, diarizer=diarizer) as (_, port),
        connected(port) as client,
    ):
        session = riva_session(speaker_diarization=apart)
        told = await client.configure("transcription_session.update", session)
        assert told["session"]["speaker_diarization"] == apart
        await client.say(6, rate_hz=RATE)
        await client.send("input_audio_buffer.done")
        assert await closed(client) == 1000
    words = client.of(COMPLETED)[-1]["words_info"]["words"]
    assert [word["speaker_tag"] for word in words] == ([1, 1, 2] if wanted else [0, 0, 0])
    assert [asked.config.max_speakers for asked in diarizer.opens] == ([2] if wanted else [])


@pytest.mark.parametrize(
    ("name", "value"),
    [("enable_speaker_diarization", "yes"), ("max_speaker_count", -1), ("max_speaker_count", "2")],
)
async def test_what_rivas_clients_say_of_speakers_has_to_make_sense(name: str, value: Any) -> None:
    async with mesh_at_port() as (_, port), connected(port) as client:
        session = riva_session(speaker_diarization={name: value})
        told = await client.configure("transcription_session.update", session)
        assert told["error"]["param"] == f"session.speaker_diarization.{name}"


async def test_rivas_clients_may_force_the_end_of_an_utterance() -> None:
    async with mesh_at_port(1.0, 1.4, 1.8) as (_, port), connected(port) as client:
        await client.send("transcription_session.update", session=riva_session())
        await client.say(1.7, rate_hz=RATE)
        options = {"runtime_config": {"force_eou": "true"}}
        await client.send("input_audio_buffer.append", audio=PCM16, **options)
        assert (await client.until(COMPLETED))["transcript"] == "w0 w1"
        await client.say(2, rate_hz=RATE)
        await client.send("input_audio_buffer.done")
        assert await closed(client) == 1000
    assert client.of(COMPLETED)[-1]["transcript"] == "w0 w1 w2"


async def test_a_model_that_is_not_there_refuses_the_handshake() -> None:
    async with mesh_at_port() as (_, port):
        with pytest.raises(InvalidStatus) as refused:
            async with connected(port, "?model=none"):
                pass
    assert refused.value.response.status_code == 404
    body = refused.value.response.body
    assert body is not None
    assert json.loads(body)["error"]["code"] == "model_not_found"


async def test_a_dying_recogniser_is_not_the_clients_business() -> None:
    """F1."""
    async with mesh_at_port(*range(1, 10)) as (mesh, port), connected(port) as client:
        mesh.asr.faults.once = {3 * RATE: DeviceError("x"), 6 * RATE: ZeroDivisionError}
        await client.update(**MANUAL)
        await client.say(11)
        await client.send("input_audio_buffer.commit")
        await client.until(COMPLETED)
    assert list(client.transcripts().values()) == [" ".join(f"w{i}" for i in range(9))]
    assert "error" not in client.kinds()


async def test_a_session_that_cannot_go_on_says_which_items_are_lost() -> None:
    async with (
        mesh_at_port(1.0, 5.0, asr_patience_s=0.2) as (mesh, port),
        connected(port) as client,
    ):
        mesh.asr.faults.always = {round(5.2 * RATE): DeviceError("boom")}
        await client.update(**MANUAL)
        await client.say(8)
        assert await closed(client) == 1013
    *_, failed, error = client.told
    assert failed["type"] == f"{TRANSCRIPTION}.failed"
    assert failed["error"]["type"] == "server_error"
    assert error["type"] == "error"
    assert "asr" in error["error"]["message"]


async def test_a_bug_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("services.gateway.session.Session._feed", broken)
    async with mesh_at_port() as (_, port), connected(port) as client:
        await client.say(1)
        assert await closed(client) == 1011
    assert client.told[-1]["error"]["message"] == "internal error"


async def test_a_session_ends_where_it_is_too_long() -> None:
    async with mesh_at_port(0.5, max_session_s=2) as (_, port), connected(port) as client:
        await client.say(3)
        assert await closed(client) == 1008
    error = client.told[-1]["error"]
    assert (error["code"], error["param"]) == ("audio_too_long", None)


async def test_a_stopping_gateway_brings_the_last_words_home() -> None:
    """G1."""
    async with mesh_at_port(0.5, 1.5) as (mesh, port), connected(port) as client:
        await client.update(**MANUAL)
        await client.say(2)
        await until(lambda: mesh.vad.heard_sample > 1.9 * RATE)
        drain = asyncio.create_task(mesh.gateway.drain(1.0))
        assert await closed(client) == 1012
        await drain
    assert list(client.transcripts().values()) == ["w0 w1"]


async def test_a_silent_client_is_taken_to_have_finished() -> None:
    async with mesh_at_port(0.5, idle_s=0.4) as (mesh, port), connected(port) as client:
        await client.say(2)
        assert await closed(client) == 1000
        assert list(client.transcripts().values()) == ["w0"]
        await until(lambda: mesh.gateway.open_sessions == 0)


async def test_a_client_that_reads_slowly_gets_every_word() -> None:
    """O3."""
    starts = [0.5 * i for i in range(1, 400)]
    async with mesh_at_port(*starts) as (_, port), connected(port) as client:
        await client.update(**MANUAL)
        await client.say(200, block=48_000)
        await client.send("input_audio_buffer.commit")
        await asyncio.sleep(1.5)  # it does not read meanwhile
        await client.until(COMPLETED)
    assert list(client.transcripts().values()) == [" ".join(f"w{i}" for i in range(399))]


async def test_clients_that_vanish_leave_nothing_behind() -> None:
    """C6."""
    async with mesh_at_port(0.2, max_sessions=50) as (mesh, port):

        async def visit(number: int) -> None:
            async with connected(port) as client:
                if number % 3:
                    await client.send("session.update", session=MANUAL)
                await client.say(0.3 * (number % 4))
                if number % 2:
                    client.socket.transport.abort()

        for _ in range(3):
            await asyncio.gather(*(visit(number) for number in range(25)))
        await until(lambda: not (mesh.gateway.open_sessions or mesh.asr.live or mesh.vad.live))


async def test_an_update_needs_no_second_slot_and_waits_for_room() -> None:
    """O2."""
    async with mesh_at_port(1.0, max_sessions=1) as (mesh, port), connected(port) as client:
        await client.update(**MANUAL)
        await client.say(0.5)
        mesh.asr.faults.refusals = 5
        session = {"audio": {"input": {"transcription": {"language": "fr"}}}}
        assert (await client.update(**session))["type"] == "session.updated"
        await client.say(2)
        await client.send("input_audio_buffer.commit")
        assert (await client.until(COMPLETED))["transcript"] == "w0"
        assert mesh.asr.faults.refusals == 0
