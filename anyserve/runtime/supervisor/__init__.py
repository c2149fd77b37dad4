"""The supervisor: starts a cluster's processes, watches them, and leaves nothing behind."""
