"""OpenAI's REST API for recordings: transcriptions, translations and models."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from services.common.errors import NotFoundError
from services.gateway import subtitles
from services.gateway.decoder import ContainerFormat
from services.gateway.gateway import Gateway
from services.gateway.pools import ModelInfo
from services.gateway.protocols.event_stream import EventStream, Tell
from services.gateway.protocols.http_errors import RefusedError, answering
from services.gateway.protocols.openai_diarized import (
    DiarizedDeltas,
    Labels,
    diarized_body,
    diarized_text,
    labels_for,
)
from services.gateway.protocols.openai_form import Wish, check_model, model_name, read_wish
from services.gateway.protocols.openai_speakers import diarization_of
from services.gateway.protocols.openai_view import Deltas, Spoken, json_body, verbose_body
from services.gateway.protocols.recordings import UndecodableError, language_of, left, run
from services.gateway.session import Pace, Session, SessionConfig, Task
from services.gateway.session_config import Diarization
from services.gateway.tasks import first_error
from services.gateway.uploads import receive_upload

PROTOCOL = "openai"

_STARTED_S = int(time.time())
"""When the models came to be, as far as clients are told."""


_Serve = Callable[[Gateway, Request], Awaitable[Response]]


def routes(gateway: Gateway) -> list[BaseRoute]:
    """The paths that are served."""

    def route(path: str, serve: _Serve, method: str) -> Route:
        return Route(path, answering(partial(serve, gateway)), methods=[method])

    return [
        route("/v1/audio/transcriptions", _transcriptions, "POST"),
        route("/audio/transcriptions", _transcriptions, "POST"),
        route("/v1/audio/translations", _translations, "POST"),
        route("/v1/models", _models, "GET"),
        route("/v1/models/{id:path}", _model, "GET"),
    ]


async def _transcriptions(gateway: Gateway, request: Request) -> Response:
    return await _serve(gateway, request, Task.TRANSCRIBE)


async def _translations(gateway: Gateway, request: Request) -> Response:
    return await _serve(gateway, request, Task.TRANSLATE)


async def _serve(gateway: Gateway, request: Request, task: Task) -> Response:
    gateway.check_room(request.state.caller)
    limit = gateway.settings.max_upload_bytes
    async with AsyncExitStack() as resources:
        upload = await resources.enter_async_context(receive_upload(request, max_bytes=limit))
        wish = read_wish(upload)
        _, info = gateway.pools.choose(wish.model)
        check_model(info, wish, task)
        config = _config(request, wish, task, await diarization_of(wish))
        session = await resources.enter_async_context(gateway.session(config))
        if wish.streamed:
            work = partial(_tell, gateway, session, wish, info)
            return EventStream(work, resources.pop_all())
        with first_error():
            async with asyncio.TaskGroup() as tasks:
                leave = tasks.create_task(left(request.receive), name="openai.leave")
                await _run(gateway, session, wish)
                leave.cancel()
        spoken = Spoken.of(session.transcript, _language(session, info))
    labels = None
    if wish.diarized:
        labels = labels_for(wish.names, session.transcript, numbered=wish.numbered)
    # An hour of words takes a while to lay out.
    return await asyncio.to_thread(_response, spoken, wish, task, labels)


def _config(
    request: Request, wish: Wish, task: Task, diarization: Diarization | None
) -> SessionConfig:
    return SessionConfig(
        session_id=request.state.request_id,
        protocol=PROTOCOL,
        caller=request.state.caller,
        language_code=wish.language_code,
        model=wish.model,
        task=task,
        prompt=wish.prompt,
        pace=Pace.FILE,
        temperature=wish.temperature,
        hotwords=wish.keywords,
        diarization=diarization,
    )


async def _tell(
    gateway: Gateway, session: Session, wish: Wish, info: ModelInfo, tell: Tell
) -> None:
    """Transcribe, and tell the words as they come."""
    transcript = session.transcript
    deltas: Deltas | DiarizedDeltas
    if wish.diarized:
        deltas = DiarizedDeltas(transcript, Labels(wish.names, numbered=wish.numbered))
    else:
        deltas = Deltas(transcript, with_probabilities=wish.with_probabilities)

    async def show() -> None:
        seen = -1
        while not session.ended:
            seen = await session.changed(seen)
            for event in deltas.news():
                await tell(event)

    with first_error():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(show(), name="openai.show")
            await _run(gateway, session, wish)
    for event in deltas.news():
        await tell(event)
    await tell(deltas.done(_language(session, info)))


async def _run(gateway: Gateway, session: Session, wish: Wish) -> None:
    hint = f"{wish.file.content_type or ''} {wish.file.filename or ''}"
    try:
        await run(gateway, session, ContainerFormat(hint), wish.file)
    except UndecodableError as error:
        raise RefusedError(str(error), param="file", code="invalid_file") from error


def _language(session: Session, info: ModelInfo) -> str:
    return "en" if session.config.task is Task.TRANSLATE else language_of(session, info)


def _response(spoken: Spoken, wish: Wish, task: Task, labels: Labels | None) -> Response:
    label_of = labels.of if labels else None
    match wish.response_format:
        case "text":
            text = diarized_text(spoken, labels) if labels else spoken.text
            return Response(text + "\n", media_type="text/plain")
        case "srt":
            cues = subtitles.cues(spoken.words, label_of)
            return Response(subtitles.srt(cues), media_type="text/plain")
        case "vtt":
            cues = subtitles.cues(spoken.words, label_of)
            return Response(subtitles.vtt(cues), media_type="text/vtt")
        case "verbose_json":
            body = verbose_body(
                spoken,
                task=task.value,
                with_words=wish.with_words,
                temperature=wish.temperature,
                label_of=label_of,
            )
        case _ if labels:
            body = diarized_body(spoken, labels)
        case _:
            body = json_body(spoken, with_probabilities=wish.with_probabilities)
    return JSONResponse(body)


async def _models(gateway: Gateway, _request: Request) -> Response:
    models = [_described(info) for info in gateway.models()]
    return JSONResponse({"object": "list", "data": models, "stt": models, "tts": []})


async def _model(gateway: Gateway, request: Request) -> Response:
    name = request.path_params["id"]
    if not name:
        raise NotFoundError("no model is named")
    _, info = gateway.pools.choose(model_name(name))
    return JSONResponse(_described(info) | {"id": name})


def _described(info: ModelInfo) -> dict[str, object]:
    """A model with OpenAI's keys and, because both ask at the same path, with Deepgram's."""
    return {
        "id": info.name,
        "object": "model",
        "created": _STARTED_S,
        "owned_by": "voxmesh",
        "name": info.name,
        "canonical_name": info.name,
        "architecture": info.engine,
        "languages": list(info.language_codes),
        "version": info.version,
        "uuid": info.uuid,
        "batch": True,
        "streaming": True,
        "formatted_output": True,
    }
