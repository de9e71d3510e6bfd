"""A recording that has arrived -> what was said in it, for every protocol that takes uploads."""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from starlette.requests import Request
from starlette.types import Receive

from services.common.errors import (
    ClientLeftError,
    DeviceError,
    InvalidRequestError,
    UpstreamError,
)
from services.gateway.decoder import AudioFormat, Decoder, open_decoder
from services.gateway.gateway import Gateway
from services.gateway.pools import ModelInfo
from services.gateway.protocols.http_errors import GaveUpError
from services.gateway.session import Session, SessionConfig
from services.gateway.tasks import first_error

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
    audio_format: AudioFormat,
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
        with first_error():
            async with asyncio.TaskGroup() as tasks:
                leave = tasks.create_task(left(request.receive), name="recording.leave")
                await run(gateway, session, audio_format, recording)
                leave.cancel()
    return session


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
    gateway: Gateway, session: Session, audio_format: AudioFormat, recording: Recording
) -> None:
    """Run a session over a recording.

    Raises:
        UndecodableError: It cannot be decoded.
        GaveUpError: The mesh failed; it helps nobody to try again at once.
        MeshError: The session cannot go on.

    """
    settings = gateway.settings
    async with open_decoder(
        audio_format,
        max_duration_s=settings.max_file_s,
        max_spool_bytes=settings.max_upload_bytes,
    ) as decoder:
        with first_error():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_write(recording, decoder), name="recording.decode")
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


async def _write(recording: Recording, decoder: Decoder) -> None:
    while data := await recording.read(_READ_BYTES):
        await decoder.write(data)
    decoder.close()
