"""The broker: our own under a guard, somebody else's by URL, and who may publish where."""
