"""The replica's process: `core.Replica` over MQTT, and the worker that does its work."""
