"""`fixed`: sigma itself is given, whatever the latents."""

from ldsaug_ray.lds.sigma.rule import SIGMA_RULES, SigmaRule

SIGMA_RULES.add(
    "fixed",
    SigmaRule(
        {"value": None}, lambda z, given, score, seed: (given["value"], {}), lambda _: "fixed in the settings", "value"
    ),
)
