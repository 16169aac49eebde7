"""Evidence of a run for others: an RO-Crate (Process Run Crate 0.5) to take away; a check of every byte."""
