"""`anyserve calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anyserve.cli.commands.options import AsJson
from anyserve.cli.completion import complete_model
from anyserve.cli.session import session_of

_HELP = """
Measure how long the steps of a real engine take here, and write that down as a profile.

\b
  anyserve calibrate --model smollm2-135m
  anyserve calibrate --model smollm2-135m --max-num-seqs 32 --out mine.json
  anyserve calibrate --model minilm --contention 2

Scenarios name it as engine.profile; `anyserve sim` and the model engine then take those times.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "calibrate", help=_HELP, short_help="Measure an engine, for the simulator and the model."
    )(calibrate)


def calibrate(
    context: typer.Context,
    *,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="A built-in name, a folder or a hub id.",
            autocompletion=complete_model,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The profile (default: MODEL.profile.json)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What it is called (default: the model).")
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=5, help="Measure for so long.")
    ] = 100.0,
    max_num_seqs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Sequences computed at once.")
    ] = 16,
    max_num_batched_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Tokens per step (default: 256 on CPU, else vLLM's)."
        ),
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(metavar="N", min=16, help="Tokens of context (default 2048).")
    ] = None,
    kv_cache_gib: Annotated[
        float, typer.Option(metavar="GIB", help="Size of the KV cache on CPU.")
    ] = 1.0,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Of a CPU engine.")] = 1,
    gpus: Annotated[float, typer.Option(metavar="N", min=0, help="GPUs, or a share of one.")] = 0.0,
    dtype: Annotated[str, typer.Option(help="Number format of the weights.")] = "auto",
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="NAME=VALUE", help="A further argument of vLLM; repeatable."
        ),
    ] = None,
    contention: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=2, help="Also beside others: N engines in all; repeatable."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="vllm; or model, to try the command where vLLM is not installed.")
    ] = "vllm",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the random batches.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure an engine."""
    from anyserve.cli.calibrating import Request, run_calibrate  # noqa: PLC0415 - when asked for

    request = Request(
        model=model,
        out=out,
        name=name,
        seconds=seconds,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_model_len=max_model_len,
        kv_cache_gib=kv_cache_gib,
        threads=threads,
        gpus=gpus,
        dtype=dtype,
        options=options or [],
        engine=engine,
        contention=tuple(sorted(set(contention or ()))),
        seed=seed,
        as_json=as_json,
    )
    raise typer.Exit(run_calibrate(session_of(context), request))
