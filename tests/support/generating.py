"""What an engine that generates must do, on whatever device it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from vllm_worker import VllmWorker

from anyserve.runtime.engines.base import Delta, EngineRequest, FinishReason, Guide, Sampling

numbers = count()


def ask(
    worker: VllmWorker, prompt: str, *, resume_ids: Sequence[int] = (), **sampling: object
) -> EngineRequest:
    settings = {"temperature": 0.0, "max_tokens": 12, **sampling}
    return EngineRequest(
        key=f"r/{next(numbers)}",
        prompt_ids=worker.tokenizer.encode(prompt),
        resume_ids=list(resume_ids),
        sampling=Sampling(**settings),  # type: ignore[arg-type]
    )


def ids_of(deltas: Sequence[Delta], choice: int = 0) -> list[int]:
    return [token for d in deltas if d.choice == choice for token in d.token_ids]


class Generating:
    """A directory of tests makes a class of it and gives the fixture `smollm2`."""

    async def test_the_capital_of_france_is_paris(self, smollm2: VllmWorker) -> None:
        deltas = await smollm2.answer(ask(smollm2, "The capital of France is"))

        assert "Paris" in smollm2.tokenizer.decode(ids_of(deltas))
        assert deltas[-1].finish is FinishReason.LENGTH
        assert deltas[0].scheduled_ns > 0

    async def test_a_long_prompt_is_read_rightly(self, smollm2: VllmWorker) -> None:
        """The template adds a system prompt: with it, it is longer than a tile of attention."""
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        prompt_ids = smollm2.tokenizer.encode_chat(messages)
        assert len(prompt_ids) > 32

        deltas = await smollm2.answer(
            EngineRequest(
                key="long", prompt_ids=prompt_ids, sampling=Sampling(temperature=0.0, max_tokens=16)
            )
        )

        assert "The capital of France is Paris." in smollm2.tokenizer.decode(ids_of(deltas))

    async def test_a_chat_ends_by_itself(self, smollm2: VllmWorker) -> None:
        messages = [{"role": "user", "content": "Say hello."}]
        request = EngineRequest(
            key="chat",
            prompt_ids=smollm2.tokenizer.encode_chat(messages),
            sampling=Sampling(temperature=0.0, max_tokens=100),
        )

        deltas = await smollm2.answer(request)

        assert deltas[-1].finish is FinishReason.STOP
        assert "hello" in smollm2.tokenizer.decode(ids_of(deltas)).lower()

    async def test_tokens_come_one_step_at_a_time_with_their_places(
        self, smollm2: VllmWorker
    ) -> None:
        deltas = await smollm2.answer(ask(smollm2, "Once upon a time", ignore_eos=True))

        assert [delta.first_index for delta in deltas] == list(range(12))
        assert all(len(delta.token_ids) == 1 for delta in deltas)
        stream = smollm2.tokenizer.detokenizer()
        text = "".join(stream.push(delta.token_ids) for delta in deltas) + stream.finish()
        assert text == smollm2.tokenizer.decode(ids_of(deltas))

    async def test_a_resumed_stream_continues_word_for_word(self, smollm2: VllmWorker) -> None:
        # Sure of each token: bfloat16 rounds otherwise when several are computed at once.
        counting = "1, 2, 3, 4, 5, 6, 7,"
        whole = await smollm2.answer(ask(smollm2, counting, ignore_eos=True))
        seen = ids_of(whole)[:5]

        rest = await smollm2.answer(ask(smollm2, counting, resume_ids=seen, ignore_eos=True))

        assert seen + ids_of(rest) == ids_of(whole)
        assert rest[0].first_index == 5
        spent = await smollm2.answer(ask(smollm2, counting, resume_ids=ids_of(whole)))
        assert [delta.finish for delta in spent] == [FinishReason.LENGTH]

    async def test_requests_share_steps(self, smollm2: VllmWorker) -> None:
        seen = len(smollm2.frames)
        prompts = [f"The number {number} is" for number in range(8)]

        answers = await asyncio.gather(
            *(smollm2.answer(ask(smollm2, prompt, ignore_eos=True)) for prompt in prompts)
        )

        assert [len(ids_of(deltas)) for deltas in answers] == [12] * 8
        frames = smollm2.frames[seen:]
        assert len(frames) < 20, "eight requests one after the other take 96 steps"
        assert max(len(frame.deltas) for frame in frames) == 8
        assert max(frame.stats.running for frame in frames) == 8
        assert max(frame.stats.kv_usage for frame in frames) > 0

    async def test_a_cancelled_stream_ends_and_its_memory_is_free(
        self, smollm2: VllmWorker
    ) -> None:
        request = ask(smollm2, "Tell me a long story", max_tokens=400, ignore_eos=True)
        reader = asyncio.create_task(smollm2.answer(request))
        await smollm2.until_started(request.key)

        smollm2.client.cancel(request.key)
        got = await reader

        assert request.key in smollm2.cancelled
        assert 0 < len(ids_of(got)) < 400
        await smollm2.answer(ask(smollm2, "Hello", max_tokens=1))
        assert smollm2.frames[-1].stats.running == 0
        assert smollm2.frames[-1].stats.kv_usage == 0

    async def test_a_prompt_over_the_context_fails_alone(self, smollm2: VllmWorker) -> None:
        good = ask(smollm2, "The capital of France is")
        bad = EngineRequest(key="too-long", prompt_ids=[100] * 600)
        nonsense = EngineRequest(key="nonsense", prompt_ids=[10_000_000])
        invalid = ask(smollm2, "Hello", top_p=7.0)
        requests = (good, bad, nonsense, invalid)

        answer, *_ = await asyncio.gather(*(smollm2.answer(one) for one in requests))

        assert "Paris" in smollm2.tokenizer.decode(ids_of(answer))
        assert smollm2.failed["too-long"].code == "too_long"
        assert smollm2.failed["nonsense"].code == "bad_token"
        assert smollm2.failed[invalid.key].code == "invalid_request"

    async def test_a_stop_string_ends_the_stream(self, smollm2: VllmWorker) -> None:
        request = ask(smollm2, "Count: one, two, three,", stop=["six"], max_tokens=40)

        deltas = await smollm2.answer(request)

        assert deltas[-1].finish is FinishReason.STOP
        assert deltas[-1].stop == "six"
        stream = smollm2.tokenizer.detokenizer(["six"])
        text = stream.push(ids_of(deltas)) + stream.finish()
        assert "five" in text
        assert "six" not in text

    async def test_choices_logprobs_and_seeds(self, smollm2: VllmWorker) -> None:
        def request() -> EngineRequest:
            prompt = "My favourite colour is"
            return ask(smollm2, prompt, temperature=1.0, n=2, seed=7, logprobs=2, max_tokens=6)

        first = await smollm2.answer(request())
        again = await smollm2.answer(request())

        assert ids_of(first, 0) != ids_of(first, 1)
        assert [ids_of(first, c) for c in (0, 1)] == [ids_of(again, c) for c in (0, 1)]
        assert [d.done for d in first].count(True) == 1
        places = [p for delta in first for p in delta.logprobs or []]
        assert len(places) == 12
        assert all(place.logprob <= 0 and len(place.top) >= 2 for place in places)

    async def test_a_guide_binds_the_answer(self, smollm2: VllmWorker) -> None:
        guide = Guide(choice=["violin", "trumpet"])

        deltas = await smollm2.answer(ask(smollm2, "The best colour is", guide=guide))

        assert smollm2.tokenizer.decode(ids_of(deltas)) in {"violin", "trumpet"}

    async def test_a_repeated_prompt_hits_the_prefix_cache(self, smollm2: VllmWorker) -> None:
        prompt = "A long shared beginning. " * 60

        await smollm2.answer(ask(smollm2, prompt, max_tokens=1))
        before = smollm2.frames[-1].stats.prefix_hits
        deltas = await smollm2.answer(ask(smollm2, prompt, max_tokens=1))

        assert deltas[0].cached_tokens >= 128
        assert smollm2.frames[-1].stats.prefix_hits > before
