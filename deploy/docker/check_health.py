"""Asks the service in this container how it is (grpc.health.v1): python check_health.py PORT.

The exit status is 0 when the service says SERVING, and 1 when it says anything else or nothing.
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 4
# The service is in this container: no proxy of the environment lies between.
_OPTIONS = (("grpc.enable_http_proxy", 0),)


def main(port: str) -> int:
    """The exit status; prints what was answered, for `docker inspect` keeps it."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError as error:
            print(error.code().name)  # noqa: T201 - a command's output
            return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))  # noqa: T201
    return int(answer.status != health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
