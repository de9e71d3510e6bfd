"""The diarizer's part in a session: it is waited for, within limits, and never in the way."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

import structlog

from services.common.errors import MeshError
from services.common.ring import Ring
from services.common.words import Word
from services.gateway.link import Link
from services.gateway.recovery import Patience
from services.gateway.route import Heard, Route, RoutedAudio
from services.gateway.session_config import SessionConfig
from services.gateway.speakers import Speakers
from services.gateway.stage import Stage
from services.gateway.tasks import first_error
from services.gateway.transcript import Notice, Scores, Transcript
from services.gateway.upstream import DiarizerUpstream
from voxmesh.diarizer.v1 import diarizer_pb2

log = structlog.get_logger(__name__)

_Stage: TypeAlias = Stage[Heard, diarizer_pb2.DiarizeRequest, diarizer_pb2.DiarizeResponse]


class Diarized:
    """Words on their way into a transcript, and the stage that says whose they are.

    Without a diarizer everybody is one speaker, and the session says so.
    """

    def __init__(
        self,
        config: SessionConfig,
        transcript: Transcript,
        link: Link | None,
        route: Route,
        ring: Ring,
        *,
        patience: Patience,
        unanswered_samples: int,
        word_wait_s: float,
        moved: Callable[[], None],
        notify: Callable[[Notice], None],
    ) -> None:
        """Create the stage; ``run`` starts it.

        Args:
            config: What the client asked for.
            transcript: Gets the words.
            link: The diarizer; None: there is none.
            route: What it is to hear. Call ``wake`` after adding to it.
            ring: The audio of the route, from ``needed_sample`` on.
            patience: How long the diarizer is waited for.
            unanswered_samples: Audio that it need not answer.
            word_wait_s: How long a word waits for its speaker, in seconds.
            moved: Called after every answer.
            notify: Called when the diarizer is lost, and when it is back.

        """
        self._config = config
        self._speakers = Speakers(transcript)
        self._route = route
        self._patience = patience
        self._word_wait_s = word_wait_s
        self._moved = moved
        self._notify = notify
        self._given_up = asyncio.Event()
        self._stage: _Stage | None = None
        if link is None:
            self.give_up("there is no diarizer")
        else:
            self._stage = Stage(
                DiarizerUpstream(link.channel, config, self._speakers),
                RoutedAudio(route, ring),
                patience,
                quarantine=link.quarantine,
                unanswered_samples=unanswered_samples,
                moved=moved,
                notify=notify,
            )

    @property
    def replay_sample(self) -> int | None:
        """Position from which the route may be needed again; None: it is not."""
        return self._stage.replay_sample if self._stage is not None else None

    @property
    def needed_sample(self) -> int | None:
        """Position from which the audio may be needed again; None: it is not."""
        if self._stage is None:
            return None
        return self._route.first_audio(self._stage.replay_sample)

    def has_decided(self, mark: int) -> bool:
        """Whether everything before a mark of the route is known, or nothing will be."""
        return self._stage is None or self._stage.flushed_sample >= mark

    def commit(self, words: Sequence[Word], scores: Scores) -> None:
        """The recogniser is sure of more words."""
        self._speakers.commit(words, scores)

    def settle(self, sample: int) -> None:
        """The recogniser has said everything before a mark."""
        if self.has_decided(sample):
            self._speakers.settle(sample)

    def release(self) -> None:
        """Wait for nobody: let all words in."""
        self._speakers.release()

    def wake(self) -> None:
        """The route has grown."""
        if self._stage is not None:
            self._stage.wake()

    def give_up(self, reason: str) -> None:
        """Go on without a diarizer to the end of the session."""
        self._stage = None
        self._speakers.give_up()
        self._given_up.set()
        log.warning("going on without diarizer", session_id=self._config.session_id)
        self._notify(Notice("diarizer", "DEGRADED", reason, retryable=False))

    async def run(self, said: asyncio.Event) -> None:
        """Follow the diarizer to its end; never longer than it may take.

        Then every word is in the transcript of which the recogniser was sure.

        Args:
            said: Set when the recogniser has said everything.

        """
        try:
            await self._follow(said)
            # The diarizer may be done before the recogniser, whose last words are yet to come.
            await said.wait()
        finally:
            self._speakers.release()
            self._moved()

    async def _follow(self, said: asyncio.Event) -> None:
        if self._stage is None:
            return
        try:
            with first_error():
                async with asyncio.TaskGroup() as tasks:
                    stage = tasks.create_task(self._stage.run(), name="diarizer.stage")
                    hurry = tasks.create_task(self._hurry(), name="diarizer.hurry")
                    late = tasks.create_task(self._late(said), name="diarizer.late")
                    over = tasks.create_task(self._given_up.wait(), name="diarizer.over")
                    await asyncio.wait((stage, late, over), return_when=asyncio.FIRST_COMPLETED)
                    for task in (stage, hurry, late, over):
                        task.cancel()
            if late.done() and not late.cancelled():
                self.give_up("the diarizer is too slow")
        except MeshError as error:
            self.give_up(str(error))
        self._stage = None
        self._speakers.release()
        self._moved()

    async def _late(self, said: asyncio.Event) -> None:
        """Return when the end of the session has waited long enough."""
        await said.wait()
        await asyncio.sleep(self._patience.stall_s)

    async def _hurry(self) -> None:
        """Let no word wait for its speaker longer than it may."""
        clock = asyncio.get_running_loop().time
        oldest, since = self._speakers.oldest, clock()
        while True:
            await asyncio.sleep(self._word_wait_s / 8)
            if (now_oldest := self._speakers.oldest) != oldest:
                oldest, since = now_oldest, clock()
            elif oldest is not None and clock() - since >= self._word_wait_s:
                self._speakers.release()
                self._moved()
