"""Other nodes: who is present, their runs and logs; and what this node shows them."""
