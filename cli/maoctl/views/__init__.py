"""Tables and facts that `maoctl` prints: one module for each kind of record."""
