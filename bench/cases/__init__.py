"""The cases, a module for those that are alike."""
