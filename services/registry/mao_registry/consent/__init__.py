"""What this node takes part in, and the agreement of its operator without which nothing runs."""
