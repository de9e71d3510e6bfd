"""A server that answers like the OpenAI API does."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer:
    """Transcribes every upload to its own file name; fails those called bad."""

    def __init__(self) -> None:
        self.forms: list[dict[str, bytes]] = []
        self.keys: list[str | None] = []
        self.health: object = {"status": "ok", "ready": True}
        self.delay_s = 0.0
        """How long an upload is worked on."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, json.dumps(fake.health))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
                message = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + body)
                form, name = {}, ""
                for part in message.iter_parts():
                    form[part["Content-Disposition"].params["name"]] = bytes(
                        part.get_payload(decode=True)
                    )
                    name = part.get_filename() or name
                fake.forms.append(form)
                fake.keys.append(self.headers["Authorization"])
                time.sleep(fake.delay_s)
                if "bad" in name:
                    error = {"error": {"message": "not audio", "type": "invalid_request_error"}}
                    self._answer(400, json.dumps(error))
                else:
                    self._answer(200, f"text of {name}\n")

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Keep the test's output clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def serving() -> Iterator[FakeServer]:
    """Run a server for as long as the block takes."""
    fake = FakeServer()
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()
