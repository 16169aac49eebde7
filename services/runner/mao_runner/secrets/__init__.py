"""Secrets of this node: kept encrypted, given to the tools that may have them, and masked in their logs."""
