"""Fetching what a URL names, from hosts that do as they like."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from services.gateway import fetch as fetching
from services.gateway.fetch import fetch
from services.gateway.fetch_hosts import FetchError, FetchHosts
from services.gateway.uploads import UploadTooLargeError, keep_file
from tests.gateway.listening import mesh_at_port
from tests.gateway.test_deepgram_recording import PLAIN, serving, transcript
from tests.gateway.test_openai import WORDS, wav
from tests.settings.serving import until

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def moved(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n\r\n".encode()


class Host:
    """A server that gives a scripted answer to each path."""

    def __init__(self, port: int, scheme: str) -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.hosts = FetchHosts([self.url])
        self.answers: dict[str, bytes | Answer] = {}
        self.requests: list[str] = []
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(request)
            answer = self.answers[request.split()[1]]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.open -= 1

    async def fetch(self, path: str, *, max_bytes: int = 1000) -> bytes:
        async def fill(write: Callable[[bytes], Awaitable[None]]) -> None:
            await fetch(self.url + path, self.hosts, write)

        async with keep_file(fill, max_bytes=max_bytes) as (file, _):
            return await file.read()


@asynccontextmanager
async def host(tls: ssl.SSLContext | None = None) -> AsyncIterator[Host]:
    serving: list[Host] = []
    server = await asyncio.start_server(lambda *ends: serving[0].serve(*ends), "127.0.0.1", ssl=tls)
    port = server.sockets[0].getsockname()[1]
    serving.append(Host(port, "https" if tls else "http"))
    async with server:
        yield serving[0]


async def test_what_a_url_names_is_fetched_and_nothing_is_told_of_the_client() -> None:
    async with host() as it:
        it.answers["/a%20b.wav?key=x"] = ok(b"recording")
        assert await it.fetch("/a%20b.wav?key=x#fragment") == b"recording"
    (request,) = it.requests
    assert request.splitlines()[:2] == [
        "GET /a%20b.wav?key=x HTTP/1.1",
        f"Host: {it.url.removeprefix('http://')}",
    ]
    names = {line.partition(":")[0].lower() for line in request.splitlines()[1:-1]}
    assert names == {"host", "user-agent", "accept-encoding", "connection"}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"recording"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nrecording\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nrecording",
        ok(b"recording", "Content-Encoding: identity"),
    ],
)
async def test_http_is_understood_in_all_its_forms(answer: bytes) -> None:
    async with host() as it:
        it.answers["/x"] = answer
        assert await it.fetch("/x") == b"recording"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirections_are_followed_where_hosts_are_listed(status: int) -> None:
    async with host() as it:
        it.answers["/x"] = moved("y/z", status)
        it.answers["/y/z"] = moved(f"{it.url}/w", status)
        it.answers["/w"] = ok(b"recording")
        assert await it.fetch("/x") == b"recording"


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1:1/x", "https://127.0.0.1/x", "http://localhost/x", "//evil.example/x"),
        *("file:///etc/passwd", "http://user:secret@{}/x", "http://[::1/x"),
    ],
)
async def test_a_redirection_is_judged_like_a_url(location: str) -> None:
    async with host() as it:
        it.answers["/x"] = moved(location.format(it.url.removeprefix("http://")))
        with pytest.raises(FetchError):
            await it.fetch("/x")
    assert len(it.requests) == 1


async def test_redirections_have_an_end() -> None:
    async with host() as it:
        it.answers["/x"] = moved("/x")
        with pytest.raises(FetchError, match="redirected too often"):
            await it.fetch("/x")
    assert len(it.requests) == 4


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 302 Found\r\n\r\n",
        moved("http://x\xa0y/".encode().decode("latin-1")),
        ok(b"x", "Content-Encoding: gzip"),
    ],
)
async def test_a_host_that_answers_otherwise_is_told_of(answer: bytes) -> None:
    async with host() as it:
        it.answers["/x"] = answer
        with pytest.raises(FetchError):
            await it.fetch("/x")


async def test_what_is_too_large_is_not_read_to_its_end() -> None:
    async def flood(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(10_000))
            await writer.drain()

    async with host() as it:
        it.answers["/x"] = flood
        with pytest.raises(UploadTooLargeError):
            await it.fetch("/x")
        await until(lambda: it.open == 0)


async def test_a_host_that_falls_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fall_silent(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nx")
        await asyncio.Event().wait()

    monkeypatch.setattr(fetching, "_WAIT_S", 0.1)
    async with host() as it:
        it.answers["/x"] = fall_silent
        with pytest.raises(FetchError, match="in time"):
            await it.fetch("/x")


async def test_a_host_that_trickles_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    monkeypatch.setattr(fetching, "_FETCH_S", 0.3)
    async with host() as it:
        it.answers["/x"] = trickle
        with pytest.raises(FetchError, match="too long"):
            await it.fetch("/x")


async def test_a_host_has_to_prove_who_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    async with host(context) as it:
        it.answers["/x"] = ok(b"recording")
        with pytest.raises(FetchError, match="identity"):
            await it.fetch("/x")
        ca.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert await it.fetch("/x") == b"recording"


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names lead to these addresses, one answer after the other; the hosts that are asked for."""
    asked: list[str] = []

    def getaddrinfo(name: str, port: int, *_args: object, **_options: object) -> list[Any]:
        asked.append(name)
        found = answers[len(asked) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], []])
