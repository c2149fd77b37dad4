"""The simulator: core's own state machines in virtual time, on a model of network and engines."""
