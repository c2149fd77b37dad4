"""From an engine's configuration to the engine."""

from __future__ import annotations

from anyserve.runtime.engines.base import Engine, EngineConfig, EngineKind


def create_engine(config: EngineConfig) -> Engine:
    """Build the engine that `config` asks for; nothing heavy is imported before its `start`."""
    match config.kind:
        case EngineKind.VLLM:
            from anyserve.runtime.engines.vllm import VllmEngine  # noqa: PLC0415

            return VllmEngine(config)
        case EngineKind.MODEL:
            from anyserve.runtime.engines.model import ModelEngine  # noqa: PLC0415

            return ModelEngine(config)
        case EngineKind.NONE:
            from anyserve.runtime.engines.none import NoEngine  # noqa: PLC0415

            return NoEngine()
        case EngineKind.ECHO:
            from anyserve.runtime.engines.echo import EchoEngine  # noqa: PLC0415

            return EchoEngine(config)
