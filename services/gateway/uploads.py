"""Takes in uploads as they arrive: files to disk, the fields of a form to memory."""

import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, TypeAlias, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from services.common.errors import ClientLeftError, InvalidRequestError, StreamTooLongError

Write: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Takes the next bytes of a file."""

_MAX_FILES = 8
_MAX_FIELDS = 100
_MAX_FIELD_BYTES = 1 << 22
"""A field may hold ten seconds of speech as a data URL."""
_MAX_FIELDS_BYTES = 1 << 24
"""All fields together, which are kept in memory."""
_MEMORY_BYTES = 1 << 20
"""A file that is no longer than this is not written to disk."""
_MAX_OBJECT_BYTES = 1 << 16


class UploadTooLargeError(StreamTooLongError):
    """The upload has more bytes than are taken."""


class NotJsonError(InvalidRequestError):
    """The body is to be an object in JSON, and is not."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A form that has arrived. Names are without the brackets that some clients put behind them."""

    files: Mapping[str, UploadFile]
    fields: Mapping[str, Sequence[str]]

    def text(self, name: str) -> str:
        """The last value of a field; empty if there is none."""
        values = self.fields.get(name)
        return values[-1] if values else ""

    def texts(self, name: str) -> list[str]:
        """Every value of a field, which may come one by one or together as a JSON list."""
        texts: list[str] = []
        for value in self.fields.get(name, ()):
            listed = _json_list(value)
            texts += [value] if listed is None else listed
        return texts


@asynccontextmanager
async def receive_upload(request: Request, *, max_bytes: int) -> AsyncIterator[Upload]:
    """Receive a form; its files are gone when the context ends.

    Once the body has come, ``request.state.body_pending`` is false.

    Raises:
        UploadTooLargeError: The body is larger than allowed: by its own word before any of it is
            read, else as soon as that much has come.
        InvalidRequestError: It is no well-formed form.
        ClientLeftError: The client left before all of it had come.

    """
    _check_declared(request, max_bytes)
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise InvalidRequestError("the request has to be multipart/form-data")
    # With some codecs of Python, texts would come out that cannot be sent on.
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise InvalidRequestError("the form has to be in UTF-8")
    parser = _FormParser(
        request.headers,
        _body(request, max_bytes),
        max_files=_MAX_FILES,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    try:
        try:
            form = await parser.parse()
        except ClientDisconnect:
            raise ClientLeftError from None
        except MultiPartException as error:
            raise InvalidRequestError(f"the form cannot be read: {error.message}") from error
        yield _upload(form)
    finally:
        # Those of the form are among them, and that of a part which ended too early is not in it.
        for file in parser._files_to_close_on_error:
            file.close()


@asynccontextmanager
async def receive_file(
    request: Request, *, max_bytes: int
) -> AsyncIterator[tuple[UploadFile, str]]:
    """Receive a body that is nothing but a file, and its SHA-256; it is gone with the context.

    Once the body has come, ``request.state.body_pending`` is false.

    Raises:
        UploadTooLargeError: The body is larger than allowed, as for ``receive_upload``.
        ClientLeftError: The client left before all of it had come.

    """
    _check_declared(request, max_bytes)

    async def receive(write: Write) -> None:
        try:
            async for data in request.stream():
                await write(data)
        except ClientDisconnect:
            raise ClientLeftError from None
        request.state.body_pending = False

    async with keep_file(receive, max_bytes=max_bytes) as kept:
        yield kept


@asynccontextmanager
async def keep_file(
    fill: Callable[[Write], Awaitable[None]], *, max_bytes: int
) -> AsyncIterator[tuple[UploadFile, str]]:
    """Keep a file that is written bit by bit, and its SHA-256; it is gone with the context.

    Raises:
        UploadTooLargeError: It is larger than allowed.

    Besides, it raises what ``fill`` does.

    """
    digest, size = sha256(), 0
    with SpooledTemporaryFile[bytes](max_size=_MEMORY_BYTES) as spooled:
        file = UploadFile(cast("BinaryIO", spooled))

        async def write(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > max_bytes:
                raise _too_large(max_bytes)
            digest.update(data)
            await file.write(data)

        await fill(write)
        await file.seek(0)
        yield file, digest.hexdigest()


async def receive_object(request: Request) -> dict[str, Any]:
    """Receive a body that is an object in JSON; an empty one counts as an empty object.

    Once the body has come, ``request.state.body_pending`` is false.

    Raises:
        NotJsonError: It is something else.
        InvalidRequestError: It is too large.
        ClientLeftError: The client left before all of it had come.

    """
    data = b""
    try:
        async for part in request.stream():
            data += part
            if len(data) > _MAX_OBJECT_BYTES:
                raise InvalidRequestError("the body is too large")
    except ClientDisconnect:
        raise ClientLeftError from None
    request.state.body_pending = False
    try:
        told: Any = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise NotJsonError("the body is not JSON") from error
    if not isinstance(told, dict):
        raise NotJsonError("the body is not an object")
    return told


class _FormParser(MultiPartParser):
    """Besides, bounds what all fields hold together."""

    _fields_bytes = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Take in the next bytes of a part."""
        if self._current_part.file is None:
            self._fields_bytes += end - start
            if self._fields_bytes > _MAX_FIELDS_BYTES:
                raise MultiPartException("the fields are too large together")
        super().on_part_data(data, start, end)


def _check_declared(request: Request, max_bytes: int) -> None:
    try:
        declared = int(request.headers.get("content-length", "0"))
    except ValueError:
        return
    if declared > max_bytes:
        raise _too_large(max_bytes)


async def _body(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for data in request.stream():
        size += len(data)
        if size > max_bytes:
            raise _too_large(max_bytes)
        yield data
    request.state.body_pending = False


def _too_large(max_bytes: int) -> UploadTooLargeError:
    return UploadTooLargeError(f"the upload is limited to {max_bytes} bytes")


def _upload(form: FormData) -> Upload:
    files: dict[str, UploadFile] = {}
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        name = name.removesuffix("[]")
        if isinstance(value, UploadFile):
            files[name] = value
        else:
            fields.setdefault(name, []).append(value)
    return Upload(files, fields)


def _json_list(value: str) -> list[str] | None:
    if not value.lstrip().startswith("["):
        return None
    try:
        listed = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return [str(item) for item in listed] if isinstance(listed, list) else None
