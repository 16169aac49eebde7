"""The shared records (tools, datasets, pipelines), their rules and endorsements."""
