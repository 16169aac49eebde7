"""The shared records: tools, datasets, pipelines, and who endorses them."""
