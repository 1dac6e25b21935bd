"""What Git and DVC keep of former states of the repository. Used by: check, verify, lineage, merge, hooks."""
