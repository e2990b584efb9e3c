"""The public keys that tokens are checked with: a JWKS (RFC 7517), from a file or over HTTP, kept fresh."""

import asyncio
import json
from pathlib import Path
from time import monotonic

import jwt

from service_runtime.errors import Reason, ServiceError

_FETCH_SECONDS = 5
_LIFESPAN_SECONDS = 300
# While the set cannot be fetched, the keys known last go on being good for so long.
_STALE_SECONDS = 3600
# A token with an unknown key asks for a fetch, but not at every stranger's word.
_PAUSE_SECONDS = 10
_PAUSE_AFTER_FAILURE_SECONDS = 2


class KeySet:
    """The keys of the set at `source`, a path or an http(s) URL, by their ids."""

    def __init__(self, source: str) -> None:
        self._path = None if "://" in source else Path(source)
        self._client = None if self._path else jwt.PyJWKClient(source, cache_jwk_set=False, timeout=_FETCH_SECONDS)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._next_fetch_at = float("-inf")
        self._failed = False
        self._fetching = asyncio.Lock()

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """The key of this id, None where the set has none. Raises KEYS_UNAVAILABLE where that cannot be told."""
        if self._is_due(kid):
            async with self._fetching:
                # Another call may have fetched the set while this one waited for the lock.
                if self._is_due(kid):
                    await self._fetch()
        if monotonic() - self._fetched_at > _STALE_SECONDS or (self._failed and kid not in self._keys):
            raise _unavailable()
        return self._keys.get(kid)

    async def check(self) -> None:
        """Raises KEYS_UNAVAILABLE where there are no keys that may be used."""
        if monotonic() - self._fetched_at > _LIFESPAN_SECONDS and monotonic() >= self._next_fetch_at:
            async with self._fetching:
                await self._fetch()
        if monotonic() - self._fetched_at > _STALE_SECONDS:
            raise _unavailable()

    def _is_due(self, kid: str) -> bool:
        now = monotonic()
        is_wanted = kid not in self._keys or now - self._fetched_at > _LIFESPAN_SECONDS
        return is_wanted and now >= self._next_fetch_at

    async def _fetch(self) -> None:
        try:
            # The timeout of the client is one for each read: a server that trickles could take for ever.
            async with asyncio.timeout(_FETCH_SECONDS):
                self._keys = await asyncio.to_thread(self._read)
        except Exception:  # noqa: BLE001 - whatever is wrong with the file, the server or its answer: there are no keys
            self._failed = True
            self._next_fetch_at = monotonic() + _PAUSE_AFTER_FAILURE_SECONDS
        else:
            self._failed = False
            self._fetched_at = monotonic()
            self._next_fetch_at = self._fetched_at + _PAUSE_SECONDS

    def _read(self) -> dict[str, jwt.PyJWK]:
        """Reads the set; blocks. Keys without an id, or for another use than signing, are left out."""
        if self._path is not None:
            document = json.loads(self._path.read_bytes())
        else:
            assert self._client is not None  # noqa: S101 - there is a client where there is no path
            document = self._client.fetch_data()
        keys = jwt.PyJWKSet.from_dict(document).keys
        return {key.key_id: key for key in keys if key.key_id and key.public_key_use in {None, "sig"}}


def _unavailable() -> ServiceError:
    return ServiceError(
        Reason.KEYS_UNAVAILABLE,
        "The keys that tokens are checked with cannot be fetched. Retry.",
        retry_after=5,
    )
