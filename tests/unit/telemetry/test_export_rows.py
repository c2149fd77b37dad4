from __future__ import annotations

import csv
import io
import json

import msgspec
import pytest

from anyserve.telemetry.export.requests import WallClock, traced_requests
from anyserve.telemetry.export.rows import Row, rows, write_csv, write_jsonl
from anyserve.telemetry.storyteller import Leg, Storyteller

MS = 1_000_000
WALL_MS = 1_795_000_000_000


def told() -> Storyteller:
    teller = Storyteller()
    teller.request("p/1/1", [Leg("s1", scheduler_queue_ns=4 * MS, queue_ns=6 * MS)], intended_ns=MS)
    legs = [Leg("s1", routed=False, end="delegate"), Leg("h1", "decode.heavy")]
    teller.request("p/1/0", legs, client_delay_ns=5 * MS)
    teller.request("p/1/2", [Leg("s1", end="lost"), Leg("s1")], intended_ns=2 * MS)
    return teller


def made(teller: Storyteller) -> list[Row]:
    return list(rows(traced_requests(teller.envelopes), WallClock(teller.envelopes)))


def test_a_row_says_what_became_of_a_request_and_where_its_time_went() -> None:
    delegated, plain, recovered = made(told())

    assert (plain.id, plain.capability, plain.served_by, plain.hops) == ("p/1/1", "decode", "s1", 1)
    assert (plain.queue_ms, plain.prefill_ms, plain.decode_ms) == (10.0, 20.0, 100.0)
    assert plain.tpot_ms == pytest.approx(10.0)
    assert plain.e2e_ms == pytest.approx(
        plain.client_delay_ms + plain.transit_ms + plain.queue_ms + plain.engine_wait_ms
        + plain.prefill_ms + plain.decode_ms + plain.recovery_ms
    )  # fmt: skip
    assert (delegated.asked, delegated.capability) == ("decode", "decode.heavy")
    assert (delegated.hops, delegated.delegations, delegated.client_delay_ms) == (2, 1, 5.0)
    assert (recovered.hops, recovered.recoveries) == (1, 1)
    assert recovered.recovery_ms > 0


def test_rows_stand_in_order_of_the_intended_time() -> None:
    assert [row.id for row in made(told())] == ["p/1/0", "p/1/1", "p/1/2"]


def test_csv_reads_back_as_what_was_written() -> None:
    file = io.StringIO()
    assert write_csv(made(told()), file) == 3

    read = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [row["id"] for row in read] == ["p/1/0", "p/1/1", "p/1/2"]
    assert float(read[1]["queue_ms"]) == 10.0
    assert read[0]["code"] == ""


def test_a_formula_is_defused() -> None:
    row = msgspec.structs.replace(made(told())[0], stream="=HYPERLINK(1)")
    file = io.StringIO()
    write_csv([row], file)

    assert next(csv.DictReader(io.StringIO(file.getvalue())))["stream"] == "'=HYPERLINK(1)"


def test_json_lines_keep_null_apart_from_zero() -> None:
    file = io.StringIO()
    assert write_jsonl(made(told()), file) == 3

    first = json.loads(file.getvalue().splitlines()[0])
    assert first["code"] is None
    assert first["queue_ms"] == 0.0
    assert list(first) == list(Row.__struct_fields__)


def test_an_unfinished_request_has_no_end_to_end_time() -> None:
    teller = told()
    teller.envelopes = [
        one for one in teller.envelopes if "outcome" not in type(one.event).__name__.lower()
    ]

    assert {row.e2e_ms for row in made(teller)} == {None}
    assert {row.outcome for row in made(teller)} == {None}


def test_the_wall_clock_comes_from_the_youngest_start() -> None:
    """Process a started 80 ms, process b 50 ms before its first event."""
    teller = told()
    a, b = (
        msgspec.structs.replace(
            teller.envelopes[0], source=source, incarnation=WALL_MS, t=t, boot="x"
        )
        for source, t in (("a", 80 * MS), ("b", 50 * MS))
    )
    clock = WallClock([a, b])

    assert clock.at_ns("x", 50 * MS) == WALL_MS * MS
    assert clock.at_ns("unheard", 7) == 7
