"""Codecs of rows of numbers."""
