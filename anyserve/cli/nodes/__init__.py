"""Single processes of a cluster, started by hand."""
