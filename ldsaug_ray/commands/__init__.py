"""What `ldsaug` and `jobs/` call: one module a command."""
