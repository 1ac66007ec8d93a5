"""Settings of a run: a file a section, the tree, and the reading of YAML files and `key=value` overrides."""

from ldsaug_ray.config.base import Auto, Interpolation, Positive, Section, counted, how, since
from ldsaug_ray.config.cluster import Ray
from ldsaug_ray.config.data import CommonData, Data, SplitSize
from ldsaug_ray.config.decode import Decode
from ldsaug_ray.config.encode import Encode
from ldsaug_ray.config.evaluate import Downstream, Evaluate, LdsDetection
from ldsaug_ray.config.experiment import Arm, Experiment
from ldsaug_ray.config.finetune import Finetune, Uses
from ldsaug_ray.config.load import describe, load_config
from ldsaug_ray.config.objective import Adversarial, Objective, Perceptual
from ldsaug_ray.config.report import Report
from ldsaug_ray.config.sample import Sampling
from ldsaug_ray.config.score import LARGEST_PART, Approximate, Score, Sigma
from ldsaug_ray.config.select import Select
from ldsaug_ray.config.tracking import Tracking
from ldsaug_ray.config.train import Optimisation, Train
from ldsaug_ray.config.tree import Config, config_class
from ldsaug_ray.config.tune import Asha, Range, Tune
from ldsaug_ray.config.vae import CommonVae, Vae
from ldsaug_ray.config.workers import CpuWorkers, Ranks, ScoreWorkers, Workers
