"""Fetches a recording from a URL that a client names, as far as ``FetchHosts`` allows it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from socket import SOCK_STREAM

import h11

from services.gateway.fetch_hosts import FetchError, FetchHosts, Place, redirected
from services.gateway.uploads import Write

_WAIT_S = 10.0
"""How long a host may take to be found, to be reached, and to send the next bytes."""
_FETCH_S = 300.0
"""How long all of it may take: the client waits."""
_MAX_REDIRECTS = 3
_MAX_ADDRESSES = 4
"""So many addresses of a host are tried."""
_READ_BYTES = 1 << 16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def fetch(url: str, hosts: FetchHosts, write: Write) -> None:
    """Fetch what a URL names.

    Args:
        url: What the client says.
        hosts: Where it may lead, and where to it may be redirected.
        write: Is given the bytes, in order.

    Raises:
        FetchError: It may not be fetched, or cannot be.

    Besides, it raises what ``write`` does.

    """
    try:
        async with asyncio.timeout(_FETCH_S):
            for _ in range(1 + _MAX_REDIRECTS):
                place = hosts.place(url)
                async with _connected(place) as exchange:
                    location = await exchange.get(place, write)
                if location is None:
                    return
                url = redirected(url, location)
    except TimeoutError:
        raise FetchError("the server that hosts the recording takes too long") from None
    raise FetchError("the URL is redirected too often")


class _Exchange:
    """One request to a host, and its answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    async def get(self, place: Place, write: Write) -> str | None:
        """Ask for the recording and pass it on; where it is instead, if it is elsewhere."""
        headers = [
            ("Host", place.authority),
            ("User-Agent", "voxmesh"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        request = h11.Request(method="GET", target=place.target, headers=headers)
        with _network_errors():
            self._send(request)
            self._send(h11.EndOfMessage())
        while True:
            match await self._next_event():
                case h11.Response() as response if response.status_code in _REDIRECTS:
                    return _header(response, b"location")
                case h11.Response() as response:
                    _check(response)
                case h11.Data(data=data):
                    await write(bytes(data))
                case h11.EndOfMessage():
                    return None

    def _send(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self._writer.write(data)

    async def _next_event(self) -> object:
        with _network_errors():
            while (event := self._http.next_event()) is h11.NEED_DATA:
                async with asyncio.timeout(_WAIT_S):
                    data = await self._reader.read(_READ_BYTES)
                self._http.receive_data(data)
        return event


@asynccontextmanager
async def _connected(place: Place) -> AsyncIterator[_Exchange]:
    """Connect to the host, at an address that was judged: its name is not resolved again."""
    tls = await asyncio.to_thread(ssl.create_default_context) if place.encrypted else None
    reader, writer = await _connect(await _addresses(place), place, tls)
    try:
        yield _Exchange(reader, writer)
    finally:
        writer.transport.abort()


async def _addresses(place: Place) -> list[str]:
    loop = asyncio.get_running_loop()
    with _network_errors():
        async with asyncio.timeout(_WAIT_S):
            found = await loop.getaddrinfo(place.host, place.port, type=SOCK_STREAM)
    addresses = [str(address) for *_, (address, *_) in found]
    for address in addresses:
        place.check_address(address)
    return addresses[:_MAX_ADDRESSES]


async def _connect(
    addresses: list[str], place: Place, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure = FetchError("the server that hosts the recording has no address")
    for address in addresses:
        try:
            with _network_errors():
                async with asyncio.timeout(_WAIT_S):
                    return await asyncio.open_connection(
                        address, place.port, ssl=tls, server_hostname=place.host if tls else None
                    )
        except FetchError as error:
            failure = error
    raise failure


@contextmanager
def _network_errors() -> Iterator[None]:
    """Tell the client what is wrong with the host, and nothing about the network."""
    try:
        yield
    except TimeoutError:
        raise FetchError("the server that hosts the recording does not answer in time") from None
    except ssl.SSLError as error:
        raise FetchError("the server that hosts the recording proves no identity") from error
    except (OSError, UnicodeError) as error:
        raise FetchError("the server that hosts the recording cannot be reached") from error
    except h11.ProtocolError as error:
        raise FetchError("the server that hosts the recording fails to answer in HTTP") from error


def _check(response: h11.Response) -> None:
    if response.status_code != 200:
        raise FetchError(
            f"the server that hosts the recording answers with status {response.status_code}"
        )
    if _header(response, b"content-encoding") not in {"", "identity"}:
        raise FetchError("the server that hosts the recording compresses it")


def _header(response: h11.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key == name), "")
