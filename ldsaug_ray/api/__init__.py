"""The Python face: what notebooks and other programs call. Empty for now."""
