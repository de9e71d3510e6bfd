"""API keys: made here once, known to the gateway by their hashes."""

import hashlib
import re
import secrets

_KEY_BYTES = 32


def make(name: str) -> tuple[str, str]:
    """A new key, and the line that makes a gateway know it.

    Raises:
        ValueError: The name cannot stand in the gateway's file.

    """
    if not re.fullmatch(r"[\w.@-]{1,64}", name):
        raise ValueError(f"{name!r} is no name of up to 64 letters, digits and . _ @ -")
    key = secrets.token_urlsafe(_KEY_BYTES)
    return key, f"{name} {hashlib.sha256(key.encode()).hexdigest()}"
