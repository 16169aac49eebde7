"""The vote on the values of a table: noise, voices of nodes, and the value of each cell."""
