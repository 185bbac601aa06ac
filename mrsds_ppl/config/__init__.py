"""The YAML file of a run: schema, names, loading, messages. Imports errors."""
