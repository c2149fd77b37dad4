from __future__ import annotations

import math

import pytest

from anyserve.runtime.engines.base import (
    Delta,
    Engine,
    EngineConfig,
    EngineKind,
    EngineRequest,
    EngineRequestError,
    FinishReason,
    Guide,
    Sampling,
    Task,
)
from anyserve.runtime.engines.create import create_engine
from anyserve.runtime.engines.echo import EchoEngine
from anyserve.runtime.engines.model import ModelEngine


def started(kind: EngineKind, **settings: object) -> Engine:
    config = EngineConfig(kind=kind, max_model_len=32, **settings)  # type: ignore[arg-type]
    engine: Engine = (
        EchoEngine(config, lambda _: None)
        if kind is EngineKind.ECHO
        else ModelEngine(config, lambda _: None)
    )
    engine.start(lambda *_: None)
    return engine


def drained(engine: Engine) -> list[Delta]:
    deltas: list[Delta] = []
    while engine.has_work:
        deltas += engine.step().deltas
    return deltas


def request(**settings: object) -> EngineRequest:
    sampling = settings.pop("sampling", Sampling(max_tokens=5))
    return EngineRequest(
        key="r",
        prompt_ids=[11, 12, 13],
        sampling=sampling,  # type: ignore[arg-type]
        **settings,  # type: ignore[arg-type]
    )


without_model = pytest.mark.parametrize("kind", [EngineKind.ECHO, EngineKind.MODEL])


@without_model
def test_the_prompt_comes_back_token_by_token(kind: EngineKind) -> None:
    engine = started(kind)
    engine.submit(request())

    deltas = drained(engine)

    assert [delta.token_ids for delta in deltas] == [[11], [12], [13], [11], [12]]
    assert [delta.first_index for delta in deltas] == [0, 1, 2, 3, 4]
    assert [delta.finish for delta in deltas] == [None] * 4 + [FinishReason.LENGTH]
    assert [delta.done for delta in deltas] == [False] * 4 + [True]
    assert deltas[0].scheduled_ns > 0
    assert deltas[1].scheduled_ns == 0


@without_model
def test_a_resumed_stream_goes_on_where_it_was(kind: EngineKind) -> None:
    whole, resumed = started(kind), started(kind)
    whole.submit(request())
    resumed.submit(request(resume_ids=[11, 12]))

    tail = drained(resumed)

    assert [d.token_ids for d in tail] == [d.token_ids for d in drained(whole)[2:]]
    assert tail[0].first_index == 2


@without_model
def test_a_resumed_stream_with_nothing_left_ends_at_once(kind: EngineKind) -> None:
    engine = started(kind)
    engine.submit(request(resume_ids=[11, 12, 13, 11, 12]))

    (delta,) = drained(engine)

    assert (delta.token_ids, delta.first_index) == ([], 5)
    assert (delta.finish, delta.done) == (FinishReason.LENGTH, True)


@without_model
def test_each_choice_has_its_own_stream(kind: EngineKind) -> None:
    engine = started(kind)
    engine.submit(request(sampling=Sampling(max_tokens=2, n=2)))

    deltas = drained(engine)

    streams = {
        choice: [t for d in deltas if d.choice == choice for t in d.token_ids] for choice in (0, 1)
    }
    assert streams == {0: [11, 12], 1: [12, 13]}
    assert [delta.done for delta in deltas] == [False, False, False, True]


@without_model
def test_the_context_bounds_what_is_generated(kind: EngineKind) -> None:
    engine = started(kind)
    engine.submit(request(sampling=Sampling(max_tokens=1000)))

    assert sum(len(delta.token_ids) for delta in drained(engine)) == 32 - 3


@without_model
def test_a_cancelled_request_says_nothing_more(kind: EngineKind) -> None:
    engine = started(kind)
    engine.submit(request())
    engine.step()
    engine.cancel("r")
    engine.cancel("never heard of")

    assert not engine.has_work
    assert engine.stats().running == 0


@without_model
def test_embeddings_are_unit_vectors_that_know_their_words(kind: EngineKind) -> None:
    engine = started(kind, task=Task.EMBED)
    for key, ids in (("a", [1, 2, 3]), ("near", [1, 2, 4]), ("far", [7, 8, 9])):
        engine.submit(EngineRequest(key=key, prompt_ids=ids, task=Task.EMBED))

    vectors = {delta.key: delta.embedding or [] for delta in drained(engine)}

    def likeness(left: str, right: str) -> float:
        return sum(a * b for a, b in zip(vectors[left], vectors[right], strict=True))

    assert math.isclose(likeness("a", "a"), 1.0)
    assert likeness("a", "near") > likeness("a", "far") + 0.3


@without_model
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (EngineRequest(key="r", prompt_ids=[]), "empty_prompt"),
        (EngineRequest(key="r", prompt_ids=[1] * 32), "too_long"),
        (EngineRequest(key="r", prompt_ids=[1, -1]), "bad_token"),
        (EngineRequest(key="r", prompt_ids=[1] * 20, resume_ids=[2] * 12), "too_long"),
        (EngineRequest(key="r", prompt_ids=[1], task=Task.EMBED), "wrong_task"),
        (
            EngineRequest(key="r", prompt_ids=[1], resume_ids=[1], sampling=Sampling(n=2)),
            "not_resumable",
        ),
        (
            EngineRequest(
                key="r",
                prompt_ids=[1],
                resume_ids=[1],
                sampling=Sampling(guide=Guide(json_object=True)),
            ),
            "not_resumable",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(kind: EngineKind, bad: EngineRequest, code: str) -> None:
    engine = started(kind)

    with pytest.raises(EngineRequestError) as caught:
        engine.submit(bad)

    assert caught.value.code == code
    assert not engine.has_work


def test_echo_runs_so_many_requests_at_once_and_so_many_tokens_a_step() -> None:
    engine = started(EngineKind.ECHO, max_num_seqs=1, tokens_per_step=3)
    engine.submit(request())
    engine.submit(EngineRequest(key="s", prompt_ids=[9], sampling=Sampling(max_tokens=1)))

    first = engine.step()

    assert [(d.key, d.token_ids) for d in first.deltas] == [("r", [11, 12, 13])]
    assert (first.stats.running, first.stats.waiting) == (1, 1)
    assert [d.key for d in drained(engine)] == ["r", "s"]


def test_engines_are_made_by_their_kind() -> None:
    assert isinstance(create_engine(EngineConfig(kind=EngineKind.ECHO)), EchoEngine)
    assert isinstance(create_engine(EngineConfig(kind=EngineKind.MODEL)), ModelEngine)
