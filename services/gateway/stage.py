"""A stage of one session: a stream that is replaced, and its input replayed, when it is lost."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import grpc.aio
import structlog

from services.common import telemetry
from services.common.errors import OverloadedError
from services.gateway.recovery import (
    FIRST_DELAY_S,
    LAST_DELAY_S,
    Patience,
    Recovery,
    StreamLostError,
    loss,
)
from services.gateway.route import End, FlushMark, Gap
from services.gateway.tasks import Bell, first_error
from services.gateway.transcript import Notice
from services.gateway.upstream import (
    Answer,
    Call,
    Finished,
    Flushed,
    GoAway,
    Opened,
    PieceT,
    RequestT,
    ResponseT,
    Upstream,
)
from voxmesh.common.v1 import stage_pb2

log = structlog.get_logger(__name__)

_MAX_REFUSALS = 3
"""Replicas that may not understand a checkpoint before it is given up."""

_QUARANTINE_S = 20.0
"""How long a suspect waits for another one to be cleared."""

_ADMISSIONS = 3
"""Replicas that are asked for room before a session is refused for want of it."""


PieceT_co = TypeVar("PieceT_co", covariant=True)


class Reader(Protocol[PieceT_co]):
    """Where one stream stands in what its stage is told."""

    def next(self) -> PieceT_co | None:
        """What comes next; None: that is not known yet."""


class Source(Protocol[PieceT_co]):
    """What a stage is told: a log that only grows, so that reading it again gives the same."""

    def read(
        self, replay_sample: int, settled_sample: int, flushed_sample: int
    ) -> Reader[PieceT_co]:
        """What a stream is told, from its first message on.

        Args:
            replay_sample: Where it starts.
            settled_sample: What lies before it is being rebuilt: nothing is decided there.
            flushed_sample: The last mark that was answered; -1: none was.

        """


class Stage(Generic[PieceT, RequestT, ResponseT]):
    """Tells a stage its source and takes its answers until it says ``finished``.

    A stream that is lost, stalls or is asked to go away is followed by another, which starts from
    the last checkpoint and hears again what came after it. Answers and their checkpoint are taken
    in one step of the event loop, so that no crash can come between them.
    """

    def __init__(
        self,
        upstream: Upstream[PieceT, RequestT, ResponseT],
        source: Source[PieceT],
        patience: Patience,
        *,
        quarantine: asyncio.Lock,
        unanswered_samples: int,
        moved: Callable[[], None],
        notify: Callable[[Notice], None],
        first_sample: int = 0,
    ) -> None:
        """Create the stage; ``run`` starts it.

        Args:
            upstream: Its streams.
            source: What it is told. Call ``wake`` when it has grown.
            patience: How long it is waited for.
            quarantine: Held while this session is tried alone.
            unanswered_samples: Audio that it need not answer; with more, silence is a stall.
            moved: Called after every answer.
            notify: Called when a stream is lost, and when the stage is back.
            first_sample: Where the source starts.

        """
        self._upstream = upstream
        self._source = source
        self._patience = patience
        self._quarantine = quarantine
        self._quarantined = False
        self._unanswered_samples = unanswered_samples
        self._moved = moved
        self._recovery = Recovery(upstream.name, patience.lost_s, notify)
        self._bell = Bell()
        self._admitted: Call[RequestT, ResponseT] | None = None
        """The first stream, while it waits for ``run``."""
        self._checkpoint: stage_pb2.Checkpoint | None = None
        self._first_sample = first_sample
        """Where a stream starts that has no checkpoint."""
        self._refusals = 0
        """Replicas in a row that did not understand the checkpoint."""
        self.answered_sample = first_sample
        """Position through which the stage has worked."""
        self.flushed_sample = -1
        """The last mark whose decision was made."""
        self._sent_sample = 0
        self._asked_sample = -1
        self._finishing = False
        self._waiting_since: float | None = None
        """Since when an answer is owed; None: nothing is."""
        self._frozen = False
        """Whether answers wait because a successor is being opened from the last checkpoint."""

    @property
    def name(self) -> str:
        """The stage, as in metrics and notices."""
        return self._upstream.name

    @property
    def replay_sample(self) -> int:
        """Position from which a successor would have to be told again."""
        return self._checkpoint.replay_from_sample if self._checkpoint else self._first_sample

    @property
    def _settled_sample(self) -> int:
        """Position through which a successor has nothing to say."""
        return self._checkpoint.through_sample if self._checkpoint else self._first_sample

    def wake(self) -> None:
        """The source has grown."""
        self._bell.ring()

    async def admit(self) -> None:
        """Open the first stream, so that a session without room is refused before it begins.

        A stage that cannot be reached refuses nobody: ``run`` goes on trying.

        Raises:
            OverloadedError: Those replicas that answer have no room.
            MeshError: The stage refuses for good.

        """
        losses: list[StreamLostError] = []
        while len(losses) < _ADMISSIONS:
            try:
                self._admitted = await self._open()
            except StreamLostError as lost:
                losses.append(lost)
                if lost.reason == "deadline":
                    break  # The client has waited long enough.
                if lost.reason != "overloaded":
                    await asyncio.sleep(FIRST_DELAY_S)
            else:
                return
        for refused in losses:
            if refused.reason == "overloaded":
                raise OverloadedError(str(refused)) from refused
        await self._recover_from(losses[-1])

    def close(self) -> None:
        """Give the first stream up, if ``run`` was never called."""
        if self._admitted is not None:
            self._admitted.cancel()

    async def run(self) -> None:
        """Tell the source to its end; return when the stage has said ``finished``.

        Raises:
            MeshError: The stage refuses for good, or has been lost for too long.

        """
        call, self._admitted = self._admitted or await self._connect(), None
        try:
            while True:
                try:
                    successor = await self._follow(call)
                except StreamLostError as lost:
                    await self._recover_from(lost)
                    successor = await self._connect()
                if successor is None:
                    return
                call = successor
        finally:
            self._leave_quarantine()

    async def _connect(self) -> "Call[RequestT, ResponseT]":
        while True:
            try:
                call = await self._open()
            except StreamLostError as lost:
                await self._recover_from(lost)
            else:
                self._refusals = 0
                self._recovery.connected()
                return call

    async def _open(self) -> "Call[RequestT, ResponseT]":
        """A stream that was accepted, by the first of two replicas if one takes its time."""
        first = asyncio.create_task(self._attempt(), name=f"{self.name}.open")
        attempts = {first}
        accepted = None
        try:
            done, _ = await asyncio.wait(attempts, timeout=self._patience.hedge_s)
            if not done:
                second = asyncio.create_task(self._attempt(), name=f"{self.name}.hedge")
                attempts.add(second)
            pending = set(attempts)
            while accepted is None and pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                accepted = next((one for one in done if one.exception() is None), None)
            return (accepted or _first_refused(attempts) or first).result()
        finally:
            for attempt in attempts:
                if attempt.done() and attempt is not accepted and attempt.exception() is None:
                    attempt.result().cancel()
                attempt.cancel()

    async def _attempt(self) -> "Call[RequestT, ResponseT]":
        call = self._upstream.call()
        accepted = False
        try:
            async with asyncio.timeout(self._patience.open_s):
                await call.write(self._upstream.open(self._checkpoint, self.replay_sample))
                event = self._event(await call.read())
            accepted = isinstance(event, Opened)
        except TimeoutError:
            raise StreamLostError("deadline", "did not accept the stream in time") from None
        except asyncio.InvalidStateError:
            ended = loss(self.name, await call.code(), await call.details(), opened=False)
            raise ended from None
        except grpc.aio.AioRpcError as error:
            raise self._loss(error, opened=False) from None
        finally:
            if not accepted:
                call.cancel()
        if not accepted:
            raise StreamLostError("protocol", "did not open the stream")
        return call

    async def _follow(
        self, call: "Call[RequestT, ResponseT]"
    ) -> "Call[RequestT, ResponseT] | None":
        """Serve one stream to its end; the successor, if the replica asked for one."""
        self._sent_sample = self.replay_sample
        self._asked_sample = -1
        self._finishing = False
        self._waiting_since = None
        leaving = asyncio.Event()
        try:
            with first_error():
                async with asyncio.TaskGroup() as tasks:
                    name = self.name
                    read = tasks.create_task(self._read(call, leaving), name=f"{name}.read")
                    move = tasks.create_task(self._move(leaving), name=f"{name}.move")
                    write = tasks.create_task(self._write(call), name=f"{name}.write")
                    watch = tasks.create_task(self._watch(), name=f"{name}.watch")
                    await asyncio.wait((read, move), return_when=asyncio.FIRST_COMPLETED)
                    for task in (read, move, write, watch):
                        task.cancel()
        except StreamLostError as lost:
            if lost.crashed:
                self._recovery.crashed(self._settled_sample, self._sent_sample, lost)
            raise
        finally:
            self._frozen = False
            call.cancel()
        return None if move.cancelled() else move.result()

    async def _write(self, call: "Call[RequestT, ResponseT]") -> None:
        reader = self._source.read(self.replay_sample, self._settled_sample, self.flushed_sample)
        while True:
            piece = reader.next()
            if piece is None:
                await self._bell.wait()
                continue
            match piece:
                case FlushMark(sample):
                    self._asked_sample = sample
                case End():
                    self._finishing = True
                case Gap():
                    pass
                case _:
                    self._sent_sample = piece.end_sample
            self._expect()
            try:
                await call.write(self._upstream.request(piece))
                if isinstance(piece, End):
                    await call.done_writing()
            except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
                return  # The reader sees the same end, and its status.
            if isinstance(piece, End):
                return

    async def _read(self, call: "Call[RequestT, ResponseT]", leaving: asyncio.Event) -> None:
        while True:
            try:
                response = await call.read()
            except grpc.aio.AioRpcError as error:
                raise self._loss(error, opened=True) from None
            while self._frozen:
                await self._bell.wait()
            event = self._event(response)
            match event:
                case Answer(through_sample, checkpoint):
                    self._take(through_sample, checkpoint)
                case Flushed(sample):
                    self._survived(sample)
                    if sample > self.flushed_sample:
                        self._recovery.progress()
                    self.flushed_sample = max(self.flushed_sample, sample)
                    self.answered_sample = max(self.answered_sample, sample)
                case GoAway():
                    leaving.set()
                case Finished():
                    return
                case Opened() | None:
                    raise StreamLostError("protocol", "ended the stream before it was finished")
            self._waiting_since = None
            self._expect()
            self._moved()

    async def _move(self, leaving: asyncio.Event) -> "Call[RequestT, ResponseT]":
        """Open a successor while the old stream still serves; make before break."""
        await leaving.wait()
        telemetry.STAGE_RESTARTS.labels(self.name, "go_away").inc()
        delay_s = FIRST_DELAY_S
        while True:
            self._frozen = True
            try:
                return await self._open()
            except StreamLostError:
                self._frozen = False
                self._bell.ring()
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LAST_DELAY_S)

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._patience.stall_s / 8)
            since = self._waiting_since
            if since is not None and clock() - since > self._patience.stall_s:
                raise StreamLostError("stall", "stopped answering")

    def _event(self, response: object) -> "Opened | Answer | Flushed | GoAway | Finished | None":
        if response is grpc.aio.EOF:
            return None
        # grpc.aio types what it reads as anything, because the end has a type of its own.
        return self._upstream.receive(response)  # type: ignore[arg-type]

    def _take(self, through_sample: int | None, checkpoint: stage_pb2.Checkpoint | None) -> None:
        through = through_sample or 0
        self._survived(checkpoint.through_sample if checkpoint else through)
        if through > self.answered_sample:
            self._recovery.progress()
        self.answered_sample = max(self.answered_sample, through)
        if checkpoint is not None:
            self._checkpoint = checkpoint

    def _expect(self) -> None:
        """Start waiting for an answer, if one is owed and nobody waits yet."""
        owed = (
            self._finishing
            or self._asked_sample > self.flushed_sample
            or self._sent_sample - self.answered_sample > self._unanswered_samples
        )
        if not owed:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = asyncio.get_running_loop().time()

    def _loss(self, error: grpc.aio.AioRpcError, *, opened: bool) -> Exception:
        return loss(self.name, error.code(), error.details(), opened=opened)

    async def _recover_from(self, lost: StreamLostError) -> None:
        """Wait a little before the next stream, or give up."""
        self._leave_quarantine()
        await self._recovery.lost(lost)
        if self._recovery.suspect:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._patience.lost_s, _QUARANTINE_S)):
                    self._quarantined = await self._quarantine.acquire()
        if lost.reason == "foreign_checkpoint":
            self._start_over()

    def _survived(self, sample: int) -> None:
        self._recovery.heard(sample)
        if not self._recovery.suspect:
            self._leave_quarantine()

    def _leave_quarantine(self) -> None:
        if self._quarantined:
            self._quarantined = False
            self._quarantine.release()

    def _start_over(self) -> None:
        """Give the checkpoint up if nobody understands it any more, as after an upgrade."""
        self._refusals += 1
        if self._refusals >= _MAX_REFUSALS and self._checkpoint is not None:
            log.warning("starting over without checkpoint", stage=self.name)
            self._first_sample = self._upstream.afresh(self.replay_sample)
            self._checkpoint = None
            self._refusals = 0


def _first_refused(
    attempts: "Iterable[asyncio.Task[Call[RequestT, ResponseT]]]",
) -> "asyncio.Task[Call[RequestT, ResponseT]] | None":
    """The attempt, of some that failed, that was told that there is no room."""
    for attempt in attempts:
        error = attempt.exception()
        if isinstance(error, StreamLostError) and error.reason == "overloaded":
            return attempt
    return None
