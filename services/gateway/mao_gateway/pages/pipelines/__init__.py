"""Pages of pipelines: the list, and one pipeline with its schedules and actions."""
