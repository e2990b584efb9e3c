"""python -m pacs_gateway: serves. python -m pacs_gateway add-user ...: adds the first user, or any."""

import service_runtime.quick_start  # noqa: F401, I001 - first

import argparse
import asyncio
import sys
from uuid import UUID

from pacs_gateway.bootstrap import gateway, registry_of
from pacs_gateway.domain.registry import Role, UserEntry
from pacs_gateway.settings import DatabaseSettings, GatewaySettings
from service_runtime.errors import ServiceError
from service_runtime.server import run
from service_runtime.settings import from_environment


def main() -> int:
    """Runs what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pacs_gateway", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    add = commands.add_parser("add-user", help="add or change a user, past the registry, which asks for one")
    add.add_argument("--id", type=UUID, required=True, help="the subject (sub) of the user's tokens")
    add.add_argument("--username", required=True)
    add.add_argument("--full-name", required=True)
    add.add_argument("--role", type=Role, choices=list(Role), required=True)
    arguments = parser.parse_args()
    if arguments.command is None:
        settings = from_environment(GatewaySettings)
        run("pacs_gateway", settings.pacs_gateway_listen, settings, gateway)
        return 0
    user = UserEntry(arguments.username, arguments.full_name, arguments.role, is_active=True, id=arguments.id)
    try:
        asyncio.run(add_user(from_environment(DatabaseSettings), user))
    except ServiceError as error:
        print(error.message, file=sys.stderr)  # noqa: T201 - a command's way to say what went wrong
        return 1
    return 0


async def add_user(settings: DatabaseSettings, user: UserEntry) -> None:
    """Adds or changes the user in the database."""
    async with registry_of(settings) as registry:
        await registry.upsert_users([user])


if __name__ == "__main__":
    sys.exit(main())
