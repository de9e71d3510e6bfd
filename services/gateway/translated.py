"""The translators' part in a session: they follow the transcript and are never in its way."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

import structlog

from services.common import telemetry
from services.common.errors import InvalidRequestError, MeshError, OverloadedError
from services.common.timeline import seconds
from services.gateway.link import Link
from services.gateway.recovery import Patience
from services.gateway.session_config import Pace, SessionConfig, Task
from services.gateway.source_text import Excerpt, SourceText, Text
from services.gateway.stage import Stage
from services.gateway.tasks import Bell, first_error
from services.gateway.transcript import Notice, Transcript
from services.gateway.translation import Translation, TranslationPiece
from services.gateway.upstream import TranslatorUpstream
from voxmesh.translator.v1 import translator_pb2

log = structlog.get_logger(__name__)

MAX_TARGETS = 8
"""Languages into which a session can be translated at once."""

_MAX_LEAVING = 8
"""Translations that are being finished, beyond those that go on."""

_Stage: TypeAlias = Stage[Text, translator_pb2.TranslateRequest, translator_pb2.TranslateResponse]


class Translated:
    """A transcript in other languages: a stage for each of them.

    What is translated are the words of the transcript, so that a translation has the speakers and
    the lines that its source has. A translator that is lost is waited for as long as the session
    lasts: its words are few, and kept.
    """

    def __init__(
        self,
        config: SessionConfig,
        transcript: Transcript,
        link: Link | None,
        *,
        patience: Patience,
        unanswered_samples: int,
        moved: Callable[[], None],
        notify: Callable[[Notice], None],
    ) -> None:
        """Translate into what was asked for at the start; ``run`` starts it.

        Args:
            config: What the client asked for.
            transcript: What is translated, and where translations appear.
            link: The translator; None: there is none.
            patience: How long it is waited for.
            unanswered_samples: Speech that it need not answer.
            moved: Called after every answer.
            notify: Called when a translator is lost, and when it is back.

        """
        self._config = config
        self._transcript = transcript
        self._link = link
        self._patience = patience
        self._unanswered_samples = unanswered_samples
        self._moved = moved
        self._notify = notify
        self._text: SourceText | None = None
        """None: nobody has asked for a translation yet."""
        self._parts: list[_Part] = []
        """Those that are not finished."""
        self._language_known = asyncio.Event()
        self._changed = Bell()
        self._complete = False
        """Whether nothing more will be said."""
        self.into(config.targets)

    def into(self, targets: Sequence[str]) -> None:
        """Translate what is said from now on into these languages and no others.

        Raises:
            InvalidRequestError: There are too many of them, or there is no translator.

        """
        if self._complete:
            return
        wanted = dict.fromkeys(targets)
        if wanted and self._link is None:
            raise InvalidRequestError(f"there is no translator for {', '.join(wanted)}")
        if len(wanted) > MAX_TARGETS:
            raise InvalidRequestError(f"a session has at most {MAX_TARGETS} translations at once")
        if len(self._parts) > MAX_TARGETS + _MAX_LEAVING:
            raise InvalidRequestError("the translations before are not finished yet")
        for part in self._parts:
            if part.goes_on and part.target not in wanted:
                part.end()
        for target in wanted:
            if not any(part.goes_on and part.target == target for part in self._parts):
                self._begin(target)
        self._changed.ring()

    def _begin(self, target: str) -> None:
        assert self._link is not None
        if self._text is None:
            self._text = SourceText(self._transcript)
        before = [part for part in self._parts if part.target == target]
        translation = self._transcript.translation(target)

        def commit(piece: TranslationPiece) -> None:
            translation.commit(piece)
            if self._config.pace is Pace.LIVE:
                lag = max(0, self._transcript.received_sample - piece.end_sample)
                telemetry.TRANSLATION_LAG_SECONDS.observe(seconds(lag))

        upstream = TranslatorUpstream(
            self._link.channel,
            self._config.session_id,
            lambda: self._source_language_code,
            target,
            committed=commit,
            showed=translation.replace_tail,
        )
        excerpt = Excerpt(self._text)
        stage: _Stage = Stage(
            upstream,
            excerpt,
            self._patience,
            quarantine=self._link.quarantine,
            unanswered_samples=self._unanswered_samples,
            moved=self._answered,
            notify=lambda notice: self._notify(replace(notice, target=target)),
            first_sample=excerpt.first_sample,
        )
        self._parts.append(_Part(target, translation, excerpt, stage, before[-1:]))

    @property
    def _source_language_code(self) -> str:
        if self._config.task is Task.TRANSLATE:
            return "en"
        return self._config.language_code or self._transcript.language_code

    async def admit(self) -> None:
        """See whether what was asked for at the start can be had, as far as that is known now.

        A translator without room, or one that cannot be reached, refuses nobody.

        Raises:
            InvalidRequestError: It lacks one of the languages; the message lists those it has.

        """
        if not self._source_language_code:
            return
        with suppress(TimeoutError), first_error():
            async with asyncio.timeout(self._patience.hedge_s), asyncio.TaskGroup() as tasks:
                for part in self._parts:
                    tasks.create_task(_admit(part), name="translated.admit")

    def close(self) -> None:
        """Let go of what ``admit`` found, if ``run`` was never called."""
        for part in self._parts:
            part.stage.close()

    def follow(self) -> None:
        """The transcript may have grown."""
        if self._source_language_code:
            self._language_known.set()
        if self._text is not None and self._text.follow():
            self._wake()

    async def flush(self, timeout_s: float) -> None:
        """Return when all words so far are translated; never later than so many seconds."""
        if self._text is None:
            return
        self.follow()
        mark = self._text.add_mark()
        self._wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(part.lacks(mark) for part in self._parts):
                    await self._changed.wait()

    async def run(self, written: asyncio.Event, timeout_s: float) -> None:
        """Translate until all is said and translated; never longer than it may take.

        Args:
            written: Set when the transcript is complete.
            timeout_s: How long the end of the session waits for translations, in seconds.

        """
        async with asyncio.TaskGroup() as tasks:
            start = tasks.create_task(self._start(tasks), name="translated.start")
            await written.wait()
            start.cancel()
            self._complete = True
            self.follow()
            if self._text is not None:
                self._text.complete()
                self._wake()
            if self._language_known.is_set():
                await self._finish(timeout_s)
            for part in self._parts:
                part.cancel()

    async def _finish(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._parts:
                    await self._changed.wait()
        for part in self._parts:
            self._tell(part, "the translation is not complete")

    async def _start(self, tasks: asyncio.TaskGroup) -> None:
        """Start what has been asked for, whenever more is."""
        while True:
            for part in self._parts:
                if part.task is None:
                    work = self._follow(part)
                    part.task = tasks.create_task(work, name="translated.follow")
            await self._changed.wait()

    async def _follow(self, part: "_Part") -> None:
        """Follow one translator to its end, or without it if it refuses for good."""
        try:
            for before in part.before:
                await before.finished.wait()
            await self._language_known.wait()
            await part.stage.run()
        except MeshError as error:
            part.translation.replace_tail("")
            self._tell(part, str(error))
        finally:
            part.stage.close()
            part.finished.set()
            self._parts.remove(part)
            self._changed.ring()

    def _answered(self) -> None:
        self._changed.ring()
        self._moved()

    def _wake(self) -> None:
        for part in self._parts:
            part.stage.wake()

    def _tell(self, part: "_Part", message: str) -> None:
        log.warning(
            "going on without translation", session_id=self._config.session_id, target=part.target
        )
        told = Notice("translator", "DEGRADED", message, retryable=False, target=part.target)
        self._notify(told)


async def _admit(part: "_Part") -> None:
    with suppress(OverloadedError):
        await part.stage.admit()


class _Part:
    """One translation of an excerpt of a session."""

    def __init__(
        self,
        target: str,
        translation: Translation,
        excerpt: Excerpt,
        stage: _Stage,
        before: "Sequence[_Part]",
    ) -> None:
        self.target = target
        self.translation = translation
        self.excerpt = excerpt
        self.stage = stage
        self.before = before
        """What has to be finished first: it writes into the same translation."""
        self.task: asyncio.Task[None] | None = None
        self.finished = asyncio.Event()

    @property
    def goes_on(self) -> bool:
        """Whether it is to translate what is said from now on."""
        return self.excerpt.end_sample is None

    def end(self) -> None:
        """Translate nothing that is said from now on."""
        self.excerpt.end()
        self.stage.wake()

    def lacks(self, mark: int) -> bool:
        """Whether it has not translated what lies before a mark."""
        return self.goes_on and self.excerpt.first_sample < mark > self.stage.flushed_sample

    def cancel(self) -> None:
        """Do not go on."""
        if self.task is not None:
            self.task.cancel()
