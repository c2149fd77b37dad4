"""The version, where everything below the package's own root may read it."""

__version__ = "0.1.0"
