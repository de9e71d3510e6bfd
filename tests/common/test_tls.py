"""TLS of a gRPC server and its clients: who gets in, with which certificate, from which file."""

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from services.common import watched
from services.common.channel import open_channel, serves
from services.common.server import serve
from services.common.tls import Identity, TlsFileError
from tests.certificates import Authority, Pair, listening, refused, shown
from tests.common.test_server import news, watching
from tests.settings.serving import until


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_LOOK_EVERY_S", 0.01)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def foreign(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "foreign")


def identity_of(pair: Pair, ca: Authority | None = None) -> Identity:
    return Identity(str(pair.cert), str(pair.key), "" if ca is None else str(ca.file))


@asynccontextmanager
async def serving(identity: Identity, address: str) -> AsyncIterator[None]:
    """A server that is healthy and nothing else."""
    stopping = asyncio.Event()
    server = asyncio.create_task(
        serve(
            lambda _: None,
            service_names=[],
            address=address,
            drain_s=5,
            stopping=stopping,
            identity=identity,
        )
    )
    try:
        yield
    finally:
        stopping.set()
        await server


@pytest.mark.parametrize("target", ["127.0.0.1:{}", "localhost:{}", "dns:///localhost:{}"])
async def test_a_client_that_believes_the_ca_is_served_by_any_name_in_the_certificate(
    ours: Authority, unused_tcp_port: int, target: str
) -> None:
    async with (
        serving(identity_of(ours.issue("server")), f"127.0.0.1:{unused_tcp_port}"),
        open_channel(target.format(unused_tcp_port), ours.credentials()) as channel,
    ):
        assert await serves(channel, "", timeout_s=10)


async def test_who_speaks_plaintext_or_believes_another_ca_is_not_served(
    ours: Authority, foreign: Authority, unused_tcp_port: int
) -> None:
    async with serving(identity_of(ours.issue("server")), f"127.0.0.1:{unused_tcp_port}"):
        assert await refused(unused_tcp_port, None)
        assert await refused(unused_tcp_port, foreign.credentials())
        assert not await refused(unused_tcp_port, ours.credentials())


async def test_a_certificate_for_another_name_is_not_believed(
    ours: Authority, unused_tcp_port: int
) -> None:
    pair = ours.issue("server", "example.org")
    async with serving(identity_of(pair), f"127.0.0.1:{unused_tcp_port}"):
        assert await refused(unused_tcp_port, ours.credentials())


async def test_where_there_is_a_ca_clients_must_present_a_certificate_of_it(
    ours: Authority, foreign: Authority, unused_tcp_port: int
) -> None:
    server = identity_of(ours.issue("server"), ours)
    client = identity_of(ours.issue("client", "anywhere"), ours)
    async with serving(server, f"127.0.0.1:{unused_tcp_port}"):
        assert not await refused(unused_tcp_port, client.channel_credentials)
        assert await refused(unused_tcp_port, ours.credentials())
        assert await refused(unused_tcp_port, ours.credentials(foreign.issue("stranger")))
        assert await refused(unused_tcp_port, None)


async def test_a_client_with_a_ca_believes_no_server_of_another(
    ours: Authority, foreign: Authority, unused_tcp_port: int
) -> None:
    client = identity_of(ours.issue("client"), foreign)
    async with serving(identity_of(ours.issue("server"), ours), f"127.0.0.1:{unused_tcp_port}"):
        assert await refused(unused_tcp_port, client.channel_credentials)


async def test_unix_sockets_stay_plaintext(ours: Authority, tmp_path: Path) -> None:
    identity = identity_of(ours.issue("server"), ours)
    address = f"unix:{tmp_path}/sock"
    async with serving(identity, address):
        for credentials in (None, identity.channel_credentials):
            async with open_channel(address, credentials) as channel:
                assert await serves(channel, "", timeout_s=10)


