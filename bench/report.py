"""How a measurement is printed: a figure, and beside it the bar that it is held to."""


def show(what: str, figure: float, unit: str = "") -> None:
    """A figure that is held to nothing."""
    print(f"{what:<58}{figure:>9.2f} {unit}", flush=True)


def at_most(what: str, figure: float, bar: float, unit: str = "") -> None:
    """A figure that is not to be larger than the bar."""
    _judge(what, figure, f"at most {bar:g}", met=figure <= bar, unit=unit)


def at_least(what: str, figure: float, bar: float, unit: str = "") -> None:
    """A figure that is not to be smaller than the bar."""
    _judge(what, figure, f"at least {bar:g}", met=figure >= bar, unit=unit)


def _judge(what: str, figure: float, bar: str, *, met: bool, unit: str) -> None:
    print(f"{what:<58}{figure:>9.2f} {unit:<5}{bar:<15}{'met' if met else 'NOT MET'}", flush=True)
