"""Measuring a real engine: designed batches in, a profile for `core.engine` out."""
