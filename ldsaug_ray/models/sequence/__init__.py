"""A variational autoencoder of token sequences: molecules as SMILES or SELFIES."""