def handshake(port: int, version: ssl.TLSVersion) -> str | None:
    """The protocol that a client speaks with a server, if it speaks this one and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
        context.wrap_socket(connection) as secured,
    ):
        return secured.version()


async def shakes_hands_from_tls_1_2_on(port: int) -> None:
    for version, spoken in (
        (ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        (ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
    ):
        assert await asyncio.to_thread(handshake, port, version) == spoken
    # gRPC hangs up without a word.
    with pytest.raises(ssl.SSLError, match=r"alert protocol version|EOF occurred"):
        await asyncio.to_thread(handshake, port, ssl.TLSVersion.TLSv1_1)


async def test_nothing_older_than_tls_1_2_is_spoken(ours: Authority, unused_tcp_port: int) -> None:
    identity = identity_of(ours.issue("server"))
    async with serving(identity, f"127.0.0.1:{unused_tcp_port}"):
        await listening(unused_tcp_port)
        await shakes_hands_from_tls_1_2_on(unused_tcp_port)
    other = await asyncio.start_server(
        lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=identity.server_context()
    )
    async with other:
        await shakes_hands_from_tls_1_2_on(other.sockets[0].getsockname()[1])


class Log:
    """What was logged."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, _event: str, *, files: list[str], reason: str) -> None:
        assert files
        self.errors.append(reason)

    def info(self, _event: str, *, files: list[str]) -> None:
        assert files


async def test_new_connections_see_a_new_certificate_and_open_streams_go_on(
    ours: Authority, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    monkeypatch.setattr(watched, "log", log)
    pair, context = ours.issue("server"), ours.context()

    async def seen() -> str:
        return await shown(unused_tcp_port, context)

    async with serving(identity_of(pair), f"127.0.0.1:{unused_tcp_port}"):
        target = f"127.0.0.1:{unused_tcp_port}"
        async with open_channel(target, ours.credentials()) as channel:
            stream = watching(channel, "")
            await news(stream)
            assert await seen() == "server"

            pair.cert.write_bytes(ours.issue("second").cert.read_bytes())
            await until(lambda: bool(log.errors))
            assert "is not the key of" in log.errors[0]
            assert await seen() == "server"

            pair.take(ours.issue("third"))
            async with asyncio.timeout(10):
                while await seen() != "third":
                    pass
            assert await serves(channel, "", timeout_s=10)
            assert not stream.done()


async def test_channels_that_are_opened_now_present_the_new_certificate(
    ours: Authority, foreign: Authority, unused_tcp_port: int
) -> None:
    mine = foreign.issue("client")
    client = identity_of(mine, ours)
    watch = asyncio.create_task(client.watch())
    async with serving(identity_of(ours.issue("server"), ours), f"127.0.0.1:{unused_tcp_port}"):
        before = client.channel_credentials
        assert client.channel_credentials is before
        assert await refused(unused_tcp_port, before)
        mine.take(ours.issue("renewed"))
        await until(lambda: client.channel_credentials is not before)
        assert not await refused(unused_tcp_port, client.channel_credentials)
    watch.cancel()


def locked(pair: Pair) -> None:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda pair, _ca: pair.cert.unlink(), r"cannot be read: .*No such file .*server\.pem"),
        (lambda pair, _ca: pair.key.unlink(), r"cannot be read: .*No such file .*server\.key"),
        (lambda _pair, ca: ca.unlink(), r"cannot be read: .*No such file .*ours\.pem"),
        (lambda pair, _ca: pair.cert.write_text("nothing"), r"server\.key is not the key of"),
        (lambda pair, _ca: pair.key.write_text("nothing"), r"server\.key is not the key of"),
        (lambda _pair, ca: ca.write_text("nothing"), r"ours\.pem is not the certificate of a CA"),
        (lambda pair, _ca: locked(pair), r"server\.key is protected by a passphrase"),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_reason(
    ours: Authority, spoil: Callable[[Pair, Path], None], reason: str
) -> None:
    pair = ours.issue("server")
    spoil(pair, ours.file)
    with pytest.raises(TlsFileError, match=reason):
        identity_of(pair, ours)


def test_the_key_of_another_certificate_is_no_key(ours: Authority) -> None:
    pair, other = ours.issue("server"), ours.issue("other")
    with pytest.raises(TlsFileError, match=r"other\.key is not the key of .*server\.pem"):
        Identity(str(pair.cert), str(other.key))
