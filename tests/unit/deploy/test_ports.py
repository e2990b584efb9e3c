"""Free ports are free, and a port in use is told of in words that help."""

import socket
from dataclasses import astuple

import pytest

from deploy.local.ports import HOST, expect_free, free_ports
from deploy.local.process import PartError


def test_free_ports_differ_and_can_be_bound() -> None:
    """Every port of a stack is another one, and can be listened on."""
    ports = astuple(free_ports())
    assert len(set(ports)) == len(ports)
    for port in ports:
        with socket.socket() as listener:
            listener.bind((HOST, port))


@pytest.mark.parametrize("address", [HOST, "0.0.0.0"])  # noqa: S104 - the other server's choice
def test_a_port_in_use_is_named_with_what_to_do(address: str) -> None:
    """The message says which part wanted the port, which port it is, and the setting that changes it."""
    with socket.socket() as other:
        other.bind((address, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PartError, match=rf"envoy needs port {port}.*ENVOY_PORT"):
            expect_free("envoy", port, "ENVOY_PORT")


def test_a_port_that_was_just_given_up_is_free() -> None:
    """A port with connections that only linger (TIME_WAIT) does not count as in use."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as every server does
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with socket.create_connection((HOST, port)) as client:
            accepted, _ = listener.accept()
            accepted.close()
            client.recv(1)
    expect_free("orthanc", port, "ORTHANC_PORT")
