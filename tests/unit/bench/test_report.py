"""What a run found: judged by its bars, in a table, as JSON and as a chart."""

import json

from bench import report
from bench.case import Bar, Failure, Row, at_least, at_most
from bench.rounds import Turn, in_turns, speed_ratio

AROUND = {"machine": "2 cores, made up"}


def row(ours: float, reference: float | None, bar: Bar | None) -> Row:
    """A row of some figures."""
    return Row("case", "what is <measured>", ours, "files/s", reference=reference, bar=bar, against="another")


def test_a_bar_is_for_the_ratio_or_for_the_figure() -> None:
    """A row with a reference is judged by its ratio, one without by what ours makes, one without a bar not at all."""
    assert row(50, 100, at_least(0.5)).met
    assert not row(49, 100, at_least(0.5)).met
    assert row(64, None, at_most(64)).met
    assert not row(65, None, at_most(64)).met
    assert row(1, 100, None).met is None


def test_a_ratio_that_was_measured_comes_before_one_of_medians() -> None:
    """Where a row brings the ratio of its rounds, that is what its bar is held to."""
    assert not Row("case", "what", 90, "x", reference=100, ratio=0.4, bar=at_least(0.5)).met


def test_all_that_was_found_is_told(tmp_path) -> None:
    """The table, the JSON and the chart hold each row with its verdict; what could not be measured stands with why."""
    findings = [row(70, 100, at_least(0.65)), row(10, 100, at_least(0.65)), Failure("other", "it broke")]
    shown = report.table(AROUND, findings)
    assert "70 files/s" in shown
    assert shown.count("NOT MET") == 1
    assert "other: FAILED: it broke" in shown
    path = report.write(tmp_path, AROUND, findings)
    found = json.loads(path.with_suffix(".json").read_text())
    assert [one["met"] for one in found["rows"]] == [True, False]
    assert found["not_measured"] == [{"case": "other", "why": "it broke", "skipped": False}]
    chart = path.with_suffix(".svg").read_text()
    assert chart.count("what is &lt;measured&gt;") == 2


async def test_ways_take_turns_and_are_compared_round_by_round() -> None:
    """A round that was slow for both counts as little as it says: the ratio is the median of those of the rounds."""
    order = []

    def way(name, seconds):
        left = iter(seconds)

        async def turn() -> Turn:
            order.append(name)
            return Turn(next(left))

        return turn

    turns = await in_turns({"ours": way("ours", [2, 20, 4]), "theirs": way("theirs", [1, 10, 3])}, rounds=3)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert speed_ratio(turns["ours"], turns["theirs"]) == 0.5
