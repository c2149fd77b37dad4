"""KV memory in blocks, as counts. Which blocks they are matters only to a prefix cache."""

from __future__ import annotations


class KvBlocks:
    """Blocks of a KV cache and who holds how many.

    One block is reserved, as vLLM reserves its null block. With no blocks at all the memory is
    unbounded (models without a KV cache).
    """

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._usable = max(0, blocks - 1)
        self._bounded = blocks > 0
        self._used = 0
        self._held: dict[object, int] = {}

    @property
    def usage(self) -> float:
        """Share of the usable blocks that is held."""
        return self._used / self._usable if self._usable else 0.0

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self._usable - self._used

    def holds(self, key: object) -> int:
        """Blocks of one sequence."""
        return self._held.get(key, 0)

    def fits(self, tokens: int) -> bool:
        """Whether a new sequence of this length would fit now."""
        return not self._bounded or self._blocks(tokens) <= self.free

    def grow(self, key: object, tokens: int) -> bool:
        """Let a sequence cover `tokens`; False, and nothing changes, if the blocks run out."""
        held = self._held.get(key, 0)
        more = max(0, self._blocks(tokens) - held)
        if self._bounded and more > self.free:
            return False
        self._held[key] = held + more
        self._used += more
        return True

    def release(self, key: object) -> None:
        """Free what a sequence holds."""
        self._used -= self._held.pop(key, 0)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block_size)
