"""The object plane: large payloads in shared memory, by reference, bounded, never pickled."""

from anyserve.runtime.objects.store import ObjectStore, new_object_directory

__all__ = ["ObjectStore", "new_object_directory"]
