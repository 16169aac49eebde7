"""Common code of all MAO services, the client and the node launcher."""

__version__ = "0.1.0"
