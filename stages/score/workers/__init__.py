"""Several workers at one store: processes of a machine, or of a cluster."""
