"""Orthanc, the Debian package's binary, configured for REST only, with a password, rewriting nothing."""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deploy.local.ports import HOST
from deploy.local.process import Child, PartError

_START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class OrthancServer:
    """Where an Orthanc is and how to get in."""

    url: str
    username: str
    password: str = field(repr=False)


class Orthanc:
    """An Orthanc of its own, its storage in `folder`. `config` goes on top of the configuration file."""

    name = "orthanc"

    def __init__(self, folder: Path, log: Path, port: int, *, config: Mapping[str, Any]) -> None:
        self._folder = folder
        self._port = port
        self._config = config
        self.server = OrthancServer(f"http://{HOST}:{port}", "gateway", secrets.token_urlsafe(24))
        self.child = Child(self.name, log)

    @property
    def address(self) -> str:
        """For people."""
        return self.server.url

    async def start(self) -> None:
        """Writes the configuration, starts Orthanc and waits until it answers."""
        binary = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            raise PartError("Orthanc is not installed: `apt-get install orthanc`, or set ORTHANC_URL to one that runs.")
        await self.child.start([binary, str(self._write_config())], env={**os.environ, "LC_ALL": "C.UTF-8"})
        await self.child.wait_until(self._answers, seconds=_START_SECONDS)

    async def stop(self) -> None:
        """Stops Orthanc; its storage stays."""
        await self.child.stop()

    def _write_config(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = {
            "Name": "ris-dicom-gateway",
            "StorageDirectory": str(self._folder / "storage"),
            "IndexDirectory": str(self._folder / "storage"),
            "HttpPort": self._port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {self.server.username: self.server.password},
            "DicomServerEnabled": False,
            # What is stored stays as it is: the gateway tells INSTANCE_CONFLICT from "already stored".
            "OverwriteInstances": False,
            "StoreMD5ForAttachments": True,
            # With a cache, Orthanc 1.10 checks a file's MD5 in its memory, not on the disk.
            "MaximumStorageCacheSize": 0,
            "KeepAlive": True,
            "HttpThreadsCount": 50,
            "Plugins": [],
            **self._config,
        }
        path = self._folder / "orthanc.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=2))
        return path

    async def _answers(self) -> bool:
        auth = httpx.BasicAuth(self.server.username, self.server.password)
        try:
            async with httpx.AsyncClient(auth=auth, timeout=2) as client:
                return (await client.get(f"{self.server.url}/system")).is_success
        except httpx.TransportError:
            return False
