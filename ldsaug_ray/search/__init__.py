"""Searches over settings: the space, what is made small, measures that need no training. No Ray."""
