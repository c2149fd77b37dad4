"""KV memory in blocks, with the order in which vLLM gives them out and finds them again.

Free blocks wait in a queue. Blocks without content that could be found again go to its front, those
that are cached to its end, the end of a sequence before its beginning; so the front is a plain
number, and what follows is least recently used first. A cached block leaves the cache when it is
given out. (vLLM 0.32: `BlockPool`, `FreeKVCacheBlockQueue`, `FullAttentionManager`.)

Only blocks that somebody may find are kept one by one: those with a key (`Block`), and what a
preempted sequence left behind and may find when it resumes (`Run`). All others are counted.
"""

from __future__ import annotations

from typing import Final

from anyserve.core.engine.sequence import Sequence

_UNBOUNDED: Final = 1 << 60


class Link:
    """A place in the queue of free cached blocks."""

    __slots__ = ("after", "before")

    def __init__(self) -> None:
        self.before: Link = self
        self.after: Link = self

    def unlink(self) -> None:
        """Leave the queue."""
        self.before.after = self.after
        self.after.before = self.before


class Block(Link):
    """A cached block that any sequence with its key may use."""

    __slots__ = ("key", "users")

    def __init__(self, key: int) -> None:
        super().__init__()
        self.key = key
        self.users = 1
        """0: it is free and in the queue."""


class Run(Link):
    """Free cached blocks [low, high) of one sequence, given out from `high` down."""

    __slots__ = ("high", "low", "versions")

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.low = low
        self.high = high
        self.versions: dict[int, int] = {}
        """Which copy of its content a block is, where it is not the first (number 0)."""


class Hit:
    """The blocks at the beginning of a sequence that are cached.

    Args:
        shared: those that others may have, too.
        own: (place, run that it lies in) of the blocks after `shared`.
        free: how many of them are free now and would be taken.
    """

    __slots__ = ("blocks", "free", "own", "shared")

    def __init__(self, shared: list[Block], own: list[tuple[int, Run]], free: int) -> None:
        self.shared = shared
        self.own = own
        self.free = free
        self.blocks = len(shared) + len(own)
        """How many they are."""


NOTHING: Final = Hit([], [], 0)


