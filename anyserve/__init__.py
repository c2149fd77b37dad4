"""AnyServe: a capability-oriented serving runtime for LLM inference."""

__version__ = "0.1.0"
