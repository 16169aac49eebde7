"""Results written as record files, with the bytes of the nodes wherever nothing is disputed."""
