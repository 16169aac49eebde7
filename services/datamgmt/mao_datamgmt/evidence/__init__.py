"""Evidence of a run: its export as an RO-Crate (Process Run Crate 0.5), and its verification."""
