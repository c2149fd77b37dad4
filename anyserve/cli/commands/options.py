"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyserve.cli.completion import complete_cluster, complete_run, complete_scenario

AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]
RunsDir = Annotated[
    Path | None,
    typer.Option("--runs", metavar="DIR", help="Where runs lie (setting: runs)."),
]
ClusterName = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Which cluster (setting: cluster; default: the newest).",
        autocompletion=complete_cluster,
    ),
]
ScenarioFile = Annotated[
    Path,
    typer.Argument(metavar="SCENARIO", help="A scenario file.", autocompletion=complete_scenario),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change the scenario; repeatable."),
]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run's id, its beginning, a path, or latest.",
        autocompletion=complete_run,
    ),
]
