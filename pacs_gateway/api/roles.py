"""Which role may call which rpc: one table, and the gatekeeper that holds to it."""

from collections.abc import Collection
from typing import Final
from uuid import UUID

from pacs_gateway.domain.registry import Role
from pacs_gateway.use_cases.registry import Registry
from service_runtime.errors import Reason, ServiceError
from service_runtime.identity import Caller

EVERY_ROLE: Final = frozenset(Role)
_UPLOADERS: Final = frozenset({Role.ADMIN, Role.RADIOLOGIST, Role.TECHNOLOGIST, Role.SERVICE})
_READING: Final = frozenset({Role.ADMIN, Role.RADIOLOGIST})
_KEEPERS: Final = frozenset({Role.ADMIN, Role.SERVICE})

# The rpcs that ask for no token are not here.
ROLES: Final = {
    "/ris.pacs.v1.UploadService/Upload": _UPLOADERS,
    "/ris.pacs.v1.UploadService/UploadMultiple": _UPLOADERS,
    "/ris.pacs.v1.UploadService/Preflight": _UPLOADERS,
    "/ris.pacs.v1.UploadService/CreateSession": _UPLOADERS,
    "/ris.pacs.v1.UploadService/GetSession": _UPLOADERS,
    "/ris.pacs.v1.UploadService/CompleteSession": _UPLOADERS,
    "/ris.pacs.v1.UploadService/ListUploadLogs": _UPLOADERS,
    "/ris.pacs.v1.UploadService/GetUploadLog": _UPLOADERS,
    "/ris.pacs.v1.StudyService/ListStudies": EVERY_ROLE,
    "/ris.pacs.v1.StudyService/GetStudy": EVERY_ROLE,
    "/ris.pacs.v1.StudyService/ListPatientStudies": EVERY_ROLE,
    "/ris.pacs.v1.StudyService/GetStudyByAccession": EVERY_ROLE,
    "/ris.pacs.v1.StudyService/DeleteStudy": _READING,
    "/ris.pacs.v1.StudyService/GetThumbnail": EVERY_ROLE,
    "/ris.pacs.v1.QuarantineService/ListQuarantinedFiles": _READING,
    "/ris.pacs.v1.QuarantineService/GetQuarantinedFile": _READING,
    "/ris.pacs.v1.QuarantineService/RetryQuarantinedFile": _READING,
    "/ris.pacs.v1.QuarantineService/DiscardQuarantinedFile": _READING,
    "/ris.pacs.v1.RegistryService/UpsertPatients": _KEEPERS,
    "/ris.pacs.v1.RegistryService/GetPatient": EVERY_ROLE,
    "/ris.pacs.v1.RegistryService/ListPatients": EVERY_ROLE,
    "/ris.pacs.v1.RegistryService/UpsertOrders": _KEEPERS,
    "/ris.pacs.v1.RegistryService/GetOrder": EVERY_ROLE,
    "/ris.pacs.v1.RegistryService/ListOrders": EVERY_ROLE,
    "/ris.pacs.v1.RegistryService/UpsertUsers": _KEEPERS,
    "/ris.pacs.v1.RegistryService/GetUser": _KEEPERS,
    "/ris.pacs.v1.RegistryService/ListUsers": _KEEPERS,
}
# Who may have an upload take the place of what the PACS holds.
OVERWRITERS: Final = _READING
PUBLIC: Final = frozenset({"/ris.pacs.v1.HealthService/CheckHealth", "/ris.pacs.v1.UploadService/GetReceiptKeys"})


class UserGatekeeper:
    """Lets active users of the registry call what their role may."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def admit(self, method: str, user_id: UUID, token: str) -> Caller:
        """The caller. The database is asked at every call: a user who was switched off is out at once.

        Raises USER_NOT_ALLOWED, ROLE_NOT_ALLOWED, DATABASE_UNAVAILABLE.
        """
        user = await self._registry.find_user(user_id)
        if user is None or not user.is_active:
            raise ServiceError(Reason.USER_NOT_ALLOWED, "The token's subject is not an active user.")
        expect_role(user.role, ROLES.get(method, frozenset()), "call this")
        return Caller(user_id, token, user.role, user.full_name)


def expect_role(role: str, allowed: Collection[str], what: str) -> None:
    """Raises ROLE_NOT_ALLOWED."""
    if role not in allowed:
        raise ServiceError(Reason.ROLE_NOT_ALLOWED, f"The role {role} may not {what}.", metadata={"role": role})
