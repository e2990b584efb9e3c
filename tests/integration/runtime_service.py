"""A service to try the runtime with: servicers of our protos that do what the request says. Also runs by itself."""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc

from ris.pacs.v1 import study_service_pb2, study_service_pb2_grpc, upload_service_pb2, upload_service_pb2_grpc
from service_runtime.errors import InvalidFieldError, Reason, ServiceError, Violation, not_found
from service_runtime.identity import CALLER, Caller
from service_runtime.server import Service, run
from service_runtime.settings import RuntimeSettings
from service_runtime.streams import open_upload
from service_runtime.uploads import UploadedFile

# Stands for a patient's name in an exception of a library.
SECRET = "Jones^Indiana"
PUBLIC_METHOD = "/ris.pacs.v1.StudyService/ListStudies"
FORBIDDEN = UUID(int=13)


class Gatekeeper:
    """Lets everybody in but one."""

    async def admit(self, method: str, user_id: UUID, token: str) -> Caller:  # noqa: ARG002 - the protocol's
        """The caller."""
        if user_id == FORBIDDEN:
            raise ServiceError(Reason.USER_NOT_ALLOWED, "Not this one.")
        return Caller(user_id, token, "viewer", "Indiana Jones")


class Studies(study_service_pb2_grpc.StudyServiceServicer):
    """GetStudy does what its study_uid says; ListStudies needs no token."""

    async def ListStudies(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - grpc's
        """Nothing."""
        return study_service_pb2.ListStudiesResponse()

    async def GetStudy(self, request: Any, context: Any) -> Any:  # noqa: N802 - grpc's
        """A study that tells of the process and the caller."""
        match request.study_uid.split(":"):
            case ["defect"]:
                raise RuntimeError(SECRET)
            case ["caused"]:
                try:
                    int(SECRET)
                except ValueError as error:
                    raise ServiceError(Reason.ORTHANC_UNAVAILABLE, "Away.", retry_after=1.5) from error
            case ["invalid"]:
                raise InvalidFieldError(*(Violation(f"field{n}" * 40, "wrong " * 100) for n in range(500)))
            case ["absent", uid]:
                raise not_found(Reason.STUDY_NOT_FOUND, "study", uid)
            case ["abort"]:
                await context.abort(grpc.StatusCode.NOT_FOUND, "by itself")
            case ["background"]:
                # Nobody waits for it, so nobody sees it fail.
                asyncio.get_running_loop().create_task(_fail())
                await asyncio.sleep(0.05)
                gc.collect()
            case ["garbage"]:
                assert gc.isenabled()
            case ["sleep", seconds]:
                await asyncio.sleep(float(seconds))
        study = study_service_pb2.Study(patient_id=str(CALLER.get().user_id), number_of_series=os.getpid())
        return study_service_pb2.GetStudyResponse(study=study)


async def _fail() -> None:
    raise RuntimeError(SECRET)


class Uploads(upload_service_pb2_grpc.UploadServiceServicer):
    """Read files, in ways that `patient_match` of the first message tells, and note what became of them."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self.limits = settings.upload_limits
        self.notes: list[str] = []

    async def Upload(self, requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: N802 - grpc's
        """The size of the file."""
        first, upload = await open_upload(requests, context, self.limits)
        if first.patient_match == "answer early":
            return upload_service_pb2.UploadResponse(message="early")
        if first.patient_match == "refuse early":
            raise ServiceError(Reason.NOT_DICOM, "No.")
        try:
            file = await upload.only_file()
            size = await _size(file)
            self.notes.append(f"whole {size}")
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            raise
        return upload_service_pb2.UploadResponse(message=str(size))

    async def UploadMultiple(  # noqa: N802 - grpc's
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncGenerator[Any, None]:
        """One answer for each file."""
        first, upload = await open_upload(requests, context, self.limits)
        count = 0
        try:
            async for file in upload.files():
                count += 1
                size = await (_left(file) if first.patient_match == "leave" else _size(file))
                yield upload_service_pb2.UploadMultipleResponse(message=str(size))
                if first.patient_match == "defect":
                    raise RuntimeError(SECRET)
                while first.patient_match == "flood":
                    yield upload_service_pb2.UploadMultipleResponse(message="x" * 100_000)
        finally:
            # As a servicer does that has something to put in order.
            await asyncio.sleep(0.05)
            self.notes.append(f"closed after {count}")


async def _size(file: UploadedFile) -> int:
    return sum([len(chunk) async for chunk in file])


async def _left(file: UploadedFile) -> int:
    """Reads in a task of its own, and cancels that while it waits."""
    reading = asyncio.create_task(_size(file))
    await asyncio.wait([reading], timeout=0.1)
    reading.cancel()
    await asyncio.wait([reading])
    return -1


class Parts:
    """What a test looks into."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self.ready = True
        # In place of `ready`, where there is one.
        self.probe: Callable[[], Awaitable[bool]] | None = None
        self.uploads = Uploads(settings)

    async def is_ready(self) -> bool:
        """As the test says."""
        return self.ready if self.probe is None else await self.probe()

    def service(self) -> Service:
        """The service."""

        def register(server: grpc.aio.Server) -> None:
            study_service_pb2_grpc.add_StudyServiceServicer_to_server(Studies(), server)
            upload_service_pb2_grpc.add_UploadServiceServicer_to_server(self.uploads, server)

        return Service(
            names=("ris.pacs.v1.StudyService", "ris.pacs.v1.UploadService"),
            register=register,
            gatekeeper=Gatekeeper(),
            ready=self.is_ready,
            public_methods=frozenset({PUBLIC_METHOD}),
        )


@asynccontextmanager
async def build(settings: RuntimeSettings) -> AsyncIterator[Service]:
    """The service; says on stdout when it is closed."""
    # Readiness is a file, which a test makes, where there is a path for it.
    parts = Parts(settings)
    ready = os.environ.get("READY_FILE")
    if ready is not None:
        parts.probe = lambda: asyncio.to_thread(Path(ready).exists)
    yield parts.service()
    # In one piece, for workers share the file that it goes to.
    sys.stdout.write("closed\n")
    sys.stdout.flush()


# As the services do, before they import.
if __name__ in {"__main__", "__mp_main__"}:
    gc.disable()
if __name__ == "__main__":
    run("runtime_service", sys.argv[1], RuntimeSettings(), build)
