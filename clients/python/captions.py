"""Captions of a WAV file, live: ``python captions.py RECORDING.wav``."""

import argparse
import asyncio
import sys
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

# Where the code generated from the contract lies in the repository.
sys.path.append(str(Path(__file__).parents[2] / "proto" / "gen"))
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

MESSAGE_S = 0.1
RETRY_S = 0.5
BROKEN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
}


@dataclass
class Recording:
    """Audio that is spoken from ``started`` on."""

    pcm: bytes
    sample_rate_hz: int
    channels: int
    started: float = 0.0

    @property
    def message_bytes(self) -> int:
        """Audio in one message: whole samples of all channels."""
        return round(MESSAGE_S * self.sample_rate_hz) * self.channels * 2

    async def after(self, position: int) -> AsyncIterator[bytes]:
        """The audio behind a position, as it is spoken."""
        loop = asyncio.get_running_loop()
        self.started = self.started or loop.time()
        while piece := self.pcm[position : position + self.message_bytes]:
            position += len(piece)
            spoken = self.started + position / (self.sample_rate_hz * self.channels * 2)
            await asyncio.sleep(max(0, spoken - loop.time()))
            yield piece


class Captions:
    """One session, over as many calls as it takes."""

    def __init__(
        self, stub: rpc.GatewayServiceStub, recording: Recording, args: argparse.Namespace
    ) -> None:
        self._stub = stub
        self._recording = recording
        self._language = args.language
        self._metadata = (("authorization", f"Bearer {args.key}"),) if args.key else ()
        self._token = ""
        self._num_words = 0
        self._patience_s = 0.0
        self._give_up_at = 0.0

    async def run(self) -> None:
        """Show the captions; when the connection breaks, go on where it was."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._call()
            except grpc.aio.AioRpcError as error:
                ended = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
                if ended or error.code() not in BROKEN or not self._token:
                    raise
                self._give_up_at = self._give_up_at or loop.time() + self._patience_s
                if loop.time() > self._give_up_at:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _call(self) -> None:
        received: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async for response in self._stub.Converse(
            self._requests(received), metadata=self._metadata
        ):
            match response.WhichOneof("event"):
                case "opened":
                    self._token = response.opened.resume_token
                    self._patience_s = response.opened.resume_within.ToTimedelta().total_seconds()
                    self._give_up_at = 0.0
                    received.set_result(response.opened.received_bytes)
                case "captions":
                    self._num_words += len(response.captions.words)
                    show(response.captions)

    async def _requests(self, received: asyncio.Future[int]) -> AsyncIterator[pb.ConverseRequest]:
        if self._token:
            yield pb.ConverseRequest(resume=pb.Resume(token=self._token, num_words=self._num_words))
        else:
            yield pb.ConverseRequest(
                open=pb.Open(
                    encoding=pb.ENCODING_LINEAR16,
                    sample_rate_hz=self._recording.sample_rate_hz,
                    channels=self._recording.channels,
                    language_code=self._language,
                    resumable=True,
                )
            )
        async for audio in self._recording.after(await received):
            yield pb.ConverseRequest(audio=audio)
        yield pb.ConverseRequest(finish=pb.Finish())


def show(captions: pb.Captions) -> None:
    """Print the words that are final and, to a terminal, what may still change."""
    if sys.stderr.isatty():
        sys.stderr.write("\033[J")
    sys.stdout.write("".join(word.text for word in captions.words))
    sys.stdout.flush()
    if sys.stderr.isatty():
        sys.stderr.write(f"\0337\033[2m{captions.tail}\033[0m\0338")
        sys.stderr.flush()


async def main() -> None:
    """Read the arguments and show the captions."""
    parser = argparse.ArgumentParser(description="Show live captions of a WAV file.")
    parser.add_argument("recording", help="a WAV file of 16-bit samples")
    parser.add_argument("--server", default="127.0.0.1:50050", help="gRPC address of the gateway")
    parser.add_argument("--language", default="", help="such as en; detected if not given")
    parser.add_argument("--key", default="", help="where the gateway asks for one")
    args = parser.parse_args()
    with wave.open(args.recording) as file:
        pcm = file.readframes(file.getnframes())
        recording = Recording(pcm, file.getframerate(), file.getnchannels())
    async with grpc.aio.insecure_channel(args.server) as channel:
        await Captions(rpc.GatewayServiceStub(channel), recording, args).run()
    print()


asyncio.run(main())
