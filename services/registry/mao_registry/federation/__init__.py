"""A federation's own matters: who belongs to it, and how members prove who they are."""
