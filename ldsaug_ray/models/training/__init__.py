"""One training step: objective, optimisers, averaged weights, saved state."""
