"""What can be configured: the schema and the YAML files that ship with the package."""
