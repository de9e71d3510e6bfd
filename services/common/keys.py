"""API keys as a gateway keeps them: a line for each, with a name and the hash of the key.

A key is a random text of 256 bits, so that a plain SHA-256 tells nothing of it.
"""

import hashlib
import re

NAME = r"[\w.@-]{1,64}"
"""What a key may be called."""
_LINE = re.compile(rf"({NAME})\s+([0-9a-f]{{64}})")


def digest(key: str) -> bytes:
    """The hash by which a key is known."""
    return hashlib.sha256(key.encode()).digest()


def line_of(name: str, key: str) -> str:
    """The line that makes a gateway know a key.

    Raises:
        ValueError: The name cannot stand in it.

    """
    if not re.fullmatch(NAME, name):
        raise ValueError(f"{name!r} is no name of up to 64 letters, digits and . _ @ -")
    return f"{name} {digest(key).hex()}"


def parse(line: str) -> tuple[str, bytes] | None:
    """The name and the hash in a line; None: it has not that form."""
    found = _LINE.fullmatch(line.strip())
    return (found[1], bytes.fromhex(found[2])) if found else None
