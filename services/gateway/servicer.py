"""``GatewayService`` over gRPC."""

from collections.abc import AsyncIterator

from services.common.errors import UnauthenticatedError
from services.common.rpc import Metadata, Send, bidi
from services.gateway.auth import from_authorization
from services.gateway.gateway import Gateway
from services.gateway.protocols.converse import converse
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

PROTOCOL = "grpc"


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
        caller = self._gateway.keys.caller([from_authorization(metadata.get("authorization", ""))])
        if caller is None:
            raise UnauthenticatedError("invalid credentials")
        await converse(self._gateway, requests, send, protocol=PROTOCOL, caller=caller)
