"""Built-in trainers and evaluators. They run inside jobs; importing this package costs nothing but the base install.

`CATALOGUE` says what there is and which parameters it takes, `run` is what a job executes, `preload` is for processes
that fork warm workers, and `ModelCard` reads `model.json`.
"""

from penstock.algorithms.catalogue import CATALOGUE, Algorithm, algorithm
from penstock.algorithms.job import preload, run
from penstock.algorithms.model_format import ModelCard
from penstock.algorithms.parameters import Parameter, Parameters

__all__ = ["CATALOGUE", "Algorithm", "ModelCard", "Parameter", "Parameters", "algorithm", "preload", "run"]
