"""ris.pacs.v1.HealthService."""

from typing import Any

from grpc.aio import ServicerContext

from pacs_gateway.use_cases.health import Health
from ris.pacs.v1 import health_service_pb2, health_service_pb2_grpc
from service_runtime.status import HTTP_STATUS_KEY

_WORDS = {True: "healthy", False: "unhealthy"}


class HealthServicer(health_service_pb2_grpc.HealthServiceServicer):
    """Words how the parts are."""

    def __init__(self, *, health: Health) -> None:
        self._health = health

    async def CheckHealth(  # noqa: N802 - gRPC's name
        self,
        request: health_service_pb2.CheckHealthRequest,  # noqa: ARG002
        context: ServicerContext[Any, Any],
    ) -> health_service_pb2.CheckHealthResponse:
        """Checks every part."""
        parts = await self._health.parts()
        away = [part.name for part in parts if not part.healthy]
        if away:
            await context.send_initial_metadata(((HTTP_STATUS_KEY, "503"),))
        return health_service_pb2.CheckHealthResponse(
            status=_WORDS[not away],
            message=f"Away: {', '.join(away)}." if away else "Everything is there.",
            parts=[
                health_service_pb2.PartHealth(name=part.name, status=_WORDS[part.healthy], message=part.message)
                for part in parts
            ],
        )
