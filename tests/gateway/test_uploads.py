import asyncio
import gc
import json
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.gateway import uploads
from services.gateway.http_server import http_server, listen
from services.gateway.protocols.http_errors import answering
from services.gateway.uploads import receive_upload

LIMIT = 3_000_000
"""More than is kept in memory."""


class Receiver:
    """Takes uploads and says what it saw."""

    def __init__(self) -> None:
        self.bytes_seen = 0
        self.outcomes: list[str] = []

    async def __call__(self, request: Request) -> Response:
        try:
            return await self._receive(request)
        except BaseException as error:
            self.outcomes.append(type(error).__name__)
            raise

    async def _receive(self, request: Request) -> Response:
        stream = request.stream

        async def counted() -> AsyncIterator[bytes]:
            async for data in stream():
                self.bytes_seen += len(data)
                yield data

        request.stream = counted  # type: ignore[method-assign, assignment]
        async with receive_upload(request, max_bytes=LIMIT) as upload:
            files = {name: len(await file.read()) for name, file in upload.files.items()}
            self.outcomes.append("received")
            return JSONResponse(
                {
                    "files": files,
                    "fields": dict(upload.fields),
                    "models": upload.texts("model"),
                    "model": upload.text("model"),
                }
            )


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, httpx.AsyncClient]]:
    receiver = Receiver()
    server = http_server(Starlette(routes=[Route("/", answering(receiver), methods=["POST"])]))
    listener = listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client:
        yield receiver, client
    server.should_exit = True
    await task


def part(name: str, value: bytes, *, filename: str = "") -> bytes:
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return f"--x\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + value + b"\r\n"


HEADERS = {"content-type": "multipart/form-data; boundary=x"}
FORM = part("prompt", b"\\ud800") + part("file", b"12345", filename="a") + b"--x--\r\n"


def refusal(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert len(answer.headers["x-request-id"]) == 32
    return dict(body["error"])


async def test_fields_and_files_arrive_in_any_order_and_with_or_without_brackets() -> None:
    async with receiving() as (_, client):
        body = (
            part("model", b"a")
            + part("names[]", b"one")
            + part("file", b"12345", filename="a.wav")
            + part("names", "zwölf".encode())
            + part("chunking_strategy[type]", b"server_vad")
            + b"--x--\r\n"
        )
        answer = (await client.post("/", content=body, headers=HEADERS)).json()
    assert answer["files"] == {"file": 5}
    assert answer["fields"] == {
        "model": ["a"],
        "names": ["one", "zwölf"],
        "chunking_strategy[type]": ["server_vad"],
    }


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (["a"], ["a"]),
        (["a", "b"], ["a", "b"]),
        (['["a", "b"]'], ["a", "b"]),
        (['["a"', "c"], ['["a"', "c"]),
        (["[1]"], ["1"]),
        (["[" * 5000], ["[" * 5000]),
        ([], []),
    ],
)
async def test_lists_come_one_by_one_or_as_json(values: list[str], read: list[str]) -> None:
    async with receiving() as (_, client):
        answer = await client.post("/", data={"model": values}, files={"file": b"x"})
    assert answer.json()["models"] == read
    assert answer.json()["model"] == (values[-1] if values else "")


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"'])
async def test_a_form_may_say_that_it_is_in_utf_8(charset: str) -> None:
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    async with receiving() as (_, client):
        answer = await client.post("/", content=FORM, headers=headers)
    assert answer.json()["fields"] == {"prompt": ["\\ud800"]}


async def test_what_says_itself_that_it_is_too_large_is_refused_unread() -> None:
    async with receiving() as (receiver, client):
        answer = await client.post("/", files={"file": bytes(3_000_001)})
        assert answer.status_code == 413
        assert refusal(answer)["code"] == "audio_too_long"
        assert "3000000 bytes" in refusal(answer)["message"]
        assert receiver.bytes_seen == 0
        assert (await client.post("/", files={"file": b"x"})).status_code == 200