class KvCache:
    """The blocks of one engine. `blocks` 0: no KV cache, so nothing to run out of."""

    def __init__(self, blocks: int, block_size: int, *, caching: bool) -> None:
        self.block_size = block_size
        self.caching = caching
        self._usable = max(0, blocks - 1)  # vLLM keeps one as the null block
        self.free = self._usable if blocks else _UNBOUNDED
        """Blocks that nobody uses, cached ones included."""
        self._plain = self.free
        """Those of them that are not cached."""
        self._loose = 0
        """Cached ones that nobody will find any more, at the end of the queue."""
        self._queue = Link()
        self._by_key: dict[int, Block | list[Block]] = {}

    def usage_at(self, free: int) -> float:
        """Share of the blocks in use when so many are free."""
        return 1.0 - free / self._usable if self._usable else 0.0

    def take(self, blocks: int) -> None:
        """Give out free blocks; there must be enough."""
        self.free -= blocks
        self._plain -= blocks
        if self._plain < 0:
            self._evict(-self._plain)
            self._plain = 0

    def find(self, sequence: Sequence) -> Hit:
        """What of a waiting sequence is cached: whole blocks, and at least its last token is
        computed again."""
        keys = sequence.keys
        if not (self.caching and (keys or sequence.runs)):
            return NOTHING
        limit = (sequence.prompt + sequence.generated - 1) // self.block_size
        shared: list[Block] = []
        free = 0
        by_key = self._by_key
        for key in keys[:limit]:
            found = by_key.get(key)
            if found is None:
                return Hit(shared, [], free)
            block = found if isinstance(found, Block) else found[0]
            free += block.users == 0
            shared.append(block)
        own = _left_behind(sequence, len(shared), limit) if sequence.runs else []
        return Hit(shared, own, free + len(own))

    def adopt(self, sequence: Sequence, hit: Hit) -> None:
        """Let a sequence use what was found of it."""
        for block in hit.shared:
            if block.users == 0:
                block.unlink()
                self.free -= 1
            block.users += 1
        sequence.blocks = hit.shared
        sequence.cached = sequence.found = hit.blocks
        sequence.own = len(hit.own)
        if sequence.runs:
            self.free -= len(hit.own)
            _adopt_left_behind(sequence, hit)

    def extend(self, sequence: Sequence, tokens: int) -> None:
        """Let a sequence cover its first `tokens`; there must be room. They are cached at once, for
        the step that computes them comes before any that could find them."""
        size = self.block_size
        more = -(-tokens // size) - len(sequence.blocks) - sequence.own
        if more > 0:
            self.take(more)
            sequence.own += more
        total = sequence.prompt + sequence.generated
        self.note(sequence, min(total, tokens))

    def note(self, sequence: Sequence, tokens: int) -> None:
        """Cache the full blocks of the first `tokens` of a sequence, which it holds already."""
        full = tokens // self.block_size
        if not self.caching or full <= sequence.cached:
            return
        keys = sequence.keys
        if len(keys) > sequence.cached:
            new = [self._register(key) for key in keys[sequence.cached : full]]
            sequence.blocks = [*sequence.blocks, *new]
            sequence.own -= len(new)
        sequence.cached = full

    def release(self, sequence: Sequence, *, returns: bool = False) -> None:
        """Free what a sequence holds. `returns`: it was preempted and may look for it again."""
        blocks = sequence.blocks
        first = len(blocks)
        cached = sequence.cached - first
        self._plain += sequence.own - cached
        self.free += sequence.own
        if cached > 0:
            self._leave(sequence, first, returns=returns)
        if blocks:
            queue = self._whole_queue()
            for block in reversed(blocks):
                block.users -= 1
                if block.users == 0:
                    self.free += 1
                    _append(queue, block)
            sequence.blocks = ()
        sequence.own = sequence.cached = 0

    def _leave(self, sequence: Sequence, first: int, *, returns: bool) -> None:
        """Queue the cached blocks that only this sequence could find."""
        if not returns:
            self._loose += sequence.cached - first  # nobody finds them: a number is enough
            return
        run = Run(first, sequence.cached)
        _date(run, sequence)
        sequence.runs = (*sequence.runs, run)
        sequence.found = 0
        _append(self._whole_queue(), run)

    def _whole_queue(self) -> Link:
        """The queue of cached blocks, the loose ones a run of it."""
        if self._loose:
            _append(self._queue, Run(0, self._loose))
            self._loose = 0
        return self._queue

    def _register(self, key: int) -> Block:
        block = Block(key)
        known = self._by_key.get(key)
        if known is None:
            self._by_key[key] = block
        elif isinstance(known, list):
            known.append(block)
        else:
            self._by_key[key] = [known, block]
        return block

    def _forget(self, block: Block) -> None:
        known = self._by_key[block.key]
        if isinstance(known, list) and len(known) > 1:
            known.remove(block)
        else:
            del self._by_key[block.key]

    def _evict(self, blocks: int) -> None:
        queue = self._whole_queue()
        while blocks:
            link = queue.after
            if isinstance(link, Run):
                taken = min(blocks, link.high - link.low)
                link.high -= taken
                blocks -= taken
                if link.high > link.low:
                    return
            else:
                assert isinstance(link, Block), "more blocks were taken than are free"
                self._forget(link)
                blocks -= 1
            link.unlink()


def _append(queue: Link, link: Link) -> None:
    last = queue.before
    link.before = last
    link.after = queue
    last.after = link
    queue.before = link


# --- what a preempted sequence left behind -----------------------------------------------------
#
# A resumed sequence computes at least its last token again. If that completes a block that was
# cached before, there are two copies of it, and vLLM finds the one that was cached first.


def _left_behind(sequence: Sequence, start: int, limit: int) -> list[tuple[int, Run]]:
    sequence.runs = [run for run in sequence.runs if run.high > run.low]
    found = []
    for place in range(start, limit):
        copies = [run for run in sequence.runs if run.low <= place < run.high]
        if not copies:
            break
        found.append((place, min(copies, key=lambda run: run.versions.get(place, 0))))
    return found


def _adopt_left_behind(sequence: Sequence, hit: Hit) -> None:
    versions: dict[int, int] = {}
    sequence.versions = versions
    for place, run in hit.own:
        version = run.versions.pop(place, 0)
        if version:
            versions[place] = version
        if place > run.low:  # blocks before it stay: copies of others that were found
            rest = Run(run.low, place)
            rest.versions = run.versions
            sequence.runs = (*sequence.runs, rest)
            _append(run.after, rest)  # directly after: given out later, as before
        run.low = place + 1
        if run.low == run.high:
            run.unlink()
    sequence.runs = [run for run in sequence.runs if run.high > run.low]


def _date(run: Run, sequence: Sequence) -> None:
    """Say which blocks of a run are not the first copy of their content."""
    run.versions = dict(sequence.versions or {})
    computed_again = max(run.low, sequence.found)
    for older in sequence.runs:
        for place in range(max(older.low, computed_again), min(older.high, run.high)):
            version = older.versions.get(place, 0) + 1
            run.versions[place] = max(version, run.versions.get(place, 0))
