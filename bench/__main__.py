"""Measures cases and prints one table: python -m bench [case ...]. Every case without a name.

Writes what was found under bench/results, too. The exit status says whether all of it could be measured, not whether
the bars are met.
"""

import argparse
import asyncio
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from bench import report
from bench.case import Failure, Finding, Group
from bench.cases import beside, early, fair, header, large, least, ledger, modify, reading, services, studies, uploads
from bench.lab import Lab, lab

# The one that wants a stack of its own comes behind those that share one.
GROUPS: Sequence[Group] = (
    *uploads.GROUPS,
    *large.GROUPS,
    *reading.GROUPS,
    *services.GROUPS,
    *ledger.GROUPS,
    *least.GROUPS,
    *beside.GROUPS,
    *modify.GROUPS,
    *fair.GROUPS,
    *studies.GROUPS,
    *early.GROUPS,
    *header.GROUPS,
)
NAMES = tuple(case for group in GROUPS for case in group.cases)
# As much of an error as a line of the table takes.
_WHY = 300
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measures what the command line names; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, help="how many rounds, in place of what each case thinks is enough")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return asyncio.run(_until_signal(frozenset(arguments.cases or NAMES), arguments.rounds))


async def _until_signal(wanted: frozenset[str], rounds: int | None) -> int:
    """Measures until it is done, or told to stop: what was found by then is shown in any case."""
    findings: list[Finding] = []
    task = asyncio.ensure_future(_measure(wanted, rounds, findings))
    loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop() -> None:
        for number in signals:  # later ones find the stopping under way
            loop.add_signal_handler(number, lambda: None)
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        versions = await task
    except asyncio.CancelledError:
        print(report.table({}, findings))
        print("\nStopped.", file=sys.stderr)
        return 130
    around = report.surroundings(versions)
    print(report.table(around, findings))
    path = report.write(RESULTS, around, findings)
    print(f"\nWritten to {path}.json and .svg")
    return int(any(isinstance(finding, Failure) and not finding.skipped for finding in findings))


async def _measure(wanted: frozenset[str], rounds: int | None, findings: list[Finding]) -> dict[str, str]:
    """Adds to the findings; the versions of the servers."""
    async with lab(rounds=rounds) as one:
        for group in GROUPS:
            if cases := wanted & set(group.cases):
                await _measure_group(one, group, cases, findings)
        return one.versions


async def _measure_group(one: Lab, group: Group, cases: frozenset[str], findings: list[Finding]) -> None:
    began = time.monotonic()
    print(f"{', '.join(case for case in group.cases if case in cases)} ...", file=sys.stderr, flush=True)
    found = set()
    try:
        async for finding in group.measure(one, cases):
            findings.append(finding)
            found.add(finding.case)
    except Exception as error:  # noqa: BLE001 - one case that fails is not to hide the others
        traceback.print_exc()
        why = " ".join(f"{type(error).__name__}: {error}".split())[:_WHY]
        findings += [Failure(case, why) for case in sorted(cases - found)]
        await one.close()  # whatever state it is in
    print(f"    {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
