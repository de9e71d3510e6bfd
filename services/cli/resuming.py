"""One session over as many calls as it takes: what breaks is resumed, and nothing is lost."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio

from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

_BROKEN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    }
)
"""How a call ends whose connection broke, directly or behind a proxy."""
_STATUS_DETAILS = "grpc-status-details-bin"
"""Where the gateway says why it ends a session."""
_FIRST_DELAY_S = 0.1
_LAST_DELAY_S = 2.0


class Outbox:
    """Audio that the gateway has not said to have received."""

    def __init__(self) -> None:
        self._blocks: deque[bytes] = deque()
        self._first = 0
        self._end = 0
        self._ended = False
        self._grown = asyncio.Event()

    @property
    def kept_bytes(self) -> int:
        """How much that is."""
        return self._end - self._first

    def add(self, audio: bytes) -> None:
        """Append what was recorded."""
        self._blocks.append(audio)
        self._end += len(audio)
        self._grown.set()

    def end(self) -> None:
        """Nothing will be added any more."""
        self._ended = True
        self._grown.set()

    def acknowledge(self, num_bytes: int) -> None:
        """The gateway has this much from the start; it will never ask for it again."""
        while self._blocks and self._first + len(self._blocks[0]) <= num_bytes:
            self._first += len(self._blocks.popleft())

    async def after(self, num_bytes: int, over: asyncio.Event) -> AsyncIterator[bytes]:
        """The audio behind a position, as it is recorded, to its end.

        Args:
            num_bytes: The position.
            over: Set when nobody wants it any more; call ``wake`` then.

        """
        position = num_bytes
        while not over.is_set():
            data = self._read(position)
            if data:
                position += len(data)
                yield data
            elif self._ended:
                return
            else:
                self._grown.clear()
                await self._grown.wait()

    def wake(self) -> None:
        """Let whoever waits for audio look again."""
        self._grown.set()

    def _read(self, position: int) -> bytes:
        """What the block at a position still holds from there on; nothing at the end."""
        start = self._first
        for block in self._blocks:
            if position < start + len(block):
                return block[position - start :]
            start += len(block)
        return b""


async def converse(
    stub: "rpc.GatewayServiceStub",
    opening: pb.Open,
    outbox: Outbox,
    on_answer: Callable[[pb.ConverseResponse], None],
) -> None:
    """Hold a session to its end, whatever happens to its connections.

    Args:
        stub: The gateway.
        opening: What the session is.
        outbox: Its audio, which is added meanwhile.
        on_answer: Is told what the gateway says: every word once, in order.

    Raises:
        grpc.aio.AioRpcError: The gateway refused the session, ended it, or could not be reached
            again for as long as it keeps the session.

    """
    session = _Session(pb.Open(), outbox, on_answer)
    session.opening.CopyFrom(opening)
    session.opening.resumable = True
    clock = asyncio.get_running_loop().time
    delay_s, broke_at = _FIRST_DELAY_S, 0.0
    while True:
        opened_before = session.num_opened
        try:
            await session.call(stub)
        except grpc.aio.AioRpcError as error:
            if session.num_opened > opened_before:
                delay_s, broke_at = _FIRST_DELAY_S, clock()
            if not _is_break(error) or clock() > broke_at + session.patience_s:
                raise
        else:
            return
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, _LAST_DELAY_S)


def _is_break(error: grpc.aio.AioRpcError) -> bool:
    """Whether a call ended because its connection broke, and not because the gateway ended it."""
    said = dict(error.trailing_metadata() or ()).get(_STATUS_DETAILS)
    return error.code() in _BROKEN and said is None


class _Session:
    def __init__(
        self, opening: pb.Open, outbox: Outbox, on_answer: Callable[[pb.ConverseResponse], None]
    ) -> None:
        self.opening = opening
        self.num_opened = 0
        """Calls that were accepted."""
        self.patience_s = 0.0
        """How long the gateway keeps the session without a call; 0: there is none yet."""
        self._outbox = outbox
        self._on_answer = on_answer
        self._token = ""
        self._num_words = 0
        self._num_pieces: dict[str, int] = {}

    async def call(self, stub: "rpc.GatewayServiceStub") -> None:
        """Make one call; return when the gateway has said ``finished``.

        Raises:
            grpc.aio.AioRpcError: The call ended before.

        """
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        over = asyncio.Event()
        try:
            async for answer in stub.Converse(self._requests(accepted, over)):
                if answer.WhichOneof("event") == "opened":
                    accepted.set_result(answer.opened.received_bytes)
                self._take(answer)
        finally:
            # gRPC lets its reader of requests wait for ever when the call has ended.
            over.set()
            self._outbox.wake()
            if not accepted.done():
                accepted.set_result(0)

    def _take(self, answer: pb.ConverseResponse) -> None:
        match answer.WhichOneof("event"):
            case "opened":
                self.num_opened += 1
                self._token = answer.opened.resume_token
                self.patience_s = answer.opened.resume_within.ToTimedelta().total_seconds()
                self._outbox.acknowledge(answer.opened.received_bytes)
            case "received":
                self._outbox.acknowledge(answer.received.num_bytes)
            case "captions":
                self._num_words = answer.captions.first_word + len(answer.captions.words)
            case "translated":
                told = answer.translated
                self._num_pieces[told.language_code] = told.first_piece + len(told.pieces)
        self._on_answer(answer)

    async def _requests(
        self, accepted: "asyncio.Future[int]", over: asyncio.Event
    ) -> AsyncIterator[pb.ConverseRequest]:
        if self._token:
            resume = pb.Resume(
                token=self._token, num_words=self._num_words, num_pieces=self._num_pieces
            )
            yield pb.ConverseRequest(resume=resume)
        else:
            yield pb.ConverseRequest(open=self.opening)
        async for audio in self._outbox.after(await accepted, over):
            yield pb.ConverseRequest(audio=audio)
        if not over.is_set():
            yield pb.ConverseRequest(finish=pb.Finish())
