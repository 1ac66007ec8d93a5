"""Other people's autoencoders as `Autoencoder`s: diffusers directories, TorchScript and torch.export files."""

from ldsaug_ray.models.adapters.open import open_pretrained, pretrained_stamp, rebuild
from ldsaug_ray.models.adapters.pretrained import Pretrained
