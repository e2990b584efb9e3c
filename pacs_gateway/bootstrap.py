"""The only place that knows which adapter serves which port, and builds the service out of them."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc

from pacs_gateway.adapters.db import PostgresDatabase
from pacs_gateway.adapters.orthanc import Orthanc
from pacs_gateway.adapters.quarantine_folder import DiskFolder
from pacs_gateway.adapters.receipts import Receipts
from pacs_gateway.adapters.spool import TemporarySpool
from pacs_gateway.adapters.tag_client import TagClient
from pacs_gateway.api.health_service import HealthServicer
from pacs_gateway.api.quarantine_service import QuarantineServicer
from pacs_gateway.api.registry_service import RegistryServicer
from pacs_gateway.api.roles import PUBLIC, UserGatekeeper
from pacs_gateway.api.study_service import StudyServicer
from pacs_gateway.api.upload_service import UploadServicer
from pacs_gateway.settings import DatabaseSettings, GatewaySettings
from pacs_gateway.use_cases.deletions import Deletions
from pacs_gateway.use_cases.health import Health
from pacs_gateway.use_cases.pictures import Pictures
from pacs_gateway.use_cases.quarantine import Quarantine
from pacs_gateway.use_cases.quarantine_upkeep import QuarantineUpkeep
from pacs_gateway.use_cases.quarantined_files import QuarantinedFiles
from pacs_gateway.use_cases.reconciling import Reconciler
from pacs_gateway.use_cases.registry import Registry
from pacs_gateway.use_cases.requests import Requests
from pacs_gateway.use_cases.sessions import Sessions
from pacs_gateway.use_cases.streams import Keeping
from pacs_gateway.use_cases.studies import Studies
from pacs_gateway.use_cases.upload_logs import UploadLogBook
from pacs_gateway.use_cases.uploads import Uploads
from ris.pacs.v1 import (
    health_service_pb2_grpc,
    quarantine_service_pb2_grpc,
    registry_service_pb2_grpc,
    study_service_pb2_grpc,
    upload_service_pb2_grpc,
)
from service_runtime.server import Service
from service_runtime.uploads import MIB


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@asynccontextmanager
async def gateway(settings: GatewaySettings) -> AsyncGenerator[Service, None]:
    """The service, its connections closed at the end. Nothing is connected to before it is needed."""
    async with AsyncExitStack() as resources:
        database = _database(settings)
        resources.push_async_callback(database.close)
        pacs = Orthanc(
            settings.orthanc_url,
            username=settings.orthanc_username,
            password=settings.orthanc_password.get_secret_value(),
            connections=settings.max_orthanc_connections,
            studies_in_memory=settings.max_studies_listed,
        )
        resources.push_async_callback(pacs.close)
        tag_service = TagClient(settings.tag_service_target)
        resources.push_async_callback(tag_service.close)

        registry = Registry(database=database)
        health = Health({"orthanc": pacs.check, "database": database.check, "tag_service": tag_service.check})
        keeping = Keeping(settings.max_beginnings_in_memory_mb * MIB)
        folder = DiskFolder(settings.quarantine_dir) if settings.quarantine_dir else None
        if folder is not None:
            resources.callback(folder.close)
        storing = Uploads(
            database=database,
            pacs=pacs,
            tag_service=tag_service,
            clock=now,
            unknown=settings.unknown_patients,
            keeping=keeping,
            spool=TemporarySpool(),
            quarantine=_quarantine(settings, database, folder, tag_service, keeping) if folder is not None else None,
        )
        quarantine = QuarantineServicer(
            files=_quarantined_files(settings, database, folder, storing) if folder is not None else None
        )
        uploads = UploadServicer(
            uploads=storing,
            log_book=UploadLogBook(database=database),
            requests=Requests(
                database=database,
                keep_seconds=settings.request_seconds,
                lease_seconds=settings.gateway_lease_seconds,
            ),
            sessions=Sessions(
                database=database,
                pacs=pacs,
                clock=now,
                signer=_signer(settings),
                issuer=settings.receipt_issuer,
                keep_seconds=settings.session_seconds,
                max_files=settings.max_session_files,
            ),
            limits=settings.upload_limits,
            archives=settings.archive_limits,
        )
        studies = StudyServicer(
            studies=Studies(database=database, pacs=pacs, max_listed=settings.max_studies_listed),
            pictures=Pictures(pacs=pacs, max_bytes=settings.max_thumbnails_in_memory_mb * MIB),
            deletions=Deletions(database=database, pacs=pacs, clock=now),
        )

        reconciler = Reconciler(
            database=database,
            pacs=pacs,
            clock=now,
            lease_seconds=settings.gateway_lease_seconds,
            interval_seconds=settings.reconcile_interval_seconds,
            compare_seconds=settings.compare_interval_seconds,
            quarantine=_quarantine_upkeep(settings, database, folder) if folder is not None else None,
        )
        await resources.enter_async_context(_in_background(reconciler.run()))

        def register(server: grpc.aio.Server) -> None:
            upload_service_pb2_grpc.add_UploadServiceServicer_to_server(uploads, server)
            study_service_pb2_grpc.add_StudyServiceServicer_to_server(studies, server)
            quarantine_service_pb2_grpc.add_QuarantineServiceServicer_to_server(quarantine, server)
            registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(RegistryServicer(registry=registry), server)
            health_service_pb2_grpc.add_HealthServiceServicer_to_server(HealthServicer(health=health), server)

        yield Service(
            names=(
                "ris.pacs.v1.UploadService",
                "ris.pacs.v1.StudyService",
                "ris.pacs.v1.QuarantineService",
                "ris.pacs.v1.RegistryService",
                "ris.pacs.v1.HealthService",
            ),
            register=register,
            gatekeeper=UserGatekeeper(registry),
            ready=health.is_healthy,
            public_methods=PUBLIC,
            # Envoy sends reflection here: so one port tells of every service.
            reflected=("ris.tags.v1.TagService",),
        )


@asynccontextmanager
async def _in_background(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def registry_of(settings: DatabaseSettings) -> AsyncGenerator[Registry, None]:
    """The registry alone, for commands."""
    database = _database(settings)
    try:
        yield Registry(database=database)
    finally:
        await database.close()


def _signer(settings: GatewaySettings) -> Receipts | None:
    """The key of receipts, if there is one. Where its files are not what they should be, the process ends, as with any
    wrong setting: without it, the sessions that clients have open could not be completed.
    """
    if not settings.receipt_key_file:
        return None
    try:
        return Receipts(key_file=settings.receipt_key_file, old_keys_file=settings.receipt_old_keys_file)
    except ValueError as error:
        raise SystemExit(str(error)) from None


def _database(settings: DatabaseSettings) -> PostgresDatabase:
    return PostgresDatabase(settings.database_url.get_secret_value(), pool_size=settings.database_pool_size)


def _quarantine(
    settings: GatewaySettings, database: PostgresDatabase, folder: DiskFolder, tag_service: TagClient, keeping: Keeping
) -> Quarantine:
    return Quarantine(
        database=database,
        folder=folder,
        tag_service=tag_service,
        clock=now,
        keeping=keeping,
        max_bytes=settings.quarantine_max_mb * MIB,
    )


def _quarantined_files(
    settings: GatewaySettings, database: PostgresDatabase, folder: DiskFolder, uploads: Uploads
) -> QuarantinedFiles:
    return QuarantinedFiles(
        database=database,
        folder=folder,
        uploads=uploads,
        clock=now,
        days=settings.quarantine_days,
        lease_seconds=settings.gateway_lease_seconds,
    )


def _quarantine_upkeep(settings: GatewaySettings, database: PostgresDatabase, folder: DiskFolder) -> QuarantineUpkeep:
    return QuarantineUpkeep(
        database=database,
        folder=folder,
        clock=now,
        days=settings.quarantine_days,
        lease_seconds=settings.gateway_lease_seconds,
        compare_seconds=settings.compare_interval_seconds,
    )
