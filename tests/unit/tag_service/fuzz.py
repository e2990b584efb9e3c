"""Runs the checks on random files until a time is up or one fails: python -m tests.unit.tag_service.fuzz --seconds 60.

The seed is printed, and a failure tells how to run that one case again; the file that it failed on is kept.
"""

import argparse
import itertools
import resource
import secrets
import signal
import sys
import time
import traceback
from pathlib import Path
from random import Random

from tests.unit.tag_service.checks import CHECKS

OUTPUT = Path(".run/fuzz")
# No file here has more than a few hundred kB: what takes longer, or more memory, hangs or allocates what a length says.
_CASE_SECONDS = 20
_MEMORY_BYTES = 1 << 30


class HangError(Exception):
    """A case that is not done in time."""


def main(arguments: list[str] | None = None) -> int:
    """Does what the command line says; gives the exit status, 1 where something failed."""
    options = _options(arguments)
    signal.signal(signal.SIGALRM, _hang)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    if options.replay:
        name, _, seed = options.replay.partition(":")
        return 0 if _passes(name, seed) else 1
    seed = options.seed or secrets.token_hex(4)
    print(f"seed {seed}, {options.seconds} seconds", flush=True)
    end = time.monotonic() + options.seconds
    count = 0
    for number in itertools.count():
        for name in CHECKS:
            if time.monotonic() >= end:
                print(f"{count} cases, no failure")
                return 0
            if not _passes(name, f"{seed}-{number}"):
                return 1
            count += 1
    return 0


def _passes(name: str, seed: str) -> bool:
    """Runs one case; whether nothing is wrong."""
    shown = [b""]

    def seen(data: bytes) -> None:
        shown[0] = data

    signal.alarm(_CASE_SECONDS)
    try:
        CHECKS[name](Random(seed), seen)
    except BaseException as error:  # whatever comes out is a failure
        signal.alarm(0)
        if isinstance(error, KeyboardInterrupt):
            raise
        traceback.print_exc()
        OUTPUT.mkdir(parents=True, exist_ok=True)
        path = OUTPUT / f"{name}-{seed}.dcm"
        path.write_bytes(shown[0])
        print(f"\n{name} failed; the file is {path}. Once more:", file=sys.stderr)
        print(f"  .venv/bin/python -m tests.unit.tag_service.fuzz --replay {name}:{seed}", file=sys.stderr)
        return False
    signal.alarm(0)
    return True


def _hang(*_: object) -> None:
    raise HangError


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.unit.tag_service.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long; 60")
    parser.add_argument("--seed", default="", help="of another run; a new one without")
    parser.add_argument("--replay", metavar="CHECK:SEED", default="", help="run the one case that failed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
