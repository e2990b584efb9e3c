"""Clients that cost as little as they can, each a process of its own, so that what they cost is known."""
