"""Clips: sounds of one rate and length, decoded by libsndfile, heard and seen in the report."""
