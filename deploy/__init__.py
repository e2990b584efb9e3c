"""How the services are run: Envoy's files, the stack on one machine, containers."""
