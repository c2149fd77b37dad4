"""`anyserve broker | scheduler | replica | ingress | worker`: single processes of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyserve.cli.commands.options import Overrides, ScenarioFile
from anyserve.cli.completion import complete_scenario
from anyserve.cli.session import session_of

_Broker = Annotated[
    str | None,
    typer.Option(
        "--broker",
        metavar="URL",
        help="mqtt://host:1883; a password comes by ANYSERVE_BROKER_PASSWORD or a file.",
    ),
]
_Credentials = Annotated[
    Path | None,
    typer.Option("--credentials", metavar="FILE", help="A credentials file (anyserve broker)."),
]
_Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME", help="Name of the cluster, if not the scenario's."),
]
_BROKER = """
Run a cluster's broker alone, until Ctrl-C. Its credentials go to a file that only you can read.

\b
  anyserve broker --cluster mixed --port 1883 --write-credentials mixed.json
  anyserve scheduler scenarios/mixed.yaml --credentials mixed.json
  anyserve replica scenarios/mixed.yaml --id s1 --credentials mixed.json
"""
_SCHEDULER = "Run a scenario's scheduler alone; it joins a cluster by its broker."
_REPLICA = """
Run one replica of a scenario alone; it joins a cluster by its broker.

\b
  ANYSERVE_BROKER_USER=replica ANYSERVE_BROKER_PASSWORD=... \\
    anyserve replica scenarios/mixed.yaml --id s1 --broker mqtt://10.0.0.5:1883
  anyserve replica --app reranker:app --reload

The last one joins the newest cluster of this machine (or the one that --broker, --credentials or
--cluster name) with a replica that serves every capability of the app.
"""
_INGRESS = """
Open a front door (HTTP, gRPC or both) of a cluster until Ctrl-C: of the newest that runs here, or
of one that a broker or a credentials file names. Prints its addresses.

\b
  anyserve ingress                                    HTTP on port 8000, for the newest cluster here
  anyserve ingress --cluster mixed --http 0 --grpc 0  on free ports
  anyserve ingress scenarios/mixed.yaml --credentials mixed.json
"""
_WORKER = """
Start a replica's engine alone, run one request on it, and report: the quickest check that an
engine works on this machine.

\b
  anyserve worker scenarios/mixed.yaml --id s1
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("broker", help=_BROKER, short_help="Run a broker alone.")(broker)
    app.command("scheduler", help=_SCHEDULER, short_help="Run a scheduler alone.")(scheduler)
    app.command("replica", help=_REPLICA, short_help="Run a replica alone.")(replica)
    app.command("ingress", help=_INGRESS, short_help="Open a front door alone.")(ingress)
    app.command("worker", help=_WORKER, short_help="Try a replica's engine alone.")(worker)


def broker(
    context: typer.Context,
    *,
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="NAME", help="Name of the cluster.")
    ] = "default",
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="An address of this machine; for others to join, its own."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 1883,
    write_credentials: Annotated[
        Path | None,
        typer.Option(
            "--write-credentials", metavar="FILE", help="Where the credentials go (0600)."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain for TLS, PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate's key, PEM.")
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What clients verify it with, if not the system's."),
    ] = None,
) -> None:
    """Run a broker alone."""
    from anyserve.cli.nodes.broker import BrokerOptions, run_broker  # noqa: PLC0415

    options = BrokerOptions(cluster, host, port, write_credentials, tls_cert, tls_key, tls_ca)
    raise typer.Exit(run_broker(session_of(context), options))


def scheduler(
    context: typer.Context,
    scenario: ScenarioFile,
    *,
    broker: _Broker = None,
    credentials: _Credentials = None,
    cluster: _Cluster = None,
    overrides: Overrides = None,
) -> None:
    """Run a scheduler alone."""
    from anyserve.cli.nodes.single import NodeOptions, run_scheduler  # noqa: PLC0415

    options = NodeOptions(scenario, broker, credentials, cluster, tuple(overrides or ()))
    raise typer.Exit(run_scheduler(session_of(context), options))


def replica(
    context: typer.Context,
    scenario: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCENARIO", help="A scenario file.", autocompletion=complete_scenario
        ),
    ] = None,
    *,
    replica_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Which replica; of an app alone, its new id."),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option("--app", metavar="MODULE:APP", help="Handlers of your own (handlers.md)."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=4096, help="Requests at once, if not as declared."),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start the worker anew when the app's code changes.")
    ] = False,
    broker: _Broker = None,
    credentials: _Credentials = None,
    cluster: _Cluster = None,
    overrides: Overrides = None,
) -> None:
    """Run a replica alone."""
    from anyserve.cli.nodes.app_replica import AppOptions  # noqa: PLC0415
    from anyserve.cli.nodes.single import NodeOptions, run_replica  # noqa: PLC0415

    options = NodeOptions(scenario, broker, credentials, cluster, tuple(overrides or ()))
    wanted = AppOptions(name=app, replica_id=replica_id, concurrency=concurrency, reload=reload)
    raise typer.Exit(run_replica(session_of(context), wanted, options))


def ingress(
    context: typer.Context,
    scenario: Annotated[
        Path | None,
        typer.Argument(
            metavar="SCENARIO", help="A scenario file.", autocompletion=complete_scenario
        ),
    ] = None,
    *,
    http: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="HTTP port; 0 takes a free one."),
    ] = None,
    grpc: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="gRPC port; 0 takes a free one."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Where to listen, if not as the scenario says."),
    ] = None,
    broker: _Broker = None,
    credentials: _Credentials = None,
    cluster: _Cluster = None,
    overrides: Overrides = None,
) -> None:
    """Open a front door alone."""
    from anyserve.cli.nodes.ingress import DoorOptions, run_ingress  # noqa: PLC0415
    from anyserve.cli.nodes.single import NodeOptions  # noqa: PLC0415

    options = NodeOptions(scenario, broker, credentials, cluster, tuple(overrides or ()))
    doors = DoorOptions(host=host, http=http, grpc=grpc)
    raise typer.Exit(run_ingress(session_of(context), options, doors))


def worker(
    context: typer.Context,
    scenario: ScenarioFile,
    *,
    replica_id: Annotated[str, typer.Option("--id", metavar="ID", help="Which replica's.")],
    overrides: Overrides = None,
) -> None:
    """Try a replica's engine alone."""
    from anyserve.cli.nodes.worker import run_worker  # noqa: PLC0415 - loaded when asked for

    raise typer.Exit(run_worker(session_of(context), scenario, replica_id, tuple(overrides or ())))
