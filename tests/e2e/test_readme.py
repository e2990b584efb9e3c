"""The README's commands, run as they are written."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

from deploy.local.process import ROOT
from deploy.local.stack import Stack

BLOCKS = re.compile(r"```sh\n(.*?)```", re.DOTALL)
PREPARED = ("set -eu", 'curl() { command curl --silent --show-error --fail-with-body "$@"; }')


def commands(stack: Stack) -> str:
    """The commands that ask a running stack for something, at the stack's own ports and with its tokens."""
    blocks = [block for block in BLOCKS.findall((ROOT / "README.md").read_text()) if "localhost:" in block]
    script = "\n".join(block for block in blocks if "grpcurl" not in block)
    assert script.count("curl") > 15
    script = script.replace("localhost:8000", stack.envoy_target).replace("localhost:50051", stack.tag_service_target)
    script = re.sub(r"\$\(make -s token ROLE=(\w+)\)", lambda match: stack.token(role=match[1]), script)
    script = script.replace(".venv/", f"{ROOT}/.venv/")
    return "\n".join((*PREPARED, script))


async def test_every_example_does_what_it_says(stack: Stack, tmp_path: Path) -> None:
    """Every example that asks the stack for something succeeds, in the README's order."""
    if not (ROOT / ".venv").exists():
        pytest.fail("the examples need the .venv that `make setup` makes")
    bash = shutil.which("bash")
    assert bash is not None
    process = await asyncio.create_subprocess_exec(
        bash, "-c", commands(stack), cwd=tmp_path, env=dict(os.environ), stdout=-1, stderr=-2
    )
    output, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, output.decode()[-3000:]
    assert b'"status":"failed"' not in output
    assert (tmp_path / "out.dcm").read_bytes()[128:132] == b"DICM"
    assert (tmp_path / "thumbnail.png").read_bytes().startswith(b"\x89PNG")


def test_grpcurl_examples_name_what_there_is() -> None:
    """The examples for a tool that the tests do not have call rpcs of the contract."""
    lines = [line for block in BLOCKS.findall((ROOT / "README.md").read_text()) for line in block.splitlines()]
    called = {match[1] for line in lines if "grpcurl" in line and (match := re.search(r"(ris\.[\w.]+/\w+)", line))}
    assert called == {"ris.pacs.v1.StudyService/ListStudies"}
