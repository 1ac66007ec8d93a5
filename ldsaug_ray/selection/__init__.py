"""Which candidates are kept: a rule a file, thresholds that they share. A rule that is added here is a file here."""

from ldsaug_ray.common.registry import import_all
from ldsaug_ray.selection.balance import BALANCES, Balance, Groups, check_balance
from ldsaug_ray.selection.rank import RANKS, Rank
from ldsaug_ray.selection.rule import PAPER_TAU, RULES, Rule, sentence_of, sentences_of
from ldsaug_ray.selection.threshold import Selection, select

import_all(__name__, __path__)
