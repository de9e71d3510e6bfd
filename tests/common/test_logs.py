"""Logs are configured once in a process, so each test runs a process of its own."""

import json
import subprocess
import sys
from typing import Any


def logged(code: str, level: str = "info") -> list[dict[str, Any]]:
    """What a program logs, line by line."""
    start = f"""
import logging
import structlog
from services.common import logs
logs.configure("sample", {level!r})
log = structlog.get_logger("services.sample")
"""
    done = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_is_json_with_its_values_as_fields() -> None:
    [line] = logged('log.info("serving", address="unix:/x", streams=3)')
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "serving",
        "address": "unix:/x",
        "streams": 3,
        "level": "info",
        "service": "sample",
    }


def test_the_session_is_on_every_line_of_its_context_libraries_included() -> None:
    lines = logged("""
with structlog.contextvars.bound_contextvars(session_id="s1"):
    log.info("inside")
    logging.getLogger("library").warning("also %s", "inside")
log.info("outside")
""")
    assert [(line["event"], line.get("session_id")) for line in lines] == [
        ("inside", "s1"),
        ("also inside", "s1"),
        ("outside", None),
    ]


def test_libraries_are_heard_from_warning_up_only() -> None:
    lines = logged(
        """
logging.getLogger("library").info("the text that was spoken")
logging.getLogger("library").debug("the text that was spoken")
logging.getLogger("library").warning("trouble")
log.debug("mine")
""",
        level="debug",
    )
    assert [line["event"] for line in lines] == ["trouble", "mine"]


def test_what_is_below_the_level_is_not_written() -> None:
    lines = logged('log.info("a"); log.warning("b"); log.error("c")', level="warning")
    assert [line["event"] for line in lines] == ["b", "c"]


def test_an_error_has_its_stack_but_not_the_values_in_it() -> None:
    [line] = logged("""
def decode(audio):
    text = audio + " that was spoken"
    raise ValueError("no good")
try:
    decode("the text")
except ValueError as error:
    log.error("unexpected error", exc_info=error)
""")
    [stack] = line["exception"]
    assert (stack["exc_type"], stack["exc_value"]) == ("ValueError", "no good")
    assert [frame["name"] for frame in stack["frames"]] == ["<module>", "decode"]
    assert "that was spoken" not in json.dumps(line)
