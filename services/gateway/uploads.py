"""Takes in ``multipart/form-data`` as it arrives: the file to disk, the fields to memory."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from services.common.errors import ClientLeftError, InvalidRequestError, StreamTooLongError

_MAX_FILES = 8
_MAX_FIELDS = 100
_MAX_FIELD_BYTES = 1 << 20
"""A field may hold a second or two of speech as a data URL."""


class UploadTooLargeError(StreamTooLongError):
    """The upload has more bytes than are taken."""


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
    too_large = UploadTooLargeError(f"the upload is limited to {max_bytes} bytes")
    if _declared_bytes(request) > max_bytes:
        raise too_large
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise InvalidRequestError("the request has to be multipart/form-data")
    # With some codecs of Python, texts would come out that cannot be sent on.
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise InvalidRequestError("the form has to be in UTF-8")

    async def body() -> AsyncGenerator[bytes, None]:
        size = 0
        async for data in request.stream():
            size += len(data)
            if size > max_bytes:
                raise too_large
            yield data
        request.state.body_pending = False

    parser = MultiPartParser(
        request.headers,
        body(),
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


def _declared_bytes(request: Request) -> int:
    try:
        return int(request.headers.get("content-length", "0"))
    except ValueError:
        return 0


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