async def test_a_name_that_leads_inside_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    resolving(monkeypatch, found)
    async with host() as it:
        port = it.url.rpartition(":")[2]
        url = f"http://media.example.org:{port}"
        with pytest.raises(FetchError):
            await fetch(f"{url}/x", FetchHosts([url]), lambda _: asyncio.sleep(0))
    assert it.requests == []


async def test_a_name_is_resolved_once_and_what_was_judged_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = resolving(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    connected: list[tuple[object, ...]] = []

    async def open_connection(*address: object, **options: object) -> Any:
        connected.append((*address, options["server_hostname"]))
        raise OSError

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    hosts = FetchHosts(["media.example.org"])
    with pytest.raises(FetchError, match="cannot be reached"):
        await fetch("https://media.example.org/x", hosts, lambda _: asyncio.sleep(0))
    assert asked == ["media.example.org"]
    assert connected == [("8.8.8.8", 443, "media.example.org")]


async def test_a_recording_is_transcribed_from_a_url() -> None:
    async with host() as it, serving(fetch_hosts=(it.url,)) as (client, _):
        it.answers["/a.wav"] = ok(wav())
        answer = await client.post("/v1/listen", json={"url": f"{it.url}/a.wav"})
        posted = await client.post("/v1/listen", content=wav())
        assert transcript(answer) == PLAIN
        assert answer.json()["metadata"]["sha256"] == posted.json()["metadata"]["sha256"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"url": "{}/404"}, 400, "REMOTE_CONTENT_ERROR"),
        ({"url": "https://evil.example/x"}, 400, "REMOTE_CONTENT_ERROR"),
        ({"url": "{}/text"}, 400, "Bad Request"),
        ({"url": "{}/large"}, 413, "PAYLOAD_TOO_LARGE"),
        ({"url": 5}, 400, "Bad Request"),
        ({}, 400, "Bad Request"),
        ([], 400, "INVALID_JSON"),
    ],
)
async def test_what_cannot_be_fetched_is_refused_in_deepgrams_words(
    body: Any, status: int, code: str
) -> None:
    async with (
        host() as it,
        serving(fetch_hosts=(it.url,), max_upload_bytes=10_000) as (client, mesh),
    ):
        it.answers = {
            "/404": b"HTTP/1.1 404 Not Found\r\n\r\n",
            "/text": ok(b"this is no audio" * 50),
            "/large": ok(bytes(20_000)),
        }
        if isinstance(body, dict) and isinstance(body.get("url"), str):
            body = {"url": body["url"].format(it.url)}
        answer = await client.post("/v1/listen", json=body)
        told = answer.json()
        assert (answer.status_code, told["err_code"]) == (status, code)
        assert told["err_msg"] == answer.headers["dg-error"]
        assert mesh.gateway.open_sessions == 0


async def test_a_client_that_leaves_is_fetched_nothing_for() -> None:
    async def fall_silent(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with (
        host() as it,
        mesh_at_port(words=WORDS, fetch_hosts=(it.url,)) as (_, port),
    ):
        it.answers["/x"] = fall_silent
        body = f'{{"url":"{it.url}/x"}}'.encode()
        head = f"POST /v1/listen HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        await until(lambda: it.open == 1)
        writer.close()
        await until(lambda: it.open == 0)
