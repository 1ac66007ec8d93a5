"""The VAE of StyleGAN2's structure, and its discriminator."""
