"""Every error AnyServe raises on purpose, as one tree.

AnyServeError               what went wrong, a stable code, how to mend it, the exit code
├── ScenarioError           a scenario file is not valid (all problems at once)            exit 2
├── UsageError              a command was called with words that do not fit                exit 2
├── StartError              the cluster could not start: broker, port, worker, permission  exit 3
├── TimeLimitError          something took longer than it was given                        exit 4
├── MissingDependencyError  vLLM, a GPU, a model or a broker is not there                  exit 5
├── InvalidRequestError     a handler (or its types) refuses what it was asked             exit 2
├── CallError               what a handler called ended without an answer                  exit 1
├── ObjectError             an object is gone, does not fit, or is no longer what it was   exit 1
└── ProtocolError           a message or frame that does not follow the protocol           exit 70
"""

from __future__ import annotations

from typing import ClassVar


class AnyServeError(Exception):
    """What went wrong (`message`), its stable `code`, and how to mend it (`hint`)."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint


class UsageError(AnyServeError):
    """A command was called with words that do not fit."""

    exit_code = 2


class ScenarioError(AnyServeError):
    """A scenario file is not valid; `workload` lists every problem with its place."""

    exit_code = 2


class StartError(AnyServeError):
    """The cluster could not start: broker, port, worker or permission."""

    exit_code = 3


class TimeLimitError(AnyServeError):
    """Something took longer than it was given."""

    exit_code = 4


class MissingDependencyError(AnyServeError):
    """vLLM, a GPU, a model or a broker is not there."""

    exit_code = 5


class InvalidRequestError(AnyServeError):
    """A request that can never be served as it is. Handlers raise it; clients get
    `invalid_request`. `pointer` names the part of the payload, such as `$.documents[2]`."""

    exit_code = 2

    def __init__(self, message: str, *, pointer: str = "", hint: str = "") -> None:
        super().__init__(message, code="invalid_request", hint=hint)
        self.pointer = pointer


class CallError(AnyServeError):
    """A call to another capability ended without an answer; `code` says how (`queue_full`, ...).

    `retry_after_ms` where waiting may help.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, code: str, hint: str = "", retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retry_after_ms = retry_after_ms


class ObjectError(AnyServeError):
    """An object is gone (`object_gone`), is out of reach on another host (`object_unreachable`),
    does not fit (`objects_full`), or is not what its reference says (`object_damaged`)."""

    exit_code = 1


class ProtocolError(AnyServeError):
    """A message or a frame does not follow the protocol."""
