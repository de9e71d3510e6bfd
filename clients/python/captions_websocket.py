"""Captions of a WAV file over a WebSocket: ``python captions_websocket.py RECORDING.wav``."""

import argparse
import asyncio
import json
import sys
import wave

from websockets.asyncio.client import ClientConnection, connect

MESSAGE_S = 0.1


async def speak(socket: ClientConnection, file: wave.Wave_read) -> None:
    """Send the audio at the pace of speech, and say that it is complete."""
    while pcm := file.readframes(round(MESSAGE_S * file.getframerate())):
        await asyncio.sleep(MESSAGE_S)
        await socket.send(pcm)
    await socket.send(json.dumps({"finish": {}}))


async def listen(socket: ClientConnection) -> None:
    """Print the words as they become final."""
    async for text in socket:
        message = json.loads(text)
        for word in message.get("captions", {}).get("words", ()):
            print(word["text"], end="", flush=True)
        if "error" in message:
            sys.exit(message["error"]["message"])


async def main() -> None:
    """Read the arguments and show the captions."""
    parser = argparse.ArgumentParser(description="Show live captions of a WAV file.")
    parser.add_argument("recording", help="a WAV file of 16-bit samples")
    parser.add_argument("--server", default="ws://127.0.0.1:8000", help="address of the gateway")
    parser.add_argument("--language", default="", help="such as en; detected if not given")
    parser.add_argument("--key", default="", help="where the gateway asks for one")
    args = parser.parse_args()
    headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}
    with wave.open(args.recording) as file:
        opening = {
            "encoding": "ENCODING_LINEAR16",
            "sample_rate_hz": file.getframerate(),
            "channels": file.getnchannels(),
            "language_code": args.language,
        }
        async with connect(f"{args.server}/v1/converse", additional_headers=headers) as socket:
            await socket.send(json.dumps({"open": opening}))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(speak(socket, file))
                tasks.create_task(listen(socket))
    print()


asyncio.run(main())
