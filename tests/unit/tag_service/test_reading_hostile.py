"""R8: Files that are made to exhaust whoever reads them are refused, or read, for little CPU and memory."""

import json
import subprocess
import sys

import pytest

from tag_service.domain.standard.limits import MIB
from tests.unit.tag_service.hostile import FILES, READERS

ALLOWED_BYTES = 64 * MIB
# Most take milliseconds. What looks at each of a million things takes a microsecond or less for an element, two for an
# item, three for a sequence, and whoever edits reads them twice; and machines differ, by more when they are loaded.
ALLOWED_SECONDS = 10.0
ALLOWED_SECONDS_FOR_A_MILLION = 60.0
# All is measured before the first test: a minute and more of CPU.
pytestmark = pytest.mark.timeout(600)
EXPECTED = {
    "UN in UN in UN": "",
    "nearly a million elements": "",
    "text of 4 GiB": "TRUNCATED_FILE",
    "bulk data of 4 GiB": "TRUNCATED_FILE",
    "sequence of 4 GiB": "TRUNCATED_FILE",
    "item of 4 GiB": "MALFORMED_DICOM",
    "fragment of 4 GiB": "TRUNCATED_FILE",
}


@pytest.fixture(scope="module")
def measured():
    """What each file takes each reader."""
    command = [sys.executable, "-m", "tests.unit.tag_service.hostile"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in run.stdout.splitlines()]
    return {(entry["file"], entry["reader"]): entry for entry in found}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("file", FILES)
def test_a_hostile_file_costs_little(measured, file, reader):
    """R8: Each is refused for the right reason, and within the CPU and memory that it may take."""
    entry = measured[file, reader]
    assert entry["reason"] == EXPECTED.get(file, "STRUCTURE_LIMIT")
    assert entry["bytes"] < ALLOWED_BYTES
    assert entry["seconds"] < (ALLOWED_SECONDS_FOR_A_MILLION if "million" in file else ALLOWED_SECONDS)
