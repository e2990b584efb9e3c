"""Who calls: bearer tokens (RFC 6750) that are JWTs (RFC 7519), checked against a JWKS (RFC 7517).

Envoy checks the same; the services check again, because a caller may reach them without passing Envoy.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import jwt

from service_runtime.errors import Reason, ServiceError
from service_runtime.keys import KeySet
from service_runtime.metadata import Metadata, value_of

ALGORITHMS = ("ES256", "RS256")
# As Envoy's jwt_authn allows, so that the two never disagree about a token.
CLOCK_SKEW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Caller:
    """The user that a call is made for. The token is kept to call the other service for the same user."""

    user_id: UUID
    token: str
    role: str = ""
    full_name: str = ""


CALLER: ContextVar[Caller] = ContextVar("caller")


class Gatekeeper(Protocol):
    """Decides who may call what."""

    async def admit(self, method: str, user_id: UUID, token: str) -> Caller:
        """The caller of `method` ("/package.Service/Method"). Raises USER_NOT_ALLOWED or ROLE_NOT_ALLOWED."""


class AnyUser:
    """The gatekeeper that lets every good token in."""

    async def admit(self, method: str, user_id: UUID, token: str) -> Caller:  # noqa: ARG002 - the protocol's
        """The caller, without a role."""
        return Caller(user_id, token)


class TokenVerifier:
    """Checks tokens: signature, issuer, audience and expiry. `jwks` is a file or an http(s) URL."""

    def __init__(self, *, issuer: str, audience: str, jwks: str) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = KeySet(jwks)

    async def check(self) -> None:
        """Raises KEYS_UNAVAILABLE where no token could be checked."""
        await self._keys.check()

    async def verify(self, metadata: Metadata) -> tuple[UUID, str]:
        """The user id and the token of a call's metadata.

        Raises TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED or KEYS_UNAVAILABLE.
        """
        token = _bearer_token(metadata)
        try:
            key = await self._key(token)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            return UUID(claims["sub"]), token
        except jwt.ExpiredSignatureError as error:
            raise ServiceError(Reason.TOKEN_EXPIRED, "The token has expired. Get a new one.") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise _invalid() from error

    async def _key(self, token: str) -> jwt.PyJWK:
        """The key that the token says it is signed with. Raises TOKEN_INVALID where there is none."""
        kid = jwt.get_unverified_header(token).get("kid")
        key = await self._keys.key(kid) if isinstance(kid, str) else None
        if key is None:
            raise _invalid()
        return key


def _bearer_token(metadata: Metadata) -> str:
    scheme, _, token = value_of(metadata, "authorization").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ServiceError(
            Reason.TOKEN_MISSING, "The call carries no bearer token. Send `Authorization: Bearer <token>`."
        )
    return token.strip()


def _invalid() -> ServiceError:
    return ServiceError(Reason.TOKEN_INVALID, "The token's form, signature, issuer, audience or subject is wrong.")
