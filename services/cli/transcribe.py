"""Recordings to text: uploads to ``POST /v1/audio/transcriptions`` of a running server."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import httpx
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from services.cli import console

Format: TypeAlias = Literal["text", "json", "srt", "vtt", "verbose_json"]

_SUFFIX: dict[Format, str] = {
    "text": ".txt",
    "json": ".json",
    "srt": ".srt",
    "vtt": ".vtt",
    "verbose_json": ".json",
}


class TranscribeError(Exception):
    """One recording could not be transcribed; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What every recording is asked for."""

    format: Format = "text"
    language: str = ""
    model: str = ""
    prompt: str = ""
    diarize: bool = False
    """Whether it is told who says what."""
    num_speakers: int = 0
    """How many there are; 0: unknown."""
    max_speakers: int = 0
    """Most there can be; 0: unknown."""
    api_key: str = ""
    timeout_s: float = 3600.0
    """How long the server may work on one recording before it answers."""

    def fields(self) -> dict[str, str]:
        """The form fields, without those that are the server's choice."""
        chosen = {"language": self.language, "prompt": self.prompt}
        if self.diarize:
            numbers = {"num_speakers": self.num_speakers, "max_speakers": self.max_speakers}
            chosen |= {"diarize": "true"}
            chosen |= {name: str(number) for name, number in numbers.items() if number}
        # The API wants a model from every client; this name stands for the server's own.
        return {
            "model": self.model or "whisper-1",
            "response_format": self.format,
            **{name: value for name, value in chosen.items() if value},
        }


def outputs(files: Sequence[Path], output: Path | None, kind: Format) -> list[Path | None]:
    """Where each transcript goes; None is stdout.

    Raises:
        ValueError: Two transcripts would go to one file.

    """
    if output is None:
        return [None] * len(files)
    if len(files) == 1 and not output.is_dir() and output.suffix:
        return [output]
    paths: list[Path | None] = [output / f"{file.stem}{_SUFFIX[kind]}" for file in files]
    if len(set(paths)) < len(paths):
        raise ValueError("two recordings have the same name: transcribe them one by one")
    output.mkdir(parents=True, exist_ok=True)
    return paths


async def running_server(url: str) -> bool:
    """Whether a voxmesh that can work answers there."""
    async with _client(url, timeout_s=2) as client:
        try:
            health = (await client.get("/health")).json()
        except (httpx.HTTPError, ValueError, RecursionError):
            return False
    return isinstance(health, dict) and health.get("ready") is True


async def transcribe(
    url: str, files: Sequence[Path], targets: Sequence[Path | None], request: Request
) -> int:
    """Transcribe recordings one after the other, and write each where it belongs.

    Args:
        url: The server, such as ``http://127.0.0.1:8000``.
        files: The recordings.
        targets: Where each transcript goes, as ``outputs`` says.
        request: What is asked for.

    Returns:
        How many failed; each one's reason has been shown.

    """
    failed = 0
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=console.err,
        disable=not console.err.is_terminal,
        transient=True,
    )
    async with _client(url, timeout_s=request.timeout_s, api_key=request.api_key) as client:
        with bars:
            for file, target in zip(files, targets, strict=True):
                task = bars.add_task(file.name, state="uploading")
                try:
                    text = await _upload(client, file, request, _shown(bars, task))
                    _write(text, target)
                except TranscribeError as error:
                    failed += 1
                    console.err.print(f"{file}: {error}", markup=False)
                bars.remove_task(task)
    return failed


def _shown(bars: Progress, task: TaskID) -> Callable[[int, int], None]:
    def sent(done: int, total: int) -> None:
        # Nothing says how far the server is: once it has everything, the bar only moves.
        working = done >= total
        bars.update(
            task,
            completed=done,
            total=None if working else total,
            state="transcribing" if working else "uploading",
        )

    return sent


async def _upload(
    client: httpx.AsyncClient,
    file: Path,
    request: Request,
    sent: Callable[[int, int], None],
) -> str:
    try:
        with _Counted(file, sent) as data:
            answer = await client.post(
                "/v1/audio/transcriptions",
                data=request.fields(),
                files={"file": (file.name, data, "application/octet-stream")},
            )
    except OSError as error:
        raise TranscribeError(f"cannot be read: {error.strerror}") from error
    except httpx.TimeoutException as error:
        raise TranscribeError(
            f"no answer within {request.timeout_s:g} s: allow more with --timeout"
        ) from error
    except httpx.HTTPError as error:
        raise TranscribeError(
            f"{client.base_url} does not answer ({error}): start `voxmesh serve`,"
            " or name another with --server"
        ) from error
    if not answer.is_success:
        raise TranscribeError(_reason(answer))
    return answer.text


class _Counted(io.FileIO):
    """A file that tells how far it has been read."""

    def __init__(self, path: Path, sent: Callable[[int, int], None]) -> None:
        super().__init__(path)
        self._sent = sent
        self._num_bytes = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        self._sent(self.tell(), self._num_bytes)
        return data or b""


def _reason(answer: httpx.Response) -> str:
    """What the server says is wrong, in the shape of the OpenAI API or any other."""
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or answer.text.strip() or answer.reason_phrase) + (
        f" (HTTP {answer.status_code})"
    )


def _write(text: str, target: Path | None) -> None:
    text = text if text.endswith("\n") else text + "\n"
    if target is None:
        console.out.file.write(text)
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TranscribeError(f"cannot write {target}: {error.strerror}") from error


def _client(url: str, *, timeout_s: float, api_key: str = "") -> httpx.AsyncClient:
    host = httpx.URL(url).host
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        timeout=httpx.Timeout(timeout_s, connect=5),
        # SSL_CERT_FILE names a CA of one's own, for this machine too ...
        verify=httpx.create_ssl_context(),
        # ... to which a proxy that the environment names knows no way.
        trust_env=host not in {"127.0.0.1", "localhost", "::1"},
    )
