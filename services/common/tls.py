"""TLS: what a process proves to those it speaks to, from files that may be replaced at any time."""

import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc

from services.common.settings import ServiceSettings
from services.common.watched import FileError, Watched


class TlsFileError(FileError):
    """A certificate, a key or a CA cannot be used."""


@dataclass(frozen=True, slots=True)
class _Pem:
    """Files that belong together, as they were at one moment."""

    certificate_chain: bytes
    key: bytes
    ca: bytes | None


@dataclass(frozen=True, slots=True)
class _Credentials:
    pem: _Pem
    context: ssl.SSLContext
    channel: grpc.ChannelCredentials


class Identity:
    """A certificate and its key and, where others have to prove who they are too, their CA.

    New connections are made with what the files hold at that moment; open ones go on.
    """

    def __init__(self, cert_file: str, key_file: str, ca_file: str = "") -> None:
        """Read the files.

        Args:
            cert_file: The certificate and those between it and the CA's, PEM.
            key_file: Its private key, PEM, without a passphrase.
            ca_file: Certificates of the CA that signs everybody's, PEM. With it, clients must
                present a certificate, and servers are believed by no other CA.

        Raises:
            TlsFileError: One of them cannot be read, or they do not fit together.

        """
        files = (Path(cert_file), Path(key_file), *([Path(ca_file)] if ca_file else []))
        self._files = Watched(files, partial(_read, *files))

    @property
    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For channels that are opened now; another object once the files have been replaced."""
        return self._files.content.channel

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC server."""

        def newest() -> grpc.ServerCertificateConfiguration:
            pem = self._files.content.pem
            return grpc.ssl_server_certificate_configuration(
                [(pem.key, pem.certificate_chain)], pem.ca
            )

        return grpc.dynamic_ssl_server_credentials(
            newest(), newest, self._files.content.pem.ca is not None
        )

    def server_context(self) -> ssl.SSLContext:
        """For a server of anything else; it asks no client for a certificate."""

        def take_newest(handshake: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
            handshake.context = self._files.content.context

        context = self._files.content.context
        # Reloading a context in use would break it if only one of the files has been replaced.
        context.sni_callback = take_newest
        return context

    async def watch(self) -> None:
        """Read the files again whenever one changes; what cannot be used changes nothing."""
        await self._files.watch()


def mesh_identity(settings: ServiceSettings) -> Identity | None:
    """What a service proves to the others of its mesh; None: they believe each other.

    Raises:
        TlsFileError: The files that the settings name cannot be used.

    """
    if not settings.mtls_cert_file:
        return None
    return Identity(settings.mtls_cert_file, settings.mtls_key_file, settings.mtls_ca_file)


def stays_on_machine(address: str) -> bool:
    """Whether an address is a Unix socket: its folder says who may connect."""
    return address.startswith(("unix:", "unix-abstract:"))


def _read(cert_file: Path, key_file: Path, ca_file: Path | None = None) -> _Credentials:
    pem = _pem(cert_file, key_file, ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def refuse() -> str:
        raise TlsFileError(f"the key {key_file} is protected by a passphrase")

    try:
        context.load_cert_chain(cert_file, key_file, password=refuse)
    except OSError as error:
        raise TlsFileError(
            f"{key_file} is not the key of {cert_file}, or one of them is not PEM: {error}"
        ) from error
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise TlsFileError(f"{ca_file} is not the certificate of a CA: {error}") from error
    # gRPC takes bytes and says much later what is wrong with them: they are those just tried.
    if _pem(cert_file, key_file, ca_file) != pem:
        raise TlsFileError(f"{cert_file} or {key_file} is just being replaced")
    channel = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate_chain)
    return _Credentials(pem, context, channel)


def _pem(cert_file: Path, key_file: Path, ca_file: Path | None) -> _Pem:
    try:
        return _Pem(
            cert_file.read_bytes(),
            key_file.read_bytes(),
            None if ca_file is None else ca_file.read_bytes(),
        )
    except OSError as error:
        raise TlsFileError(f"a certificate or its key cannot be read: {error}") from error
