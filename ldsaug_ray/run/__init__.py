"""A run on disk and what is told of it: run directory, manifest, progress, MLflow."""
