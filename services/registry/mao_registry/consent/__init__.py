"""Enrolments of this node in pipelines, and what its operator agreed to run."""
