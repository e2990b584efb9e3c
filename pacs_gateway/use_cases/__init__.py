"""What the gateway does, in terms of the ports it owns."""
