"""`anyserve send`."""

from __future__ import annotations

from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson, ClusterName
from anyserve.cli.session import session_of

_HELP = """
Send one request to a running cluster and show the answer as it comes.

\b
  anyserve send "What is a capability?" --capability decode
  anyserve send "Hello" -c decode --entry s1 --max-tokens 32 --no-stream
  echo "long text" | anyserve send - -c decode.heavy --json
  anyserve send --json-payload '{"query": "tea", "documents": ["a", "b"]}' -c rerank

With --json-payload a handler gets the JSON as it is, and its result is printed: one line, or one
for each item of a stream. An engine reads prompt, messages and sampling parameters from it.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("send", help=_HELP, short_help="Send one request to a running cluster.")(send)


def send(
    context: typer.Context,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The prompt; - reads it from stdin.")
    ] = None,
    *,
    json_payload: Annotated[
        str | None,
        typer.Option("--json-payload", metavar="JSON", help="Send this instead; - reads stdin."),
    ] = None,
    capability: Annotated[
        str, typer.Option("--capability", "-c", metavar="NAME", help="What is wanted.")
    ] = "decode",
    entry: Annotated[
        str, typer.Option(metavar="ID", help="Where it enters: scheduler, or a replica's id.")
    ] = "scheduler",
    max_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most tokens of the answer.")
    ] = 128,
    temperature: Annotated[
        float, typer.Option(metavar="T", min=0.0, max=2.0, help="0 takes the likeliest token.")
    ] = 0.0,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Show text as it comes.")
    ] = True,
    raw: Annotated[
        bool, typer.Option("--raw", help="Do not apply the model's chat template.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Give up after so many seconds.")
    ] = 120.0,
    cluster: ClusterName = None,
    as_json: AsJson = False,
) -> None:
    """Send one request."""
    from anyserve.cli.sending import SendOptions, run_send  # noqa: PLC0415 - loaded when asked for

    session = session_of(context)
    options = SendOptions(
        text=text,
        payload=json_payload,
        capability=capability,
        entry=entry,
        max_tokens=max_tokens,
        temperature=temperature,
        stream=stream and not as_json,
        raw=raw,
        timeout_s=timeout,
        cluster=cluster,
        as_json=as_json,
    )
    raise typer.Exit(run_send(session, options))
