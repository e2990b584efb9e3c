"""Builds the service out of its parts."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc

from ris.tags.v1 import tag_service_pb2_grpc
from service_runtime.identity import AnyUser
from service_runtime.server import Service
from tag_service.api.servicer import TagServicer
from tag_service.settings import TagSettings
from tag_service.use_cases.deidentifying import Deidentifying
from tag_service.use_cases.feeding import workers
from tag_service.use_cases.heading import Heading
from tag_service.use_cases.modifying import Modifying
from tag_service.use_cases.rewriting import Rewriting


@asynccontextmanager
async def tag_service(settings: TagSettings) -> AsyncGenerator[Service, None]:
    """The service. It stands on nothing else, so it is ready once it serves."""
    asyncio.get_running_loop().set_default_executor(workers())
    modifying = Modifying(settings.limits)
    upload_limits = settings.upload_limits
    servicer = TagServicer(
        rewriting=Rewriting(max_bytes=settings.max_bytes_in_memory, wait_seconds=settings.memory_wait_seconds),
        modifying=modifying,
        heading=Heading(modifying, settings.limits, max_file_bytes=upload_limits.file_bytes),
        deidentifying=Deidentifying(settings.limits, key=settings.deidentify_key.get_secret_value()),
        limits=settings.limits,
        upload_limits=upload_limits,
    )

    def register(server: grpc.aio.Server) -> None:
        tag_service_pb2_grpc.add_TagServiceServicer_to_server(servicer, server)

    yield Service(names=("ris.tags.v1.TagService",), register=register, gatekeeper=AnyUser(), ready=_is_ready)


async def _is_ready() -> bool:
    return True
