"""Refusals that the SDKs of every vendor can read: all API families' forms in one body."""

import re
import uuid

from starlette.responses import JSONResponse

_MAX_HEADER_CHARS = 200


def deepgram_body(code: str, message: str, request_id: str) -> dict[str, object]:
    """Both forms that Deepgram's errors have; its SDKs read one or the other."""
    return {
        "err_code": code,
        "err_msg": message,
        "request_id": request_id,
        "category": code,
        "message": message,
        "details": message,
    }


def deepgram_headers(message: str, request_id: str) -> dict[str, str]:
    """The headers in which Deepgram repeats what went wrong."""
    line = re.sub(r"[^ -~]+", " ", message)[:_MAX_HEADER_CHARS].strip()
    return {"dg-error": line, "dg-request-id": request_id}


def openai_body(kind: str, code: str | None, message: str, param: str | None) -> dict[str, object]:
    """OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def everywhere(status: int, message: str, *, code: str, deepgram_code: str) -> JSONResponse:
    """The answer to a request of which it is not known, or does not matter, whose it is."""
    request_id = str(uuid.uuid4())
    body = {
        **openai_body("invalid_request_error", code, message, None),
        **deepgram_body(deepgram_code, message, request_id),
        "detail": message,  # all that NVIDIA Riva's client shows
    }
    return JSONResponse(body, status, deepgram_headers(message, request_id))
