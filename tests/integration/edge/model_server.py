"""A model server small enough to see through: KServe v2 by HTTP and gRPC; it answers who it is and what it was sent.

Run as a process of its own, so that a test can kill it; it prints its ports (0: any) when it is ready.
A query or parameter named `sleep` makes it slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
from aiohttp import web
from tritonclient.grpc import service_pb2, service_pb2_grpc


class Model(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self, label: str, fail: bool = False, mute: bool = False) -> None:
        self.label, self.fail, self.mute = label, fail, mute

    def respond(self, metadata: Any) -> Any:
        response = service_pb2.ModelInferResponse(model_name="echo", model_version="1", id=self.label)
        for key, value in metadata:
            response.parameters[key].string_param = str(value)
        return response

    async def ModelInfer(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if self.mute:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not ready")
        if self.fail:
            await context.abort(grpc.StatusCode.INTERNAL, "broken model")
        if "sleep" in request.parameters:
            await asyncio.sleep(request.parameters["sleep"].int64_param / 1000)
        return self.respond(context.invocation_metadata() or ())

    async def ModelStreamInfer(
        self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        async for _ in requests:
            yield service_pb2.ModelStreamInferResponse(infer_response=self.respond(context.invocation_metadata() or ()))

    async def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelMetadataResponse(name=request.name, versions=["1"], platform=self.label)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        return service_pb2.RepositoryModelUnloadResponse()

    async def infer(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.mute and request.transport is not None:
            request.transport.abort()
        if self.fail:
            return web.json_response({"error": "broken model"}, status=500)
        await asyncio.sleep(float(request.query.get("sleep", 0)))
        outputs = [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}]
        answer = {
            "model_name": "echo",
            "outputs": outputs,
            "id": self.label,
            "headers": dict(request.headers),
            "sent": body,
        }
        return web.Response(text=json.dumps(answer), content_type="application/json")

    async def any(self, request: web.Request) -> web.Response:
        return web.json_response({"name": request.path, "id": self.label, "versions": ["1"]})


async def serve(http_port: int, grpc_port: int, model: Model) -> None:
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v2/models/{model}/infer", model.infer)
    app.router.add_route("*", "/{tail:.*}", model.any)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", http_port)
    await site.start()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(model, server)
    grpc_port = server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await server.start()
    print(runner.addresses[0][1], grpc_port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("http_port", type=int)
    parser.add_argument("grpc_port", type=int)
    parser.add_argument("label")
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--mute", action="store_true", help="UNAVAILABLE by gRPC, a reset by HTTP")
    options = parser.parse_args()
    asyncio.run(serve(options.http_port, options.grpc_port, Model(options.label, options.fail, options.mute)))
