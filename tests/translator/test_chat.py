import json

import pytest

from services.common.errors import DeviceError
from services.translator.engines.chat import Chat
from services.translator.translator import Job
from tests.translator.chat_server import endpoint
from tests.translator.harness import EN_PT, follow, text_of


def chat(url: str, *, key: str = "", timeout_s: float = 5) -> Chat:
    return Chat(url, "some-model", key=key, timeout_s=timeout_s)


def test_it_asks_for_a_translation_between_languages_by_name() -> None:
    with endpoint() as served:
        [made] = chat(served.url, key="secret").translate([Job(EN_PT, "good morning")])
    assert made.text == "GOOD MORNING"
    [asked] = served.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["model"] == "some-model"
    assert asked["stream"] is True
    assert "from English into Portuguese" in asked["messages"][0]["content"]
    assert asked["messages"][1] == {"role": "user", "content": "good morning"}
    assert served.keys == ["Bearer secret"]


async def test_a_stream_is_translated_with_it() -> None:
    with endpoint() as served:
        events = await follow(chat(served.url), "it was the best of times.", "it", "was")
    assert text_of(events) == " IT WAS THE BEST OF TIMES. IT WAS"


def test_an_answer_that_runs_on_is_cut_off_and_lines_become_spaces() -> None:
    with endpoint() as served:
        served.lines = ["data: " + json.dumps({"choices": [{"delta": {"content": "a\nb "}}]})] * 999
        [made] = chat(served.url).translate([Job(EN_PT, "hi")])
    assert 100 < len(made.text) <= 208
    assert "\n" not in made.text


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([": a comment", 'data: {"choices": []}', 'data: {"usage": {}}'], ""),
        (['data:{"choices":[{"delta":{"role":"assistant"}}]}'], ""),
        (['data: {"choices": [{"delta": {"content": null}}]}'], ""),
        (["event: x", 'data: {"choices": [{"delta": {"content": "Olá"}}]}'], "Olá"),
    ],
)
def test_events_without_text_are_no_text(lines: list[str], text: str) -> None:
    with endpoint() as served:
        served.lines = lines
        assert chat(served.url).translate([Job(EN_PT, "hi")])[0].text == text


@pytest.mark.parametrize(
    ("status", "lines", "says"),
    [
        (500, None, "500"),
        (401, None, "401"),
        (200, ["data: {not json"], "the chat endpoint failed"),
        (200, ["data: 5"], "the chat endpoint failed"),
        (200, ['data: {"choices": ["a"]}'], "the chat endpoint failed"),
    ],
)
def test_an_endpoint_that_fails_is_a_device_that_fails(
    status: int, lines: list[str] | None, says: str
) -> None:
    with endpoint() as served:
        served.status, served.lines = status, lines
        with pytest.raises(DeviceError, match=says):
            chat(served.url).translate([Job(EN_PT, "hi")])


def test_an_endpoint_that_keeps_silent_or_is_not_there_is_not_waited_for() -> None:
    with endpoint() as served:
        served.silent.set()
        with pytest.raises(DeviceError, match="timed out"):
            chat(served.url, timeout_s=0.2).translate([Job(EN_PT, "hi")])
    with pytest.raises(DeviceError, match="the chat endpoint failed"):
        chat(served.url).translate([Job(EN_PT, "hi")])
