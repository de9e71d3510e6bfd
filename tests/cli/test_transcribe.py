"""Uploads, against a server that answers like the OpenAI API does."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli import transcribe
from services.cli.transcribe import Request
from tests.cli.fake_server import FakeServer, serving


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving() as fake:
        yield fake


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("one.wav", "bad.mp3", "three.flac")]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    return paths


async def test_recordings_are_transcribed_in_order_and_a_bad_one_stops_nobody(
    server: FakeServer, recordings: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    request = Request("text", language="de", prompt="Ada", model="base")
    failed = await transcribe.transcribe(server.url, recordings, [None] * 3, request)
    assert failed == 1
    captured = capsys.readouterr()
    assert captured.out == "text of one.wav\ntext of three.flac\n"
    assert "bad.mp3: not audio (HTTP 400)" in captured.err
    form = server.forms[0]
    assert form["file"] == recordings[0].read_bytes()
    fields = {name: value for name, value in form.items() if name != "file"}
    assert fields == {
        "model": b"base",
        "response_format": b"text",
        "language": b"de",
        "prompt": b"Ada",
    }


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(), {}),
        (Request(num_speakers=2, max_speakers=3), {}),
        (Request(diarize=True), {"diarize": "true"}),
        (
            Request("srt", diarize=True, num_speakers=2),
            {"diarize": "true", "num_speakers": "2"},
        ),
        (
            Request("json", diarize=True, max_speakers=4),
            {"diarize": "true", "max_speakers": "4"},
        ),
    ],
)
def test_who_speaks_is_asked_for_only_where_it_matters(
    request_: Request, expected: dict[str, str]
) -> None:
    fields = request_.fields()
    assert {name: fields[name] for name in fields.keys() - {"model", "response_format"}} == expected


async def test_transcripts_go_to_files_of_their_kind(
    server: FakeServer, recordings: list[Path], tmp_path: Path
) -> None:
    files = [recordings[0], recordings[2]]
    targets = transcribe.outputs(files, tmp_path / "out", "srt")
    assert await transcribe.transcribe(server.url, files, targets, Request("srt")) == 0
    assert (tmp_path / "out" / "one.srt").read_text() == "text of one.wav\n"
    assert (tmp_path / "out" / "three.srt").read_text() == "text of three.flac\n"


@pytest.mark.parametrize(("key", "header"), [("s3cret", "Bearer s3cret"), ("", None)])
async def test_a_key_is_presented_only_where_there_is_one(
    server: FakeServer, recordings: list[Path], key: str, header: str | None
) -> None:
    request = Request(api_key=key)
    assert await transcribe.transcribe(server.url, recordings[:1], [None], request) == 0
    assert server.keys == [header]


async def test_a_server_that_is_not_there_is_named_with_what_to_do(
    recordings: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    # Nobody listens on the discard port.
    failed = await transcribe.transcribe("http://127.0.0.1:9", recordings[:1], [None], Request())
    assert failed == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "http://127.0.0.1:9" in said
    assert "start `voxmesh serve`, or name another with --server" in said


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ({"status": "ok", "ready": True}, True),
        ({"status": "ok", "ready": False}, False),
        ({"status": "ok"}, False),
        ("something else", False),
    ],
)
async def test_only_a_voxmesh_that_can_work_counts_as_running(
    server: FakeServer, health: object, expected: bool
) -> None:
    server.health = health
    assert await transcribe.running_server(server.url) is expected


async def test_no_server_is_no_running_server() -> None:
    async with asyncio.timeout(20):
        assert not await transcribe.running_server("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("files", "output", "expected"),
    [
        (["a.wav"], None, [None]),
        (["a.wav"], "a.txt", ["a.txt"]),
        (["a.wav"], "folder", ["folder/a.vtt"]),
        (["a.wav", "b.mp3"], "folder", ["folder/a.vtt", "folder/b.vtt"]),
        (["a.wav", "b.mp3"], "dotted.folder", ["dotted.folder/a.vtt", "dotted.folder/b.vtt"]),
    ],
)
def test_where_transcripts_go(
    tmp_path: Path, files: list[str], output: str | None, expected: list[str | None]
) -> None:
    targets = transcribe.outputs(
        [Path(file) for file in files], tmp_path / output if output else None, "vtt"
    )
    assert targets == [tmp_path / path if path else None for path in expected]


def test_two_recordings_of_one_name_are_refused_rather_than_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the same name"):
        transcribe.outputs([Path("x/a.wav"), Path("y/a.mp3")], tmp_path, "text")
