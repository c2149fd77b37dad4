"""Where requests enter: HTTP (OpenAI-compatible) and gRPC (Open Inference Protocol)."""
