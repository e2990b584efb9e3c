"""Who calls: bearer tokens (RFC 6750) that are JWTs (RFC 7519), checked against a JWKS (RFC 7517).

Envoy checks the same; the services check again, because a caller may reach them without passing Envoy.
"""

from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass
from time import time
from typing import Any, Protocol
from uuid import UUID

import jwt

from service_runtime.errors import Reason, ServiceError
from service_runtime.keys import KeySet
from service_runtime.metadata import Metadata, value_of

ALGORITHMS = ("ES256", "RS256")
# As Envoy's jwt_authn allows, so that the two never disagree about a token.
CLOCK_SKEW_SECONDS = 60
# Checking a signature takes a quarter of a small call, and the same token comes with many calls. Only those that were
# found good are remembered, so strangers cannot push them out.
_REMEMBERED_TOKENS = 1024
_REMEMBERED_CHARACTERS = 4096


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


@dataclass(frozen=True, slots=True)
class _GoodToken:
    """What was found of a token, and the key that it was found with."""

    user_id: UUID
    expires_at: int
    kid: str
    key: jwt.PyJWK


class TokenVerifier:
    """Checks tokens: signature, issuer, audience and expiry. `jwks` is a file or an http(s) URL.

    Good tokens are remembered as they are, to the letter, until they expire or their key is read anew, whichever comes
    first: a key that has left the set is no longer good for them either.
    """

    def __init__(self, *, issuer: str, audience: str, jwks: str) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = KeySet(jwks)
        self._good: OrderedDict[str, _GoodToken] = OrderedDict()

    async def check(self) -> None:
        """Raises KEYS_UNAVAILABLE where no token could be checked."""
        await self._keys.check()

    async def verify(self, metadata: Metadata) -> tuple[UUID, str]:
        """The user id and the token of a call's metadata.

        Raises TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED or KEYS_UNAVAILABLE.
        """
        token = _bearer_token(metadata)
        good = await self._remembered(token) or await self._checked(token)
        self._remember(token, good)
        return good.user_id, token

    async def _remembered(self, token: str) -> _GoodToken | None:
        """What is known of a token that is as good as when it was checked."""
        good = self._good.get(token)
        if good is None:
            return None
        # A set that was read again has other key objects, though it may hold the same keys.
        if await self._keys.key(good.kid) is good.key and time() - CLOCK_SKEW_SECONDS < good.expires_at:
            return good
        return None

    def _remember(self, token: str, good: _GoodToken) -> None:
        """Remembers the token as the last one used, in place of the one that was not used for the longest time."""
        if len(token) > _REMEMBERED_CHARACTERS:
            return
        self._good[token] = good
        self._good.move_to_end(token)
        if len(self._good) > _REMEMBERED_TOKENS:
            self._good.popitem(last=False)

    async def _checked(self, token: str) -> _GoodToken:
        """The token's claims that matter, all of it checked. Raises TOKEN_INVALID, TOKEN_EXPIRED, KEYS_UNAVAILABLE."""
        try:
            kid, key = await self._key(token)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            return _GoodToken(UUID(claims["sub"]), int(claims["exp"]), kid, key)
        except jwt.ExpiredSignatureError as error:
            raise ServiceError(Reason.TOKEN_EXPIRED, "The token has expired. Get a new one.") from error
        except (jwt.PyJWTError, ValueError) as error:
            raise _invalid() from error

    async def _key(self, token: str) -> tuple[str, jwt.PyJWK]:
        """The key that the token says it is signed with, and its id. Raises TOKEN_INVALID where there is none."""
        kid = jwt.get_unverified_header(token).get("kid")
        if not isinstance(kid, str) or (key := await self._keys.key(kid)) is None:
            raise _invalid()
        return kid, key


def _bearer_token(metadata: Metadata) -> str:
    scheme, _, token = value_of(metadata, "authorization").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ServiceError(
            Reason.TOKEN_MISSING, "The call carries no bearer token. Send `Authorization: Bearer <token>`."
        )
    return token.strip()


def _invalid() -> ServiceError:
    return ServiceError(Reason.TOKEN_INVALID, "The token's form, signature, issuer, audience or subject is wrong.")
