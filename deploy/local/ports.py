"""TCP ports: free ones for demo and tests, the usual ones for `make up`."""

import socket
from dataclasses import dataclass

from deploy.local.process import PartError

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the parts listen."""

    envoy: int = 8000
    envoy_admin: int = 9901
    tag_service: int = 50051
    pacs_gateway: int = 50052
    orthanc: int = 8042


def free_ports() -> Ports:
    """Ports that nothing uses. They are held until all are found, so that they differ."""
    sockets = [socket.socket() for _ in range(5)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return Ports(*(each.getsockname()[1] for each in sockets))
    finally:
        for each in sockets:
            each.close()


def expect_free(name: str, port: int, setting: str) -> None:
    """Raises PartError where another process has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PartError(
                f"{name} needs port {port}, and another process has it ({error.strerror}). "
                f"Stop that process, or set {setting} to another port."
            ) from None
