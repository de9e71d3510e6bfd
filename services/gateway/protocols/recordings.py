"""A recording that has arrived -> what was said in it, for every protocol that takes uploads."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Receive

from services.common.errors import (
    ClientLeftError,
    DeviceError,
    InvalidRequestError,
    UpstreamError,
)
from services.common.timeline import SAMPLE_RATE_HZ
from services.gateway.decoder import (
    Decoder,
    FileFormat,
    RawFormat,
    check_channels,
    count_channels,
    open_decoder,
)
from services.gateway.gateway import Gateway
from services.gateway.lanes import Splitter
from services.gateway.pools import ModelInfo
from services.gateway.protocols.http_errors import GaveUpError
from services.gateway.session import Session, SessionConfig
from services.gateway.tasks import first_error

Result = TypeVar("Result")

_READ_BYTES = 1 << 16


class UndecodableError(InvalidRequestError):
    """The recording is no audio, or none that can be decoded."""


class Recording(Protocol):
    """A file that has arrived."""

    async def read(self, size: int) -> bytes:
        """The next bytes, at most so many; none at the end."""


async def transcribe(
    gateway: Gateway,
    request: Request,
    config: SessionConfig,
    audio_format: FileFormat,
    recording: Recording,
) -> Session:
    """Transcribe a recording; the session is over then.

    Raises:
        UndecodableError: It cannot be decoded.
        GaveUpError: The mesh failed; it helps nobody to try again at once.
        MeshError: The session cannot be had, or cannot go on.
        ClientLeftError: The client left.

    """
    async with gateway.session(config) as session:
        await unless_left(request, run(gateway, session, audio_format, recording))
    return session


async def transcribe_apart(
    gateway: Gateway,
    request: Request,
    config: SessionConfig,
    audio_format: FileFormat,
    file: UploadFile,
) -> list[Session]:
    """Transcribe each channel of a recording in a session of its own; they are over then.

    Raises:
        InvalidRequestError: It has more channels than are served.
        UndecodableError: As ``transcribe``, and likewise the others.
        GaveUpError: Likewise.
        MeshError: Likewise.
        ClientLeftError: Likewise.

    """
    channels = await _count_channels(gateway, audio_format, file)
    check_channels(channels)
    async with AsyncExitStack() as resources:
        sessions = [
            await resources.enter_async_context(gateway.session(channel_config(config, number)))
            for number in range(channels)
        ]
        await unless_left(request, _run_apart(gateway, sessions, audio_format, file))
    return sessions


def channel_config(config: SessionConfig, number: int) -> SessionConfig:
    """What is asked for, as the session for one of its channels asks for it."""
    return replace(config, session_id=f"{config.session_id}-{number}") if number else config


async def unless_left(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Do some work for a client that has sent its request, while it is there.

    Raises:
        ClientLeftError: The client left.

    """
    with first_error():
        async with asyncio.TaskGroup() as tasks:
            leave = tasks.create_task(left(request.receive), name="recording.leave")
            result = await work
            leave.cancel()
    return result


def language_of(session: Session, info: ModelInfo) -> str:
    """The code of the language that was spoken; empty if nobody knows."""
    heard = session.transcript.language_code or session.config.language_code
    only = info.language_codes[0] if len(info.language_codes) == 1 else ""
    return heard or only


async def left(receive: Receive) -> None:
    """Wait for the client to leave.

    Raises:
        ClientLeftError: It did.

    """
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientLeftError


async def run(
    gateway: Gateway, session: Session, audio_format: FileFormat, recording: Recording
) -> None:
    """Run a session over a recording.

    Raises:
        UndecodableError: It cannot be decoded.
        GaveUpError: The mesh failed; it helps nobody to try again at once.
        MeshError: The session cannot go on.

    """
    async with _opened(gateway, audio_format) as decoder:
        with first_error():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_write(recording, decoder), name="recording.decode")
                await _hear(session, decoder)


async def _count_channels(gateway: Gateway, audio_format: FileFormat, file: UploadFile) -> int:
    if isinstance(audio_format, RawFormat):
        return audio_format.channels
    settings = gateway.settings
    try:
        return await count_channels(
            audio_format,
            file.file,
            max_duration_s=settings.max_file_s,
            max_spool_bytes=settings.max_upload_bytes,
        )
    except InvalidRequestError as error:
        raise UndecodableError(str(error)) from error


async def _run_apart(
    gateway: Gateway, sessions: Sequence[Session], audio_format: FileFormat, file: UploadFile
) -> None:
    async with AsyncExitStack() as resources, asyncio.TaskGroup() as tasks:
        if isinstance(audio_format, RawFormat):
            mixed, source = audio_format, _read(file)
        else:
            apart = replace(audio_format, apart=True)
            whole = await resources.enter_async_context(_opened(gateway, apart))
            tasks.create_task(_write(file, whole), name="recording.decode")
            mixed = RawFormat("linear16", SAMPLE_RATE_HZ, len(sessions))
            source = _blocks(whole)
        lanes = [
            await resources.enter_async_context(_opened(gateway, replace(mixed, channels=1)))
            for _ in sessions
        ]
        tasks.create_task(_deal(source, Splitter(mixed), lanes), name="recording.deal")
        for session, lane in zip(sessions, lanes, strict=True):
            tasks.create_task(_hear(session, lane), name="recording.session")


def _opened(gateway: Gateway, audio_format: FileFormat) -> AbstractAsyncContextManager[Decoder]:
    settings = gateway.settings
    return open_decoder(
        audio_format,
        max_duration_s=settings.max_file_s,
        max_spool_bytes=settings.max_upload_bytes,
    )


async def _hear(session: Session, decoder: Decoder) -> None:
    try:
        await session.run(_blocks(decoder))
    except (UpstreamError, DeviceError) as error:
        raise GaveUpError(str(error)) from error


async def _blocks(decoder: Decoder) -> AsyncIterator[bytes]:
    try:
        async for block in decoder.blocks():
            yield block
    except InvalidRequestError as error:
        raise UndecodableError(str(error)) from error


async def _read(recording: Recording) -> AsyncIterator[bytes]:
    while data := await recording.read(_READ_BYTES):
        yield data


async def _write(recording: Recording, decoder: Decoder) -> None:
    async for data in _read(recording):
        await decoder.write(data)
    decoder.close()


async def _deal(source: AsyncIterator[bytes], splitter: Splitter, lanes: Sequence[Decoder]) -> None:
    """Give each lane its channel."""
    async for data in source:
        for lane, part in zip(lanes, splitter.split(data), strict=True):
            await lane.write(part)
    for lane in lanes:
        lane.close()
