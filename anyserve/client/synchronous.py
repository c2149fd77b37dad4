"""`Client`: for programs without an event loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack

from anyserve.client.asking import Ask, Options, Settings
from anyserve.client.asynchronous import translated
from anyserve.client.events import EventReader, Kind
from anyserve.client.reply import Reply, read_error, read_result, reply_of
from anyserve.errors import CallError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


class Client:
    """Calls capabilities through the HTTP door of an ingress. A context manager.

    Leaving a stream early cancels the request in the cluster, wherever it is; so does an interrupt
    (Ctrl-C) while a call waits. One client may be used by several threads.

    Args:
        url: of the ingress; None: ANYSERVE_URL, else http://127.0.0.1:8000.
        api_key: None: ANYSERVE_API_KEY, else none.
        timeout_s: deadline of each call, where it names none itself. None: no deadline.
        max_retries: so often a call is asked again where nothing had begun (`queue_full`, ...),
            within its deadline, after the time that the server names.
        transport: of httpx, for tests and unusual networks.

    Raises:
        UsageError: an argument makes no sense.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float | None = None,
        max_retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings = Settings.of(url, api_key, timeout_s, max_retries)
        self._transport = transport
        self._http: httpx.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; open calls are cancelled."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def call(
        self,
        capability: str,
        payload: Any = None,
        *,
        result: Any = Any,
        **options: Unpack[Options],
    ) -> Any:
        """Ask for a capability, and wait for the whole answer.

        A handler's result comes as `result` (a plain type, dataclass, msgspec struct or pydantic
        model); a generator's as the list of what it yielded. An engine takes a text, messages, or a
        mapping of `prompt`, `messages` or `prompt_ids` and sampling parameters; it answers
        `{"text", "tokens", "finish"}` or `{"embedding"}`.

        Args:
            capability: what is asked for.
            payload: anything that JSON can say.
            result: the type of the answer.
            options: deadline, priority and the like: see `Options`.

        Raises:
            CallError: it ended otherwise than completed; `code` and `retry_after_ms` say how.
            InvalidRequestError: the payload cannot be said in JSON.
        """
        reply = self.request(capability, payload, result=result, **options)
        return reply.result

    def request(
        self,
        capability: str,
        payload: Any = None,
        *,
        result: Any = Any,
        **options: Unpack[Options],
    ) -> Reply[Any]:
        """As `call`, with who served it and how it got there."""
        ask = Ask(self._settings, capability, payload, options)
        while True:
            try:
                headers, body = self._once(ask)
            except CallError as error:
                _wait_or_raise(ask, error)
            else:
                return reply_of(headers, read_result(capability, body, result))

    def stream(
        self,
        capability: str,
        payload: Any = None,
        *,
        item: Any = Any,
        **options: Unpack[Options],
    ) -> Stream[Any]:
        """The same piece by piece: a generator's items, or an engine's `{"text", "tokens"}`.

        Iterate over it; in `with` it is closed for sure where the loop is left early.
        """
        ask = Ask(self._settings, capability, payload, options, stream=True)
        return Stream(self._connection(), ask, item)

    def _once(self, ask: Ask) -> tuple[Mapping[str, str], bytes]:
        import httpx  # noqa: PLC0415 - `import anyserve` stays light

        try:
            answer = self._connection().post(
                ask.url,
                content=ask.body,
                headers=ask.headers(),
                timeout=httpx.Timeout(**ask.timeout()),
            )
        except httpx.HTTPError as error:
            raise translated(ask, error) from error
        if answer.status_code != httpx.codes.OK:
            raise read_error(ask.capability, answer.status_code, answer.headers, answer.content)
        return answer.headers, answer.content

    def _connection(self) -> httpx.Client:
        if self._http is None:
            import httpx  # noqa: PLC0415 - `import anyserve` stays light

            limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
            self._http = httpx.Client(transport=self._transport, limits=limits)
        return self._http


class Stream(Generic[T]):
    """An answer as it is made. Iterate once; `reply` then says who serves it."""

    def __init__(self, http: httpx.Client, ask: Ask, item: Any) -> None:
        self._http = http
        self._ask = ask
        self._item = item
        self._open = ExitStack()
        self.reply: Reply[None] | None = None
        """Known once the first item has come."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Want no more: the request is cancelled if it still runs."""
        self._open.close()

    def __iter__(self) -> Iterator[T]:
        """The items.

        Raises:
            CallError: it ended otherwise than completed, maybe after some items.
        """
        import httpx  # noqa: PLC0415 - `import anyserve` stays light

        try:
            answer = self._begin()
            self.reply = reply_of(answer.headers, None)
            reader = EventReader()
            for line in answer.iter_lines():
                for event in reader.take(line):
                    if event.kind is Kind.END:
                        return
                    if event.kind is Kind.ERROR:
                        raise read_error(self._ask.capability, None, {}, event.data)
                    yield read_result(self._ask.capability, event.data, self._item)
        except httpx.HTTPError as error:
            raise translated(self._ask, error) from error
        finally:
            self._open.close()
        message = f"{self._ask.capability}: the stream ended without its end"
        raise CallError(message, code="connection_lost")

    def _begin(self) -> httpx.Response:
        while True:
            try:
                return self._try()
            except CallError as error:
                self._open.close()
                _wait_or_raise(self._ask, error)

    def _try(self) -> httpx.Response:
        import httpx  # noqa: PLC0415 - `import anyserve` stays light

        ask = self._ask
        try:
            answer = self._open.enter_context(
                self._http.stream(
                    "POST",
                    ask.url,
                    content=ask.body,
                    headers=ask.headers(),
                    timeout=httpx.Timeout(**ask.timeout()),
                )
            )
            if answer.status_code != httpx.codes.OK:
                body = answer.read()
                raise read_error(ask.capability, answer.status_code, answer.headers, body)
        except httpx.HTTPError as error:
            raise translated(ask, error) from error
        return answer


def _wait_or_raise(ask: Ask, error: CallError) -> None:
    wait_s = ask.wait_before_retry(error)
    if wait_s is None:
        raise error
    time.sleep(wait_s)
