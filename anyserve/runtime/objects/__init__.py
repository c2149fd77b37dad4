"""The object plane: large payloads in shared memory, by reference, bounded, never pickled."""
