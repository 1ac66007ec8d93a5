"""The ground floor: files, digests, Arrow columns, secrets. It knows nothing of what they are used for."""
