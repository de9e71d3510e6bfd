"""OpenAI's SDKs and recordings: O1 and O4 of the matrix."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.conftest import ServedMesh
from tests.mesh.asr import BECKETT
from tests.mesh.wording import assert_same_words
from tests.protocols.conftest import KEY, Observed, OwnMesh, RunClient, assert_heard
from tests.protocols.test_realtime import transcripts

SEGMENT_FIELDS = {
    *("id", "seek", "start", "end", "text", "tokens"),
    *("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"),
}


@pytest.fixture(scope="module")
def wav(speech: Path) -> str:
    return str(speech / "beckett.wav")


@pytest.mark.row("O1")
@pytest.mark.trap(8, 12)
async def test_openais_sdk_for_python_reads_every_form_of_answer(
    keyed_mesh: ServedMesh, wav: str, run_client: RunClient
) -> None:
    arguments = ("openai_rest.py", f"{keyed_mesh.http_url}/v1", KEY, wav, "transcribe")
    versions = ("openai-3", "openai-2", "openai-1")
    for name in versions:
        # Each asks for so much at once that all together would be refused some of it.
        observed = await run_client(name, *arguments)
        check_texts(observed)
        check_verbose(observed)
        check_streams(observed)
        check_speakers(observed)
        check_refusals(observed)
        check_models([line["answer"] for line in observed if line["what"] == "models"])
        assert answer_to("model", observed)["id"] == "whisper-1"


def answer_to(what: str, observed: Observed) -> Any:
    (line,) = [line for line in observed if line["what"] == what]
    return line["answer"]


def classes(observed: Observed) -> dict[str, str]:
    return {line["what"]: line["class"] for line in observed}


def check_texts(observed: Observed) -> None:
    assert classes(observed)["json"] == "Transcription"
    answer = answer_to("json", observed)
    assert_same_words(BECKETT, answer["text"])
    assert answer["usage"] == {"type": "duration", "seconds": 10.0}
    assert_same_words(BECKETT, answer_to("named", observed)["text"])
    forms = {form: answer_to(form, observed) for form in ("text", "srt", "vtt")}
    assert_written(forms)


def assert_written(forms: dict[str, Any]) -> None:
    """Text and subtitles, which are no JSON."""
    assert all(isinstance(written, str) for written in forms.values())
    assert_same_words(BECKETT, forms["text"])
    assert re.match(r"1\n00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}\n", forms["srt"])
    assert re.match(r"WEBVTT\n\n00:00:\d\d\.\d{3} --> 00:00:\d\d\.\d{3}\n", forms["vtt"])


def check_verbose(observed: Observed) -> None:
    for what in ("verbose_json", "words"):
        assert classes(observed)[what] == "TranscriptionVerbose"
        answer = answer_to(what, observed)
        assert_verbose(answer)
        assert bool(answer["words"]) is (what == "words")


def assert_verbose(answer: dict[str, Any]) -> None:
    assert_same_words(BECKETT, answer["text"])
    assert answer["language"] == "english"
    assert answer["duration"] == pytest.approx(9.96, abs=0.1)
    assert answer["segments"]
    for segment in answer["segments"]:
        assert segment.keys() >= SEGMENT_FIELDS
        assert None not in segment.values()
    for word in answer["words"] or ():
        assert 0 <= word["start"] <= word["end"] <= answer["duration"]


def check_streams(observed: Observed) -> None:
    for what in ("stream", "logprobs"):
        events = [line for line in observed if line["what"] == what]
        *deltas, done = events
        assert {delta["class"] for delta in deltas} == {"TranscriptionTextDeltaEvent"}
        assert done["class"] == "TranscriptionTextDoneEvent"
        text = "".join(delta["answer"]["delta"] for delta in deltas)
        assert text == done["answer"]["text"]
        assert_same_words(BECKETT, text)
        assert bool(done["answer"]["logprobs"]) is (what == "logprobs")


def check_speakers(observed: Observed) -> None:
    """One, for it is one who reads. The oldest SDK knows no such answers, and has their fields."""
    assert classes(observed)["diarized_json"] in {"TranscriptionDiarized", "Transcription"}
    answer = answer_to("diarized_json", observed)
    assert (answer["task"], answer["usage"]) == (
        "transcribe",
        {"type": "duration", "seconds": 10.0},
    )
    assert answer["duration"] == pytest.approx(9.96, abs=0.1)
    assert_same_words(BECKETT, answer["text"].removeprefix("A: "))
    *segments, done = (line["answer"] for line in observed if line["what"] == "speakers")
    assert done["type"] == "transcript.text.done"
    assert done["text"] == answer["text"]
    deltas = [event for event in segments if event["type"] == "transcript.text.delta"]
    assert "".join(delta["delta"] for delta in deltas) == answer["text"]
    told = [event for event in segments if event["type"] == "transcript.text.segment"]
    for found in (answer["segments"], told):
        assert {segment["speaker"] for segment in found} == {"A"}
        assert [segment["id"] for segment in found] == [delta["segment_id"] for delta in deltas]
        assert_same_words(BECKETT, " ".join(segment["text"] for segment in found))
        for segment in found:
            assert 0 <= segment["start"] <= segment["end"] <= answer["duration"]


def check_refusals(observed: Observed) -> None:
    refused = {line["what"]: line for line in observed if "error" in line}
    assert refused.keys() == {"garbage", "unknown"}
    assert refused["garbage"]["class"] == "BadRequestError"
    assert refused["unknown"]["class"] == "NotFoundError"
    assert refused["unknown"]["error"]["code"] == "model_not_found"
    for line in refused.values():
        assert line["error"]["message"]
        assert line["error"]["type"] == "invalid_request_error"


def check_models(models: list[dict[str, Any]]) -> None:
    assert models
    for model in models:
        assert (model["object"], type(model["created"])) == ("model", int)
        assert model["id"]
        assert model["owned_by"]


@pytest.mark.row("O1")
async def test_openais_sdk_for_python_gets_translations(
    mesh_base: ServedMesh, wav: str, run_client: RunClient
) -> None:
    """English stays English: that the model translates is not the question here."""
    arguments = ("openai_rest.py", f"{mesh_base.http_url}/v1", KEY, wav, "translate")
    versions = ("openai-3", "openai-2", "openai-1")
    for observed in await asyncio.gather(*(run_client(name, *arguments) for name in versions)):
        assert classes(observed) == {"json": "Translation", "verbose_json": "TranslationVerbose"}
        assert_heard(answer_to("json", observed)["text"], BECKETT)
        verbose = answer_to("verbose_json", observed)
        assert verbose["language"] == "english"
        assert float(verbose["duration"]) == pytest.approx(9.96, abs=0.1)
        assert_heard(verbose["text"], BECKETT)


@pytest.mark.row("O4")
@pytest.mark.trap(8, 10)
async def test_openais_sdk_for_javascript_reads_recordings_and_connects_with_tls(
    keys_file: Path,
    own_mesh: OwnMesh,
    wav: str,
    spoken_24k: Path,
    run_client: RunClient,
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("gateway")
    options = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key))
    with own_mesh("tiny.en", *options, GATEWAY_KEYS_FILE=str(keys_file)) as mesh:
        observed = await run_client(
            "openai-js",
            "openai_js.mjs",
            f"https://localhost:{mesh.port}/v1",
            KEY,
            str(spoken_24k),
            wav,
            NODE_EXTRA_CA_CERTS=str(authority.file),
        )
    answers = {line["what"]: line["answer"] for line in observed if line["type"] == "answer"}
    assert_same_words(BECKETT, answers.pop("json")["text"])
    verbose = answers.pop("verbose_json")
    assert_verbose(verbose)
    assert verbose["words"]
    assert_written(answers)
    deltas = [event["delta"] for event in of(observed, "transcript.text.delta")]
    (done,) = of(observed, "transcript.text.done")
    assert "".join(deltas) == done["text"]
    (refusal,) = of(observed, "refusal")
    assert refusal["status"] == 400
    assert refusal["error"].keys() == {"message", "type", "param", "code"}
    check_models([line["model"] for line in of(observed, "model")])

    events = [event for event in observed if "event_id" in event]
    assert events[0]["type"] == "session.created"
    assert of(observed, "error") == []
    assert_same_words(BECKETT, " ".join(transcripts(observed)))


def of(observed: Observed, kind: str) -> Observed:
    return [line for line in observed if line["type"] == kind]
