"""The registry: tools, datasets and pipelines, what this node takes part in, and its federation."""
