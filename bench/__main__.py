"""Runs every measurement and prints a table a measurement: python -m bench [name ...]."""

import argparse
import asyncio

from bench import early, fair, header, large, modify, uploads

MEASUREMENTS = {
    "header": header.run,
    "early": early.run,
    "fair": fair.run,
    "modify": modify.run,
    "uploads": uploads.run,
    "large": large.run,
}


def main() -> None:
    """Runs what the command line names, or everything."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MEASUREMENTS, []], help="which; all without")
    for name in parser.parse_args().names or MEASUREMENTS:
        print(f"\n== {name}", flush=True)
        asyncio.run(MEASUREMENTS[name]())


if __name__ == "__main__":
    main()
