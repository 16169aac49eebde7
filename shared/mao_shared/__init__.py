"""What every MAO service, the client and the node launcher share."""

__version__ = "0.1.0"
