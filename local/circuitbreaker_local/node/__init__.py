"""A real node on one machine, without Docker: pods, Services and DNS in namespaces that end with the command."""
