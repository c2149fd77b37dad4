"""Whatever is put, mapped, let go and outlived: the bound holds, and nothing live changes."""

from __future__ import annotations

import gc
import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from anyserve.core.objects import ObjRef
from anyserve.core.spec import ObjectsSpec
from anyserve.errors import ObjectError
from anyserve.runtime.objects.directory import new_object_directory, remove_object_directory
from anyserve.runtime.objects.layout import HEADER_BYTES
from anyserve.runtime.objects.store import ObjectStore

LIMIT = 6 * HEADER_BYTES
TTL_MS = 50


class ObjectsOfOneHost(RuleBasedStateMachine):
    """Two processes' stores on one directory, against a model in plain Python."""

    refs = Bundle("refs")

    @initialize()
    def begin(self) -> None:
        gc.freeze()
        self.now_ms = 1_000
        self.directory = new_object_directory()
        rules = ObjectsSpec(limit_bytes=LIMIT, ttl_ms=TTL_MS)
        self.ids = random.Random(0)
        self.stores = [
            ObjectStore(self.directory, rules, now_ms=lambda: self.now_ms, new_id=self.next_id)
            for _ in range(2)
        ]
        self.model: dict[str, tuple[ObjRef, bytes]] = {}
        """What may be there, oldest first."""
        self.views: list[tuple[ObjRef, bytes, Any]] = []

    def next_id(self) -> str:
        # Ids that grow: objects of one millisecond go in the order of their ids.
        return f"{len(self.model) + 1_000_000 * self.ids.randrange(1, 2):032x}"

    def live(self) -> dict[str, int]:
        return {
            ref.id: HEADER_BYTES + ref.size
            for ref, _ in self.model.values()
            if any(store.has(ref) for store in self.stores)
        }

    @rule(
        target=refs,
        which=st.integers(0, 1),
        size=st.integers(0, 3 * HEADER_BYTES),
        fill=st.integers(0, 255),
        ttl_ms=st.none() | st.integers(0, 2 * TTL_MS),
    )
    def put(self, which: int, size: int, fill: int, ttl_ms: int | None) -> Any:
        self.now_ms += 1
        data = bytes([fill]) * size
        before = self.live()
        pinned = {ref.id for ref, _, _ in self.views}
        try:
            ref = self.stores[which].put(data, ttl_ms=ttl_ms)
        except ObjectError as error:
            assert error.code == "objects_full"  # noqa: PT017 - pytest cannot expect a maybe
            mapped = sum(HEADER_BYTES + r.size for r in {ref for ref, _, _ in self.views})
            assert mapped + HEADER_BYTES + size > LIMIT
            assert self.live() == before  # nobody went for one that found no room
            return multiple()
        after = self.live()
        gone = [self.model[one][0] for one in before if one not in after]
        assert not {ref.id for ref in gone} & pinned
        if gone:
            youngest = max(one.created_ms for one in gone)
            spared = [self.model[one][0] for one in before if one in after and one not in pinned]
            assert all(one.created_ms > youngest for one in spared)
            last = max(gone, key=lambda one: (one.created_ms, one.id))
            assert self.stores[0].used_bytes() + HEADER_BYTES + last.size > LIMIT
        self.model[ref.id] = (ref, data)
        assert ref.expires_ms == self.now_ms + (TTL_MS if ttl_ms is None else ttl_ms)
        return ref

    @rule(which=st.integers(0, 1), ref=refs, verify=st.booleans())
    def get(self, which: int, ref: ObjRef, verify: bool) -> None:
        there = self.stores[which].has(ref)
        try:
            view = self.stores[which].get(ref, verify=verify)
        except ObjectError as error:
            assert error.code == "object_gone"  # noqa: PT017
            assert not there
            return
        assert there
        assert ref.expires_ms > self.now_ms
        assert view == self.model[ref.id][1]
        self.views.append((ref, self.model[ref.id][1], view))

    @rule(which=st.integers(0, 1), ref=refs)
    def look_up(self, which: int, ref: ObjRef) -> None:
        found = self.stores[which].lookup(ref.id)
        assert found == (ref if self.stores[which].has(ref) else None)

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.views) - 1))
        del self.views[place]
        gc.collect()  # quick: what was there before is frozen

    @rule(by_ms=st.integers(1, TTL_MS))
    def time_passes(self, by_ms: int) -> None:
        self.now_ms += by_ms

    @rule()
    def a_writer_crashes(self) -> None:
        part = self.directory / f"part.{'f' * 32}.{self.now_ms}"
        part.write_bytes(b"x" * HEADER_BYTES)

    @invariant()
    def the_bound_holds(self) -> None:
        if hasattr(self, "stores"):
            assert self.stores[0].used_bytes() <= LIMIT

    @invariant()
    def what_is_mapped_stays_as_it_is(self) -> None:
        for _, data, view in getattr(self, "views", []):
            assert view == data

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.views.clear()
            remove_object_directory(self.directory)
            gc.unfreeze()


TestObjectsOfOneHost = ObjectsOfOneHost.TestCase
TestObjectsOfOneHost.settings = settings(max_examples=25, stateful_step_count=30)
