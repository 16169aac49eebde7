"""Enrolments of this node, and the agreement of its operator, without which nothing runs."""
