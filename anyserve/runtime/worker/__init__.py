"""The worker process: an engine, its step loop, and the socket to the replica."""
