from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyserve.runtime.logs import (
    ErrorReport,
    RedactingFormatter,
    Redactor,
    error_line,
    find_error,
    read_tail,
    set_up_logging,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("login with hunter22 failed", "login with ******** failed"),
        ("mqtts://me:other@host:1", "mqtts://me:********@host:1"),
        ("mqtt://:x@host", "mqtt://:********@host"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("me@example.org", "me@example.org"),
    ],
)
def test_secrets_are_hidden_and_the_rest_stays(text: str, shown: str) -> None:
    assert Redactor(["hunter22"])(text) == shown


def test_secret_within_a_secret_is_hidden_whole() -> None:
    assert Redactor(["abcd", "abcdefgh"])("x abcdefgh y") == "x ******** y"


def test_too_short_secrets_would_destroy_the_text() -> None:
    assert Redactor(["", "a"])("a cat") == "a cat"


def test_line_has_utc_time_and_no_secret() -> None:
    record = logging.LogRecord("n", logging.INFO, "p", 1, "as %s", ("hunter22",), None)
    record.created, record.msecs = 0.0, 7.0
    line = RedactingFormatter(Redactor(["hunter22"])).format(record)
    assert line == "1970-01-01T00:00:00.007Z INFO    n: as ********"


@pytest.fixture
def root_logger_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("root_logger_restored")
@pytest.mark.parametrize(
    ("environ", "lines"),
    [({}, 1), ({"ANYSERVE_LOG_LEVEL": "debug"}, 2), ({"ANYSERVE_LOG_LEVEL": "loud"}, 1)],
)
def test_level_comes_from_the_environment(
    tmp_path: Path, environ: dict[str, str], lines: int
) -> None:
    path = tmp_path / "logs" / "x.log"
    set_up_logging(path, Redactor(), environ)
    logging.getLogger("a").debug("d")
    logging.getLogger("a").info("i")
    assert len(path.read_text().splitlines()) == lines


def test_reported_error_is_found_among_other_lines() -> None:
    report = ErrorReport(code="c", message="two\nlines", hint="h", exit_code=5)
    log = b"a\n" + error_line(report) + b'{"error": 1}\nlater\n'
    assert find_error(log.decode().splitlines()) == report
    assert find_error(["nothing", "here"]) is None


def test_tail_is_of_this_life_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("old\n" + "\n".join(f"l{n}" for n in range(50)) + "\n\n")
    assert read_tail(path, start=4, lines=2) == ["l48", "l49"]
    assert "old" not in read_tail(path, start=4, lines=100)
    assert read_tail(tmp_path / "none.log") == []
