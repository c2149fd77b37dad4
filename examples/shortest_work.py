"""A routing policy of our own: send a request where the least work is still to be done.

    anyserve up examples/shortest_work.yaml

`docs/policies.md` builds it up step by step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any

from anyserve.core.messages import Request
from anyserve.core.policies import CandidateView, Choice, ReplicaInfo
from anyserve.core.randomness import Rng


class ShortestWork:
    """The candidate with the fewest tokens of work left, counted in decode steps.

    Options:
        prompt_weight: what a prompt token costs, in output tokens; default 0.1.
        draws: look at so many candidates drawn at random; default 0, at all of them.
    """

    def __init__(self, rng: Rng, options: Mapping[str, Any]) -> None:
        self._rng = rng
        self._prompt_weight = float(options.get("prompt_weight", 0.1))
        self._draws = int(options.get("draws", 0))
        self._sent: dict[str, deque[float]] = {}

    def choose(self, request: Request, view: CandidateView) -> Choice:
        candidates = view.sample(self._draws) if self._draws else list(view)
        lefts = {replica.id: self._left(replica) for replica in candidates}
        best = min(candidates, key=lambda replica: (lefts[replica.id], self._rng.random()))
        self._note(best, request)
        left = lefts[best.id]
        return Choice(best.id, left, f"least work, {left:.0f} tokens left", lefts)

    def _left(self, replica: ReplicaInfo) -> float:
        # Nobody tells a policy that a request has ended. But a replica with n slots in use is
        # most likely busy with the n requests that were sent there last.
        sent = self._sent.get(replica.id, ())
        return sum(islice(reversed(sent), replica.in_use))

    def _note(self, replica: ReplicaInfo, request: Request) -> None:
        sent = self._sent.setdefault(replica.id, deque(maxlen=replica.concurrency))
        sent.append(request.max_tokens + self._prompt_weight * request.prompt_tokens)
