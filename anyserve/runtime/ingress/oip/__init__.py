"""The gRPC door: Open Inference Protocol v2, with streaming as Triton has it."""
