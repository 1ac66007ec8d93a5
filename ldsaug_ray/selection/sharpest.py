"""`lds+sharpness`: of what the thresholds keep, the sharpest once decoded: "LDS + SS" of the paper's Table 1."""

from ldsaug_ray.selection.rule import RULES, Rule


class Sharpest(Rule):
    """As `lds`; the second filter is the work of stage `decode`, which alone has images."""

    words = "of what the rules keep, the sharpest once decoded (decode.sharpest)"
    sharpest = True


RULES.add("lds+sharpness", Sharpest())
