import json
import logging
import subprocess
import sys

import pytest

from service_runtime.logs import describe

SECRET = "Jones^Indiana"

PROGRAM = f"""
import logging, warnings, structlog
from service_runtime.logs import configure_logs, describe
configure_logs(service="tried", level="warning")
logging.getLogger("a.library").error("cannot parse %s", "{SECRET}")
log = structlog.get_logger()
log.info("too quiet")
try:
    raise ValueError("{SECRET}\\nline")
except ValueError as error:
    log.error("defect", **describe(error))
log.warning("a\\nline", name="b\\u2028c")
"""


def _fail(cause: Exception | None, depth: int) -> None:
    """Raises an exception below so many functions."""
    if depth:
        _fail(cause, depth - 1)
    raise RuntimeError(SECRET) from cause


def _error(cause: Exception | None = None, depth: int = 0) -> Exception:
    """Such an exception."""
    with pytest.raises(RuntimeError) as caught:
        _fail(cause, depth)
    return caught.value


def test_description_tells_kinds_and_places_and_no_text() -> None:
    """An exception is described by its type, its causes' types and where it passed, and by nothing that it says."""
    described = describe(_error(KeyError(SECRET)))
    assert described["error"] == ["RuntimeError", "KeyError"]
    assert described["at"][-1].endswith(":_fail")
    assert SECRET not in repr(described)


def test_description_is_short() -> None:
    """A long chain of causes and a deep stack are cut."""
    error: Exception = ValueError()
    for _ in range(50):
        error = _error(error, depth=50)
    described = describe(error)
    assert len(described["error"]) <= 8
    assert len(described["at"]) <= 12


def test_circle_of_causes_ends() -> None:
    """Exceptions that cause each other do not hang the description."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert len(describe(first)["error"]) <= 8


def test_process_prints_json_lines_and_nothing_of_what_libraries_say() -> None:
    """Each line on stdout is one JSON object; the text of exceptions and the logs of libraries come nowhere."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["defect", "a\nline"]
    assert {line["service"] for line in lines} == {"tried"}
    assert {line["level"] for line in lines} == {"error", "warning"}
    assert "timestamp" in lines[0]
    assert done.stderr == ""
    assert SECRET not in done.stdout


@pytest.mark.parametrize("level", ["debug", "INFO", "Warning"])
def test_level_may_be_in_any_case(level: str) -> None:
    """Every level that the settings allow is one that logging knows."""
    assert isinstance(getattr(logging, level.upper()), int)
