"""What clients of ``/v1/listen`` send that no SDK does, or that none does on purpose."""

import asyncio

import pytest

from tests.gateway.listening import RAW, listener, mesh_at_port, text_of


@pytest.mark.row("W14")
@pytest.mark.trap(11)
@pytest.mark.parametrize(
    "option",
    [
        *("no_delay=true", "filler_words=true", "tier=nova", "foo=bar", "utterances=true"),
        *("diarize_version=3", "alternatives=1", "model=None", "extra=a:b", "tag=a&tag=b"),
        *("mip_opt_out=true", "version=latest", "dictation=true", "numerals=true"),
        *("profanity_filter=true", "replace=a:b", "search=x", "measurements=true"),
        *("detect_language=false", "interim_results=false&vad_events=false&diarize=false"),
    ],
)
async def test_a_parameter_that_changes_nothing_here_is_taken(option: str) -> None:
    async with mesh_at_port(0.5) as (_, port), listener(port, f"{RAW}&{option}") as client:
        await client.say(1)
        assert (await client.finish())[-1]["type"] == "Metadata"
    assert client.text == "w0"
    assert {message["type"] for message in client.messages} == {"Results", "Metadata"}


@pytest.mark.row("W16", "W18")
@pytest.mark.parametrize(
    "option", ["endpointing=10", "endpointing=300", "endpointing=5000", "utterance_end_ms=1000"]
)
async def test_whenever_an_utterance_ends_every_word_is_told(option: str) -> None:
    async with mesh_at_port(0.5, 3) as (_, port), listener(port, f"{RAW}&{option}") as client:
        await client.say(6, pause_s=0.005)
        await client.finish()
    assert client.text == "w0 w1"


@pytest.mark.row("W25")
async def test_a_ping_is_answered_while_the_recogniser_is_busy() -> None:
    async with mesh_at_port(0.5) as (mesh, port), listener(port) as client:
        mesh.asr.faults.gate.clear()
        await client.say(30)
        async with asyncio.timeout(20):
            await (await client.socket.ping())
        mesh.asr.faults.gate.set()
        await client.finish()
    assert client.text == "w0"


@pytest.mark.trap(2)
@pytest.mark.parametrize("option", ["", "&interim_results=true", "&language=multi&endpointing=10"])
async def test_every_result_has_every_field_that_some_client_needs(option: str) -> None:
    async with mesh_at_port(0.5, 3) as (_, port), listener(port, RAW + option) as client:
        await client.say(6, pause_s=0.005)
        await client.finish()
    assert any(map(text_of, client.of("Results")))
    assert not all(map(text_of, client.of("Results")))
    for result in client.of("Results"):
        assert result.keys() == {
            *("type", "channel_index", "duration", "start", "is_final", "speech_final"),
            *("channel", "metadata", "from_finalize"),
        }
        assert result["metadata"].keys() == {"request_id", "model_info", "model_uuid"}
        assert result["metadata"]["model_info"].keys() == {"name", "version", "arch"}
        (alternative,) = result["channel"]["alternatives"]
        assert alternative.keys() - {"languages"} == {"transcript", "confidence", "words"}
        assert alternative.get("languages", [""])
        for word in alternative["words"]:
            assert word.keys() >= {"word", "start", "end", "confidence"}
