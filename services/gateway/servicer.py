"""``GatewayService``, and NVIDIA Riva's ``RivaSpeechRecognition``, over gRPC."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
from google.protobuf.message_factory import GetMessageClass

from services.common.errors import UnauthenticatedError
from services.common.rpc import Metadata, Send, bidi
from services.gateway.auth import from_authorization
from services.gateway.gateway import Gateway
from services.gateway.protocols import riva
from services.gateway.protocols.converse import converse
from voxmesh.foreign.riva import riva_asr_pb2 as riva_pb
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

PROTOCOL = "grpc"

_RIVA = riva_pb.DESCRIPTOR.services_by_name["RivaSpeechRecognition"]

SERVICE_NAMES = (pb.DESCRIPTOR.services_by_name["GatewayService"].full_name, _RIVA.full_name)
"""What is served, as health checks and reflection name it."""


def add_services(gateway: Gateway, server: grpc.aio.Server) -> None:
    """Serve everything that the gateway speaks over gRPC."""
    rpc.add_GatewayServiceServicer_to_server(GatewayServicer(gateway), server)
    servicer = RivaServicer(gateway)
    # On the wire a call with one request is a stream of one. Served as a stream, it is asked for
    # its key before its recording is read, and flow control holds the recording back until then.
    handlers = {
        method.name: grpc.stream_stream_rpc_method_handler(
            getattr(servicer, method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
        for method in _RIVA.methods
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_RIVA.full_name, handlers),)
    )


def _caller(gateway: Gateway, metadata: Metadata) -> str:
    caller = gateway.keys.caller([from_authorization(metadata.get("authorization", ""))])
    if caller is None:
        raise UnauthenticatedError("invalid credentials")
    return caller


class GatewayServicer(rpc.GatewayServiceServicer):
    """Serves ``GatewayService``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @bidi
    async def Converse(
        self,
        requests: AsyncIterator[pb.ConverseRequest],
        send: Send[pb.ConverseResponse],
        metadata: Metadata,
    ) -> None:
        caller = _caller(self._gateway, metadata)
        await converse(self._gateway, requests, send, protocol=PROTOCOL, caller=caller)


class RivaServicer:
    """Serves ``RivaSpeechRecognition``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @bidi
    async def Recognize(
        self,
        requests: AsyncIterator[riva_pb.RecognizeRequest],
        send: Send[riva_pb.RecognizeResponse],
        metadata: Metadata,
    ) -> None:
        caller = _caller(self._gateway, metadata)
        await send(await riva.recognize(self._gateway, requests, caller=caller))

    @bidi
    async def StreamingRecognize(
        self,
        requests: AsyncIterator[riva_pb.StreamingRecognizeRequest],
        send: Send[riva_pb.StreamingRecognizeResponse],
        metadata: Metadata,
    ) -> None:
        caller = _caller(self._gateway, metadata)
        await riva.streaming_recognize(self._gateway, requests, send, caller=caller)

    @bidi
    async def GetRivaSpeechRecognitionConfig(
        self,
        requests: AsyncIterator[riva_pb.RivaSpeechRecognitionConfigRequest],
        send: Send[riva_pb.RivaSpeechRecognitionConfigResponse],
        metadata: Metadata,
    ) -> None:
        _caller(self._gateway, metadata)
        async for request in requests:
            await send(riva.models(self._gateway, request))
            return
