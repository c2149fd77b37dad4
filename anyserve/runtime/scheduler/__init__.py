"""The scheduler's process: `core.Scheduler` over MQTT, with its journal."""
