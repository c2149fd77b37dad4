"""`anyserve control`: what a screen can do to a running cluster, for shells and scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from anyserve.cli.commands.options import AsJson, ClusterName
from anyserve.cli.completion import complete_process, complete_replica
from anyserve.cli.session import session_of

_HELP: Final = """
Change a running cluster: drain, hang or kill replicas, disturb connections, pace traffic.

\b
  anyserve control drain s1
  anyserve control hang s1.worker --for 5s
  anyserve control partition s1 --for 2s
  anyserve control rate 2

Each returns once the wish was handed over; what comes of it shows in the events (`anyserve watch
--events`, `anyserve tui`). The same faults can stand in a scenario, on their time.
"""
_Replica = Annotated[
    str, typer.Argument(metavar="REPLICA", help="Its id.", autocompletion=complete_replica)
]
_Process = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A replica's id, or ID.worker for its worker.",
        autocompletion=complete_process,
    ),
]
_Factor = Annotated[float, typer.Argument(metavar="FACTOR", min=1, max=1000, help="1 ends it.")]
_Share = Annotated[float, typer.Argument(metavar="SHARE", min=0, max=1, help="From 0 to 1.")]
_For = Annotated[
    str | None,
    typer.Option("--for", metavar="D", help="How long: 5s, 500ms. Default: until it is undone."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(name="control", rich_markup_mode=None)
    commands: tuple[Callable[..., None], ...] = (
        drain, resume, kill, hang, slow, rate, restart, partition, drop, duplicate, delay, mend,
    )  # fmt: skip
    for command in commands:
        group.command(command.__name__)(command)
    app.add_typer(
        group,
        name="control",
        help=_HELP,
        short_help="Change a running cluster: faults, drain, rate.",
        no_args_is_help=True,
    )


def drain(
    context: typer.Context,
    replica: _Replica,
    *,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Give a replica nothing new."""
    _do(context, "drain", cluster=cluster, as_json=as_json, target=replica)


def resume(
    context: typer.Context,
    target: _Process,
    *,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """End a drain or a hang."""
    _do(context, "resume", cluster=cluster, as_json=as_json, target=target)


def kill(
    context: typer.Context,
    target: _Process,
    *,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """SIGKILL a replica, or its worker."""
    _do(context, "kill", cluster=cluster, as_json=as_json, target=target)


def hang(
    context: typer.Context,
    target: _Process,
    *,
    lasts: _For = None,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Stop a process in its tracks (SIGSTOP)."""
    _do(context, "hang", cluster=cluster, as_json=as_json, target=target, lasts=lasts)


def slow(
    context: typer.Context,
    replica: _Replica,
    factor: _Factor,
    *,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Let engine steps take FACTOR times as long."""
    _do(context, "slow", cluster=cluster, as_json=as_json, target=replica, factor=factor)


def rate(
    context: typer.Context,
    factor: Annotated[
        float,
        typer.Argument(metavar="FACTOR", min=0, max=1000, help="1: as planned; 0 pauses."),
    ],
    *,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Change the pace of what is left of the traffic."""
    _do(context, "rate", cluster=cluster, as_json=as_json, factor=factor)


def restart(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="broker, scheduler, a replica's id, or as status names it."
        ),
    ],
    *,
    down: Annotated[
        str | None,
        typer.Option(metavar="D", help="Kill it, and leave it away so long: 2s."),
    ] = None,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Restart a process; with --down kill it first."""
    _do(context, "restart", cluster=cluster, as_json=as_json, target=name, down=down)


def partition(
    context: typer.Context,
    replica: _Replica,
    *,
    lasts: _For = None,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Cut a replica off from the broker."""
    _do(context, "partition", cluster=cluster, as_json=as_json, target=replica, lasts=lasts)


def drop(
    context: typer.Context,
    replica: _Replica,
    share: _Share,
    *,
    lasts: _For = None,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Lose a share of a replica's messages."""
    _do(
        context,
        "drop",
        cluster=cluster,
        as_json=as_json,
        target=replica,
        share=share,
        lasts=lasts,
    )


def duplicate(
    context: typer.Context,
    replica: _Replica,
    share: _Share,
    *,
    lasts: _For = None,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Let a share of a replica's messages come twice."""
    _do(
        context,
        "duplicate",
        cluster=cluster,
        as_json=as_json,
        target=replica,
        share=share,
        lasts=lasts,
    )


def delay(
    context: typer.Context,
    replica: _Replica,
    by: Annotated[str, typer.Argument(metavar="D", help="How late: 50ms.")],
    *,
    jitter: Annotated[
        str | None, typer.Option(metavar="D", help="Up to so much more, at random.")
    ] = None,
    lasts: _For = None,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Let a replica's messages arrive late."""
    _do(
        context,
        "delay",
        cluster=cluster,
        as_json=as_json,
        target=replica,
        by=by,
        jitter=jitter,
        lasts=lasts,
    )


def mend(
    context: typer.Context,
    replica: _Replica,
    *,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """End all that disturbs a replica's connection."""
    _do(context, "mend", cluster=cluster, as_json=as_json, target=replica)


def _do(
    context: typer.Context, verb: str, *, cluster: str | None, as_json: bool, **said: Any
) -> None:
    from anyserve.cli.steering import Wish, hand_over  # noqa: PLC0415 - loaded when asked for

    hand_over(session_of(context), Wish(verb, **said), cluster=cluster, as_json=as_json)
