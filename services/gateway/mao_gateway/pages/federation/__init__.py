"""Pages of the federation: members, audit log, public status of datasets."""
