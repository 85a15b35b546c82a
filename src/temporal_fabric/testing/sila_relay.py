"""A relay between a SiLA client and its server, which spoils the answers it was told to."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from temporal_fabric.testing.bench import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LATE_S = 1.0
_STREAMS = ("_Info", "_Intermediate")
_NOISE = base64.standard_b64encode(b"\xff\x00\xff").decode()
_GARBAGE: tuple[bytes | tuple[grpc.StatusCode, str], ...] = (
    b"\xff\xff\xff",
    b"\x0a\x7f",
    b"\x08\x96\x01",
    (grpc.StatusCode.ABORTED, "not base64!"),
    (grpc.StatusCode.ABORTED, _NOISE),
    (grpc.StatusCode.UNKNOWN, ""),
    (grpc.StatusCode.INTERNAL, "perhaps"),
    (grpc.StatusCode.UNIMPLEMENTED, ""),
)


class SilaRelay(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Forwards every call to a server.

    Args:
        target: Address of the server.
        methods: Ends of the names of the calls that meet the fault.
        fault: What happens to them.
    """

    def __init__(self, target: str, methods: tuple[str, ...], fault: Fault) -> None:
        self._channel: Any = grpc.aio.insecure_channel(target)
        self._methods, self._fault, self._garbled = methods, fault, 0
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))

    async def start(self) -> int:
        """Begin to listen; return the port."""
        port: int = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port

    async def aclose(self) -> None:
        """End it."""
        await self._server.stop(0)
        await self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        """Return what handles a call."""
        method: str = handler_call_details.method
        if method.endswith(_STREAMS) or "/Subscribe_" in method:

            async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
                async for answer in self._channel.unary_stream(method)(
                    request, metadata=_passed(context)
                ):
                    yield answer

            streaming: Any = grpc.unary_stream_rpc_method_handler
            return streaming(stream)

        async def call(request: bytes, context: Any) -> bytes:
            return await self._call(method, request, context)

        unary: Any = grpc.unary_unary_rpc_method_handler
        return unary(call)

    async def _call(self, method: str, request: bytes, context: Any) -> bytes:
        if self._fault is Fault.AWAY:
            await asyncio.Event().wait()
        spoiled = method.endswith(self._methods)
        if spoiled and self._fault is Fault.LOST_REQUEST:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the request was lost")
        answer: bytes = b""
        error: tuple[grpc.StatusCode, str] | None = None
        try:
            answer = await self._channel.unary_unary(method)(request, metadata=_passed(context))
        except grpc.aio.AioRpcError as exc:
            error = (exc.code(), exc.details() or "")
        if spoiled and self._fault is Fault.LATE_REPLY:
            await asyncio.sleep(_LATE_S)
        elif spoiled and self._fault is Fault.LOST_REPLY:
            error = (grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        elif spoiled:
            garbage = _GARBAGE[self._garbled % len(_GARBAGE)]
            self._garbled += 1
            answer, error = (garbage, None) if isinstance(garbage, bytes) else (b"", garbage)
        if error is not None:
            await context.abort(*error)
        return answer


def _passed(context: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (key, value)
        for key, value in context.invocation_metadata() or ()
        if key.startswith("sila-")
    )
