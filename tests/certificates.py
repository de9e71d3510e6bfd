"""Certificates for tests, and what a client sees of a server's."""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc
import grpc.aio
import trustme
from cryptography import x509
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2

from services.common.channel import open_channel

Check: TypeAlias = (
    "grpc.aio.UnaryUnaryMultiCallable["
    "health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key in files."""

    cert: Path
    key: Path

    def take(self, other: "Pair") -> None:
        """Become another pair, one file after the other."""
        self.cert.write_bytes(other.cert.read_bytes())
        self.key.write_bytes(other.key.read_bytes())


class Authority:
    """A CA that nobody knows but those who are given its file."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._ca = trustme.CA(organization_name=name)
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *hosts: str) -> Pair:
        """A pair for hosts, in files of that name; for this machine if none is said."""
        issued = self._ca.issue_cert(*(hosts or ("localhost", "127.0.0.1")), common_name=name)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(pair.key)
        return pair

    def context(self) -> ssl.SSLContext:
        """For a client that believes this CA alone."""
        return ssl.create_default_context(cafile=self.file)

    def credentials(self, pair: Pair | None = None) -> grpc.ChannelCredentials:
        """For a gRPC client that believes this CA alone, and presents a certificate if it has."""
        mine = () if pair is None else (pair.key.read_bytes(), pair.cert.read_bytes())
        return grpc.ssl_channel_credentials(self.file.read_bytes(), *mine)


async def shown(port: int, context: ssl.SSLContext) -> str:
    """The name in the certificate that a server on this machine shows now."""

    def look() -> str:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
            context.wrap_socket(connection, server_hostname="localhost") as secured,
        ):
            certificate = x509.load_der_x509_certificate(secured.getpeercert(True) or b"")
            [name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            return str(name.value)

    return await asyncio.to_thread(look)


async def listening(port: int) -> None:
    """Wait for a server to listen on a port."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


def check_of(channel: grpc.aio.Channel) -> Check:
    """The health check of a server."""
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


async def refused(port: int, credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether a client does not even get to ask."""
    await listening(port)
    async with open_channel(f"127.0.0.1:{port}", credentials) as channel:
        try:
            await check_of(channel)(health_pb2.HealthCheckRequest())
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
    return False
