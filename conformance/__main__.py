"""Runs the tag engine over a folder of files and compares it with other readers: python -m conformance DIR [--names].

Exit status: 0 where the rules explain every difference, 1 where they do not, 2 where there is nothing to look at.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from conformance.oracle import DCMDUMP
from conformance.pool import judge_all
from conformance.report import Report


def main(arguments: list[str] | None = None) -> int:
    """Does what the command line says; gives the exit status."""
    options = _options(arguments)
    root: Path = options.folder
    sizes = {path: path.stat().st_size for path in sorted(root.rglob("*")) if path.is_file()} if root.is_dir() else {}
    most = options.max_mb * 1_000_000
    paths = [path for path, size in sizes.items() if size <= most]
    if not paths:
        print("There are no files in that folder.", file=sys.stderr)
        return 2
    processes = min(options.processes, len(paths))
    report = Report(root if options.names else None)
    began = time.monotonic()
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("files, left:"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("files", total=len(paths))
        for path, judgement in judge_all(paths, processes=processes, seconds=options.timeout):
            report.add(path, judgement)
            progress.advance(task)
    for line in report.lines(seconds=time.monotonic() - began, processes=processes):
        print(line)
    if len(paths) < len(sizes):
        print(f"\nNot looked at, larger than {options.max_mb} MB: {len(sizes) - len(paths)} files")
    if not DCMDUMP:
        print("\ndcmdump is not installed; edited files were opened with pydicom alone.")
    return 0 if report.is_good else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("folder", type=Path, help="looked through with all folders in it; any file may be in it")
    parser.add_argument("--names", action="store_true", help="tell the names of the files that differ")
    parser.add_argument("--timeout", type=float, default=120, help="seconds that a file may take; 120")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="one a core")
    parser.add_argument(
        "--max-mb", type=int, default=512, help="larger files are left out; memory is 6 times this; 512"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
