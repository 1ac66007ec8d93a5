"""The Ray layer: one module a stage, and the only code that imports Ray. A stage reads, maps, writes, accounts."""
