"""Puts the demo's users, patients and orders into the registry, the way a RIS does: over JSON, through Envoy."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import httpx

from deploy.local.people import ORDERS, PATIENTS, USERS, user_with_role
from deploy.local.process import PartError, python, python_environment, run_to_end
from deploy.local.stack import Stack


async def seed(stack: Stack) -> None:
    """Makes the demo's people and orders known to the stack. Doing it again changes nothing. Raises PartError."""
    headers = {"Authorization": f"Bearer {stack.token(role='admin')}"}
    async with httpx.AsyncClient(base_url=stack.base_url, headers=headers, timeout=30) as client:
        if (await client.get("/api/v1/registry/users")).is_error:
            # The first user cannot come through the registry, which asks for a user who may.
            await add_user(stack, role="admin")
        await _put(client, "users", USERS)
        await _put(client, "patients", PATIENTS)
        await _put(client, "orders", ORDERS)


async def add_user(stack: Stack, *, role: str) -> None:
    """Adds the demo user with that role to the stack's database, past the registry. Raises PartError."""
    user = user_with_role(role)
    words = ["--id", user.id, "--username", user.username, "--full-name", user.full_name, "--role", user.role]
    await run_to_end(
        "pacs_gateway add-user",
        python("-m", "pacs_gateway", "add-user", *words),
        log=stack.log("add-user"),
        env=python_environment(stack.gateway_settings),
    )


async def _put(client: httpx.AsyncClient, kind: str, entries: Sequence[Any]) -> None:
    answer = await client.put(f"/api/v1/registry/{kind}", json={kind: [asdict(entry) for entry in entries]})
    if answer.is_error:
        raise PartError(f"The registry refused the demo's {kind}: HTTP {answer.status_code} {answer.text}")
