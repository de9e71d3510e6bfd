"""An OpenAI-compatible chat endpoint on loopback that shouts."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Endpoint:
    """What it was asked, and how it misbehaves."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.status = 200
        self.lines: list[str] | None = None
        """Said in place of an answer."""
        self.silent = threading.Event()
        """Set: it never answers."""
        self.closing = threading.Event()


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    served = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(body | {"path": self.path})
            served.keys.append(self.headers.get("Authorization", ""))
            if served.silent.is_set():
                served.closing.wait(10)
            self.send_response(served.status)
            self.end_headers()
            lines = served.lines
            if lines is None:
                words = body["messages"][-1]["content"].upper().split()
                lines = [
                    "data: " + json.dumps({"choices": [{"delta": {"content": f" {word}"}}]})
                    for word in words
                ]
            for line in [*lines, "", "data: [DONE]"]:
                self.wfile.write(f"{line}\n".encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/v1/"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield served
    finally:
        served.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