async def test_a_gigabyte_without_a_length_is_refused_while_it_streams_in() -> None:
    sent = 0

    async def gigabyte() -> AsyncIterator[bytes]:
        nonlocal sent
        yield part("file", b"", filename="a").removesuffix(b"\r\n")
        while sent < 1_000_000_000:
            sent += 50_000
            yield bytes(50_000)

    async with receiving() as (receiver, client):
        try:
            answer = await client.post("/", content=gigabyte(), headers=HEADERS)
        except httpx.TransportError:
            pass  # the connection was closed on a client that would not stop
        else:
            assert answer.status_code == 413
        assert receiver.outcomes == ["UploadTooLargeError"]
        assert receiver.bytes_seen < LIMIT + 200_000
        assert (await client.post("/", files={"file": b"x"})).status_code == 200


async def test_a_client_that_stops_at_the_answer_gets_it() -> None:
    async with receiving() as (_, client):
        port = client.base_url.port
        assert port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
            b"content-length: 9000000\r\n\r\n" + bytes(100_000)
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b" 413 " in head.splitlines()[0]
        assert b"connection: close" in head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert "error" in json.loads(await asyncio.wait_for(reader.readexactly(length), 5))
        writer.close()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "application/json"}, b"{}"),
        ({"content-type": "multipart/form-data"}, b"--x--"),
        ({}, b""),
        ({"content-type": "multipart/form-data; boundary=x; charset=undefined"}, FORM),
        ({"content-type": "multipart/form-data; boundary=x; charset=unicode_escape"}, FORM),
        ({"content-type": "multipart/form-data; boundary=x; charset=UTF-16"}, FORM),
        (HEADERS, b"this is no form"),
        (HEADERS, b"--x\r\n" + bytes(500)),
        (HEADERS, b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--\r\n"),
        (HEADERS, part("prompt", bytes(110_000))),
        (HEADERS, b"".join(part(f"f{i}", bytes(90_000)) for i in range(3))),
        (HEADERS, b"".join(part(f"f{i}", b"") for i in range(200)) + b"--x--\r\n"),
        (HEADERS, b"".join(part("file", b"", filename="a") for _ in range(9)) + b"--x--\r\n"),
    ],
)
async def test_what_is_no_form_is_refused(
    headers: dict[str, str], body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_MAX_FIELD_BYTES", 100_000)
    monkeypatch.setattr(uploads, "_MAX_FIELDS_BYTES", 200_000)
    async with receiving() as (_, client):
        answer = await client.post("/", content=body, headers=headers)
        assert answer.status_code in {400, 413}
        assert refusal(answer)["type"] == "invalid_request_error"
        assert (await client.post("/", files={"file": b"x"})).status_code == 200


def open_files() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue  # the descriptor of the listing itself
        if target.startswith(tempfile.gettempdir()) or "(deleted)" in target:
            yield target


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(share: float) -> None:
    data = part("file", bytes(2_500_000), filename="a")
    async with receiving() as (receiver, client):
        port = client.base_url.port
        assert port is not None
        before = list(open_files())
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=x\r\n"
                b"content-length: 2600000\r\n\r\n" + data[: int(len(data) * share)]
            )
            await writer.drain()
            writer.close()
        for _ in range(500):
            if len(receiver.outcomes) == 5:
                break
            await asyncio.sleep(0.01)  # for the server to notice
        assert receiver.outcomes == ["ClientLeftError"] * 5
        assert list(open_files()) == before
        assert (await client.post("/", files={"file": b"x"})).status_code == 200


async def test_a_file_on_disk_is_gone_with_its_request() -> None:
    async with receiving() as (_, client):
        before = list(open_files())
        answer = await client.post("/", files={"file": bytes(2_900_000)})
        assert answer.json()["files"] == {"file": 2_900_000}
        assert list(open_files()) == before


async def test_a_form_that_ends_too_early_leaves_no_file_open() -> None:
    body = part("model", b"a") + part("file", b"12345", filename="a.wav")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        async with receiving() as (_, client):
            answer = (await client.post("/", content=body, headers=HEADERS)).json()
        gc.collect()
    assert answer["files"] == {}
    assert [str(warning.message) for warning in warned] == []
