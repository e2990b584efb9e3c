"""Envoys beside the stack's own: one that passes everything on as it is, and one like the stack's before others."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench import machine
from deploy.local.envoy import Envoy, binary
from deploy.local.ports import HOST, Ports, free_ports
from deploy.local.process import Child
from deploy.local.stack import Stack

_START_SECONDS: Final = 30
_EXTENSION: Final = "type.googleapis.com/envoy.extensions.filters"


@asynccontextmanager
async def passing_on(stack: Stack, port: int) -> AsyncIterator[int]:
    """Runs one in front of the HTTP server at `port`; its own port."""
    own = free_ports().envoy
    config = Path(stack.folder) / "passing_on.json"
    config.write_text(json.dumps(_config(own, port)))
    envoy = Child("passing_on", stack.log("passing_on"))
    try:
        command = [str(binary()), "-c", str(config), "--disable-hot-restart", "--log-level", "warning"]
        await envoy.start(command, env=os.environ)
        await envoy.wait_until(lambda: _listens(own), seconds=_START_SECONDS)
        yield own
    finally:
        await envoy.stop()


@asynccontextmanager
async def in_front(
    stack: Stack, *, tag_service: int | None = None, pacs_gateway: int | None = None
) -> AsyncIterator[tuple[int, int]]:
    """Runs one that does all that the stack's does, in front of servers on other ports, where they are named; its own
    port, and its process.
    """
    free = free_ports()
    ports = Ports(
        envoy=free.envoy,
        envoy_admin=free.envoy_admin,
        tag_service=tag_service or stack.ports.tag_service,
        pacs_gateway=pacs_gateway or stack.ports.pacs_gateway,
    )
    name = f"envoy_{free.envoy}"
    envoy = Envoy(stack.folder / name, stack.log(name), ports, settings=stack.auth_settings)
    try:
        await envoy.start()
        yield free.envoy, envoy.child.pid
    finally:
        await envoy.stop()


async def _listens(port: int) -> bool:
    return machine.listeners(port) > 0


def _config(own: int, target: int) -> dict[str, Any]:
    router = {"name": "router", "typed_config": {"@type": f"{_EXTENSION}.http.router.v3.Router"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "target", "timeout": "0s"}}
    manager = {
        "@type": f"{_EXTENSION}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "passing_on",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }
    listener = {
        "name": "own",
        "address": _address(own),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoint = {"endpoint": {"address": _address(target)}}
    cluster = {
        "name": "target",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "target", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}
