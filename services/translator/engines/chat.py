"""Language models behind an OpenAI-compatible chat endpoint: vLLM, llama.cpp, hosted ones.

Source: OpenAI's API reference, ``POST /v1/chat/completions`` with ``stream``.
"""

from collections.abc import Hashable, Iterator, Sequence

import httpx
from pydantic import BaseModel

from services.common.errors import DeviceError
from services.translator.languages import resolve
from services.translator.translator import Job, Pair, Translation

_TASK = (
    "You translate live speech from {source} into {target}. The text may be unfinished: translate"
    " what is there, word for word where that reads well, and add nothing. Answer with the"
    " translation alone, on one line."
)
_GROWTH, _SPARE = 4, 200
"""An answer longer than so many times the text, and some, is not its translation: it is cut off."""


class Chat:
    """A chat model. Implements ``Translator``; it translates whatever it was taught."""

    forces_prefix = False

    def __init__(self, url: str, model: str, *, key: str, timeout_s: float) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: Where the API is, such as ``http://localhost:8000/v1``.
            model: The name it has there.
            key: What the endpoint asks for; empty: nothing.
            timeout_s: How long it may keep silent.

        """
        self.name = f"chat-{model}"
        self.example = Pair(resolve("en"), resolve("pt"))
        self._model = model
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(
            base_url=url.rstrip("/"), headers=headers, timeout=timeout_s, trust_env=False
        )

    def check(self, pair: Pair) -> None:
        """See ``Translator``: nobody knows what a language model does not know."""

    def bucket(self, job: Job) -> Hashable:
        """See ``Translator``: the endpoint batches; each text is a request of its own."""
        return job

    def translate(self, jobs: Sequence[Job]) -> list[Translation]:
        """See ``Translator``."""
        return [Translation(self._translate(job)) for job in jobs]

    def _translate(self, job: Job) -> str:
        task = _TASK.format(source=job.pair.source.name, target=job.pair.target.name)
        body = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": task},
                {"role": "user", "content": job.text},
            ],
            "temperature": 0,
            "stream": True,
        }
        most = _GROWTH * len(job.text) + _SPARE
        answer = ""
        try:
            with self._client.stream("POST", "/chat/completions", json=body) as response:
                response.raise_for_status()
                for piece in _pieces(response.iter_lines()):
                    answer += piece
                    if len(answer) >= most:
                        break
        except (httpx.HTTPError, ValueError) as error:
            raise DeviceError(f"the chat endpoint failed: {error}") from error
        return " ".join(answer[:most].split())


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Delta = _Delta()


class _Event(BaseModel):
    """What matters of a server-sent event."""

    choices: list[_Choice] = []


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    """The text of server-sent events.

    Raises:
        ValueError: One of them is none of this API's.

    """
    for line in lines:
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            for choice in _Event.model_validate_json(data).choices:
                yield choice.delta.content or ""
