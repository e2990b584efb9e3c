"""The stack: every part, started in order, watched, stopped in reverse order.

Everything, on free ports; single parts can be stopped, started again, or restarted with other settings:

>>> async with Stack(folder) as stack:
>>>     token = stack.token(role="radiologist")   # for httpx at stack.base_url, gRPC at stack.envoy_target
>>>     await stack.stop("orthanc")
>>>     await stack.start("orthanc")
>>>     await stack.restart("pacs_gateway", UNKNOWN_PATIENTS="reject")

Without the services, for tests of the adapters (stack.database_url, stack.orthanc):

>>> async with Stack(folder, parts=("postgres", "migrations", "orthanc")) as stack: ...
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from deploy.local.envoy import Envoy
from deploy.local.keys import AUDIENCE, ISSUER, DevelopmentKey, development_key, receipt_key
from deploy.local.orthanc import Orthanc, OrthancServer
from deploy.local.people import user_with_role
from deploy.local.ports import Ports, free_ports
from deploy.local.postgres import Postgres
from deploy.local.process import Child, PartError
from deploy.local.services import Migrations, Service

ALL_PARTS = ("postgres", "migrations", "orthanc", "tag_service", "pacs_gateway", "envoy")
_GATEWAY_NEEDS = ("postgres", "orthanc", "tag_service")
# What the runner's own environment may hold for the gateway and tag_service has no business to know.
_SECRETS = ("DATABASE_URL", "ORTHANC_URL", "ORTHANC_USERNAME", "ORTHANC_PASSWORD", "RECEIPT_KEY_FILE")
# On one machine nobody balances, and nobody wants to wait.
_BRISK = {"DRAIN_SECONDS": "0", "SHUTDOWN_GRACE_SECONDS": "5", "READINESS_INTERVAL_SECONDS": "0.5"}


class Part(Protocol):
    """One part of the stack."""

    name: str

    @property
    def address(self) -> str:
        """Where it is, for people."""

    @property
    def child(self) -> Child | None:
        """Its process; None for a step that ends."""

    async def start(self) -> None:
        """Starts it and waits until it is ready; raises PartError."""

    async def stop(self) -> None:
        """Stops it; a part that does not run is left alone."""


@dataclass(frozen=True, slots=True)
class Existing:
    """Servers that are there already and take the place of embedded ones."""

    database_url: str | None = None
    orthanc: OrthancServer | None = None

    @classmethod
    def from_environment(cls) -> Self:
        """What DATABASE_URL, and ORTHANC_URL with ORTHANC_USERNAME and ORTHANC_PASSWORD, point at."""
        url = os.environ.get("ORTHANC_URL")
        login = (os.environ.get("ORTHANC_USERNAME", ""), os.environ.get("ORTHANC_PASSWORD", ""))
        # An empty variable is one that is not set: that is how compose files and shells leave one out.
        return cls(os.environ.get("DATABASE_URL") or None, OrthancServer(url, *login) if url else None)


@dataclass(frozen=True, slots=True)
class Keep:
    """State that outlives the stack: the durable database, and the folder of the development keys."""

    keys: Path


@dataclass(slots=True)
class _Running:
    part: Part
    watcher: asyncio.Task[None] | None = field(default=None)


class Stack:
    """The parts of the stack, as an async context manager. Two stacks never disturb each other.

    `folder` holds all state. Without `keep` the stack is one to throw away: its database forgets on a power cut, and
    all but its logs is removed at the end. `settings` go on top of a part's own: environment variables for the services
    and Envoy, configuration entries for Orthanc. `report` gets one line for each part that is up.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ports: Ports | None = None,
        parts: Iterable[str] = ALL_PARTS,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        existing: Existing | None = None,
        keep: Keep | None = None,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.folder = folder.resolve()
        self.ports = ports or free_ports()
        self._initial = tuple(parts)
        self._existing = existing or Existing()
        self._keep = keep
        self._report = report
        self._running: dict[str, _Running] = {}
        self._died: asyncio.Queue[str] = asyncio.Queue()
        self.folder.mkdir(parents=True, exist_ok=True)
        keys = keep.keys if keep else self.folder / "keys"
        self._key: DevelopmentKey = development_key(keys)
        self._receipt_key = receipt_key(keys)
        extra = settings or {}
        self._postgres = Postgres(self.folder / "postgres", self.log("postgres"), durable=keep is not None)
        self._orthanc = Orthanc(
            self.folder / "orthanc", self.log("orthanc"), self.ports.orthanc, config=extra.get("orthanc", {})
        )
        self._parts = self._make_parts(extra)

    # --- where things are

    @property
    def base_url(self) -> str:
        """Envoy, for JSON over HTTP; no slash at the end."""
        return f"http://127.0.0.1:{self.ports.envoy}"

    @property
    def envoy_target(self) -> str:
        """Envoy, for gRPC."""
        return f"127.0.0.1:{self.ports.envoy}"

    @property
    def tag_service_target(self) -> str:
        """tag_service itself, for gRPC."""
        return f"127.0.0.1:{self.ports.tag_service}"

    @property
    def pacs_gateway_target(self) -> str:
        """pacs_gateway itself, for gRPC."""
        return f"127.0.0.1:{self.ports.pacs_gateway}"

    @property
    def database_url(self) -> str:
        """The database, embedded or existing."""
        return self._existing.database_url or self._postgres.url

    @property
    def orthanc(self) -> OrthancServer:
        """The Orthanc, embedded or existing."""
        return self._existing.orthanc or self._orthanc.server

    @property
    def auth_settings(self) -> dict[str, str]:
        """What a service must be told to take this stack's tokens."""
        return {"AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE, "AUTH_JWKS": str(self._key.jwks)}

    @property
    def gateway_settings(self) -> dict[str, str]:
        """The gateway's environment, for what runs its code beside the stack (`python -m pacs_gateway add-user`)."""
        return {
            **self.auth_settings,
            "DATABASE_URL": self.database_url,
            "ORTHANC_URL": self.orthanc.url,
            "ORTHANC_USERNAME": self.orthanc.username,
            "ORTHANC_PASSWORD": self.orthanc.password,
            "TAG_SERVICE_TARGET": self.tag_service_target,
            "RECEIPT_KEY_FILE": str(self._receipt_key),
        }

    def token(self, *, role: str = "radiologist", user_id: str | None = None, **claims: Any) -> str:
        """A token for the demo user with that role, or for the user with that id. `claims`: see DevelopmentKey.sign."""
        return self._key.sign(user_id or user_with_role(role).id, **claims)

    # --- life

    async def __aenter__(self) -> Self:
        """Starts the parts that the constructor was told of."""
        try:
            for name in self._initial:
                await self.start(name)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops everything, in reverse order."""
        await self._close()

    async def start(self, name: str) -> None:
        """Starts a part and waits until it is ready. Raises PartError. A part that runs, or exists, is left alone."""
        if name in self._running or self._exists(name):
            return
        part = self._parts[name]
        began = time.monotonic()
        # Noted before it starts: whatever happens from here on, it will be stopped.
        running = self._running[name] = _Running(part)
        try:
            await part.start()
        except PartError:
            await self.stop(name)  # what failed to start is not running: the next start is to try again
            raise
        if part.child is not None:
            running.watcher = asyncio.create_task(self._watch(part.child))
        self._report(f"{name:<13} {part.address:<40} {time.monotonic() - began:5.1f} s")

    async def stop(self, name: str) -> None:
        """Stops a part; its state stays for the next start."""
        running = self._running.pop(name, None)
        if running is None:
            return
        if running.watcher is not None:
            running.watcher.cancel()
        await running.part.stop()

    async def restart(self, name: str, **settings: str) -> None:
        """Stops and starts a part. For services and Envoy, `settings` go on top of those it had, and stay."""
        await self.stop(name)
        part = self._parts[name]
        if isinstance(part, Service | Envoy):
            part.settings |= settings
        elif settings:
            raise PartError(f"{name} takes no settings at a restart.")
        await self.start(name)

    def pid(self, name: str) -> int:
        """The process of a part that runs."""
        child = self._running[name].part.child
        if child is None:
            raise PartError(f"{name} is no process.")
        return child.pid

    async def death(self) -> str:
        """Waits until a part ends that nobody stopped; says which, with the end of its log."""
        return await self._died.get()

    # --- inside

    def _make_parts(self, extra: Mapping[str, Mapping[str, Any]]) -> dict[str, Part]:
        without_secrets = dict.fromkeys(_SECRETS, "")
        parts: list[Part] = [
            self._postgres,
            Migrations(self.log("migrations"), self.database_url),
            self._orthanc,
            Service(
                "tag_service",
                self.log("tag_service"),
                self.ports.tag_service,
                settings={**without_secrets, **_BRISK, **self.auth_settings, **extra.get("tag_service", {})},
                complete=lambda: True,
            ),
            Service(
                "pacs_gateway",
                self.log("pacs_gateway"),
                self.ports.pacs_gateway,
                settings={**_BRISK, **self.gateway_settings, **extra.get("pacs_gateway", {})},
                complete=lambda: all(name in self._running or self._exists(name) for name in _GATEWAY_NEEDS),
            ),
            Envoy(
                self.folder / "envoy",
                self.log("envoy"),
                self.ports,
                settings={**self.auth_settings, **extra.get("envoy", {})},
            ),
        ]
        return {part.name: part for part in parts}

    def _exists(self, name: str) -> bool:
        return {"postgres": self._existing.database_url, "orthanc": self._existing.orthanc}.get(name) is not None

    def log(self, name: str) -> Path:
        """The log of a part, or of a step beside the parts."""
        return self.folder / "logs" / f"{name}.log"

    async def _watch(self, child: Child) -> None:
        status = await child.ended()
        await self._died.put(f"{child.name} ended with status {status}.\n{child.tail()}")

    async def _close(self) -> None:
        # Whatever happens to one of them, the others are stopped all the same.
        async with contextlib.AsyncExitStack() as steps:
            steps.callback(self._discard)
            for name in self._running:
                steps.push_async_callback(self.stop, name)

    def _discard(self) -> None:
        self._postgres.discard()
        if self._keep is None:
            for name in ("postgres", "orthanc", "envoy", "keys"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
