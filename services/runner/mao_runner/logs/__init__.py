"""A container's output: written to a file while it runs, read and followed."""
