"""Kinds of data: how each is read, checked and shown."""
