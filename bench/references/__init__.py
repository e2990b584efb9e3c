"""What ours is held against, where that is no program of others."""
