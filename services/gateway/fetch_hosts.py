"""Where recordings may be fetched from: hosts on a list, and what is inside a network never."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from services.common.errors import InvalidRequestError

_PORTS = {"https": 443, "http": 80}
_URL = re.compile(r"[!-~]{1,4096}")
"""What a URL is made of. Python's parser leaves out tabs and line feeds without a word."""
_PUBLIC_V6 = IPv6Network("2000::/3")
"""Addresses outside it lead inside, to everybody, or back to addresses of version 4."""


class FetchError(InvalidRequestError):
    """What a URL names cannot be fetched, or may not be."""


@dataclass(frozen=True, slots=True)
class _Origin:
    scheme: str
    host: str
    """In lower case; an address without brackets."""
    port: int


@dataclass(frozen=True, slots=True)
class Place:
    """What a URL names, on a host that is listed."""

    origin: _Origin
    target: str
    """What is asked for there: path and query."""

    @property
    def host(self) -> str:
        """Name or address of the host."""
        return self.origin.host

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.origin.port

    @property
    def encrypted(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.origin.scheme == "https"

    @property
    def authority(self) -> str:
        """What the header ``Host`` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.origin.scheme] else f"{host}:{self.port}"

    def check_address(self, address: str) -> None:
        """See whether a connection may be opened to an address that the host has.

        Raises:
            FetchError: It leads inside, and is not what is on the list.

        """
        found = ip_address(address)
        if not (_is_public(found) or _address(self.host) == found):
            raise FetchError("the URL does not lead to a public address")


class FetchHosts:
    """The hosts on a list. Each stands for one port and for one of HTTPS and HTTP."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Read the list.

        Args:
            entries: ``host``, ``host:port``, or the same behind ``https://`` or ``http://``.

        Raises:
            FetchError: One of them is something else.

        """
        self._origins = frozenset(map(_entry, entries))

    def __bool__(self) -> bool:
        return bool(self._origins)

    def place(self, url: str) -> Place:
        """What a URL names.

        Raises:
            FetchError: It is no URL, or its host is not listed.

        """
        parts, origin = _split(url)
        if origin not in self._origins:
            raise FetchError("recordings are not fetched from the URL's host")
        query = f"?{parts.query}" if parts.query else ""
        return Place(origin, (parts.path or "/") + query)


def redirected(url: str, location: str) -> str:
    """Where a URL leads whose host names another place, in full or in part.

    Raises:
        FetchError: That is no place.

    """
    try:
        if not _URL.fullmatch(location):
            raise ValueError
        return urljoin(url, location)
    except ValueError:
        raise FetchError("the URL is redirected to what is no URL") from None


def _entry(entry: str) -> _Origin:
    parts, origin = _split(entry if "://" in entry else f"https://{entry}")
    if parts.path or parts.query or parts.fragment:
        raise FetchError(f"{entry!r} is more than a host")
    return origin


def _split(url: str) -> tuple[SplitResult, _Origin]:
    try:
        if not _URL.fullmatch(url):
            raise ValueError
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        raise FetchError("the URL cannot be read") from None
    if scheme not in _PORTS or not host:
        raise FetchError("the URL is not one of https, or of http where that is allowed")
    if "@" in parts.netloc:
        raise FetchError("the URL holds credentials, and none are sent")
    literal = _address(host)
    name = str(literal) if literal else host.rstrip(".")
    return parts, _Origin(scheme, name, _PORTS[scheme] if port is None else port)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        if (inner := address.ipv4_mapped) is not None:
            return _is_public(inner)
        if address not in _PUBLIC_V6 or address.sixtofour is not None:
            return False
    return address.is_global and not address.is_multicast
