"""The VAE of clips: convolutions over log-mel spectrograms, made audible by a fixed inverse."""
