"""`anyserve calibrate`, on the model engine: all of it but vLLM."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest
from cli_world import Cli
from rich.console import Console

from anyserve.cli.calibration_plot import draw_calibration, scatter, span
from anyserve.core.engine.fit import Sample
from anyserve.core.engine.profile import EngineProfile, FitQuality
from anyserve.core.engine.step_time import StepTimeModel, StepWork
from anyserve.runtime.calibrate.messages import CalibrationError
from anyserve.runtime.calibrate.run import Calibration, Settings
from anyserve.runtime.engines.base import EngineKind
from anyserve.runtime.engines.detect import Detection, VllmBuild
from anyserve.workload.profiles import load_profile

TRY = ("calibrate", "--model", "minilm", "--engine", "model", "--max-num-seqs", "2")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.timeout(120)
def test_an_engine_is_measured_and_its_profile_can_be_used(cli: Cli, temporary: Path) -> None:
    answer = cli(*TRY, "--seconds", "5", "--out", "mine.json", "--json")

    assert answer.code == 0, answer.err
    found = answer.json
    profile = load_profile(str(cli.cwd / "mine.json"))
    assert found["path"] == str(cli.cwd / "mine.json")
    assert found["profile"]["step_time"]["base_ps"] == profile.step_time.base_ps
    assert profile.embeds
    assert profile.quality is not None
    assert profile.quality.held_out_steps > 0
    assert profile.ranges.prefill_tokens is not None
    assert profile.machine["processor"]
    assert "calibrate 100% done" in answer.err
    assert list(temporary.iterdir()) == []


def test_the_log_of_an_engine_that_could_not_be_measured_is_kept_and_named(
    cli: Cli, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(settings: Settings, _show: object) -> NoReturn:
        settings.log.write_text("no such model\n")
        raise CalibrationError("The engine ended.", code="calibration_engine")

    monkeypatch.setattr("anyserve.cli.calibrating.calibrate", breaks)

    answer = cli(*TRY)

    (log,) = temporary.iterdir()
    assert log.read_text() == "no such model\n"
    assert answer.code != 0
    assert str(log) in answer.err.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--option", "block_size"), "is not NAME=VALUE"),
        (("--engine", "gpu"), "no engine 'gpu'"),
        (("--contention", "1"), "--contention"),
    ],
)
def test_words_that_do_not_fit_are_refused(cli: Cli, words: tuple[str, ...], said: str) -> None:
    answer = cli(*TRY, *words)

    assert answer.code == 2
    assert said in answer.err


def test_the_drawing_puts_errors_at_their_height() -> None:
    model = StepTimeModel(base_ps=1_000_000)
    rows = scatter(
        model,
        [
            Sample(StepWork(), 1_000_000),
            Sample(StepWork(), 2_000_000),  # predicted at half: beyond the lower edge
            Sample(StepWork(), 870_000),
        ],
    )

    marked = [number for number, row in enumerate(rows[:12]) if set(row) & set("·•●")]
    assert marked == [1, 6, 11]
    assert rows[11].rstrip().endswith(("·", "•", "●"))


def test_the_drawing_knows_what_new_shapes_cost() -> None:
    """Else it would show errors that the line above it does not have."""
    profile = EngineProfile(
        name="mine",
        step_time=StepTimeModel(base_ps=1_000_000),
        context=512,
        kv_bytes_per_token=0,
        block_size=16,
        source="measured",
        shape_us=0.01,
        quality=FitQuality(
            form="base", steps=2, held_out_steps=2, r2=1.0, median_error=0, p90_error=0, mean_bias=0
        ),
    )
    exact = [
        Sample(StepWork(prefill_tokens=100), 1_000_000, held_out=True),
        Sample(StepWork(prefill_tokens=100), 2_000_000, held_out=True, new_shape=True),
    ]
    drawn = io.StringIO()

    draw_calibration(Console(file=drawn, width=120), Calibration(profile, exact, 1.0))

    marked = [row for row in drawn.getvalue().splitlines() if "│" in row and set(row) & set("·•●")]
    assert len(marked) == 1


@pytest.mark.parametrize(
    ("time_ps", "said"),
    [(45_600_000_000, "45.6 ms"), (2_160_000_000, "2.16 ms"), (999, "999 ps"), (7e12, "7 s")],
)
def test_durations_are_told_in_the_unit_that_suits_them(time_ps: float, said: str) -> None:
    assert span(time_ps) == said


def test_without_vllm_it_is_said_at_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Detection(EngineKind.MODEL, VllmBuild.NONE, "", "vLLM is not installed: and so on")
    monkeypatch.setattr("anyserve.cli.calibrating.detect", lambda: nothing)

    answer = cli("calibrate", "--model", "minilm")

    assert answer.code == 5
    assert "vLLM is not installed." in answer.err
    assert "--engine model" in answer.err
