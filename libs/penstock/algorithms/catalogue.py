"""What the built-in algorithms are called and which parameters they take.

Importable with the base install: services validate requests with it, and the documentation is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from penstock.algorithms.parameters import Parameter, Parameters, parse_parameters
from penstock.errors import InvalidArgument, NotFound

Kind = Literal["trainer", "evaluator"]


@dataclass(frozen=True)
class Algorithm:
    """One built-in: what it is for and which parameters it takes.

    `version` changes whenever the same data and parameters may give a different result.
    """

    name: str
    version: str
    kind: Kind
    task: str
    description: str
    parameters: tuple[Parameter, ...]

    def parse(self, given: Mapping[str, object], *, prefix: str = "parameters") -> Parameters:
        """Check parameters and fill in defaults. Raises InvalidArgument naming each wrong one as `<prefix>.<name>`."""
        return parse_parameters(self.parameters, given, prefix=prefix)

    def parameter(self, name: str, *, prefix: str = "parameters") -> Parameter:
        """One parameter by name, as a search space needs it. Raises InvalidArgument with the list of known ones."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        known = ", ".join(parameter.name for parameter in self.parameters)
        raise InvalidArgument(
            f"{prefix}.{name}: unknown parameter of {self.name}; known are {known}", field=f"{prefix}.{name}"
        )

    def to_json(self) -> dict[str, object]:
        """A JSON-able description."""
        return {
            "name": self.name,
            "version": self.version,
            "kind": self.kind,
            "task": self.task,
            "description": self.description,
            "parameters": [parameter.to_json() for parameter in self.parameters],
        }


_COMMON = (
    Parameter("label", "string", "", "Field to predict; empty means the dataset's label field."),
    Parameter("features", "strings", (), "Fields to learn from; empty means all but the label and the key."),
    Parameter(
        "validation_fraction",
        "float",
        0.2,
        "Share of the records, chosen by a hash of the key, on which the metrics are measured; 0 measures nothing.",
        minimum=0.0,
        maximum=0.9,
    ),
    Parameter("refit", "bool", True, "After measuring, fit once more on all records; that model is kept."),
    Parameter("seed", "int", 0, "Seed of everything random.", minimum=0, maximum=2**32 - 1),
    Parameter(
        "max_categories",
        "int",
        50,
        "Most frequent values of a text field that get a feature of their own; the rest share one.",
        minimum=1,
        maximum=1000,
    ),
)

_LOGISTIC_REGRESSION = (
    Parameter("C", "float", 1.0, "Inverse strength of the L2 penalty.", minimum=1e-8, maximum=1e8, log=True),
    Parameter("max_iter", "int", 1000, "Most iterations of the solver (L-BFGS).", minimum=1, maximum=100_000),
    Parameter("tol", "float", 1e-4, "Gradient at which the solver stops.", minimum=1e-10, maximum=1.0, log=True),
    Parameter("balanced", "bool", False, "Weigh records so that every class counts the same."),
)

_GRADIENT_BOOSTING = (
    Parameter("learning_rate", "float", 0.1, "Shrinkage of each tree.", minimum=1e-4, maximum=1.0, log=True),
    Parameter("max_iter", "int", 100, "Boosting iterations: trees per class.", minimum=1, maximum=10_000),
    Parameter("max_leaf_nodes", "int", 31, "Most leaves of a tree.", minimum=2, maximum=1024),
    Parameter("max_depth", "int", 0, "Most levels of a tree; 0 means no limit.", minimum=0, maximum=64),
    Parameter("min_samples_leaf", "int", 20, "Fewest records in a leaf.", minimum=1, maximum=1_000_000),
    Parameter("l2_regularization", "float", 0.0, "L2 penalty on the leaves' values.", minimum=0.0, maximum=1e6),
    Parameter("max_bins", "int", 255, "Histogram bins per feature.", minimum=2, maximum=255),
    Parameter("balanced", "bool", False, "Weigh records so that every class counts the same."),
)

_MLP = (
    Parameter("hidden_layers", "int", 1, "Number of hidden layers.", minimum=1, maximum=8),
    Parameter("hidden_units", "int", 64, "Units of each hidden layer.", minimum=1, maximum=4096, log=True),
    Parameter("activation", "string", "relu", "Activation of the hidden units.", choices=("relu", "tanh", "logistic")),
    Parameter("learning_rate", "float", 1e-3, "Step size of Adam.", minimum=1e-6, maximum=1.0, log=True),
    Parameter("alpha", "float", 1e-4, "Strength of the L2 penalty.", minimum=0.0, maximum=1e3, log=True),
    Parameter("batch_size", "int", 128, "Records per step.", minimum=1, maximum=100_000),
    Parameter("epochs", "int", 100, "Most passes over the records.", minimum=1, maximum=10_000),
    Parameter(
        "patience",
        "int",
        10,
        "Stop after this many epochs in a row in which the training loss fell by less than 0.0001.",
        minimum=1,
        maximum=10_000,
    ),
)

_EVALUATION = (
    Parameter("label", "string", "", "Field with the truth; empty means the model's, else the dataset's label field."),
)

CATALOGUE: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm(
            "logistic-regression",
            "1",
            "trainer",
            "classification",
            "Multinomial logistic regression with an L2 penalty (scikit-learn LogisticRegression).",
            _LOGISTIC_REGRESSION + _COMMON,
        ),
        Algorithm(
            "gradient-boosting",
            "1",
            "trainer",
            "classification",
            "Boosted trees on histograms; missing numbers have their own branch (HistGradientBoostingClassifier).",
            _GRADIENT_BOOSTING + _COMMON,
        ),
        Algorithm(
            "mlp",
            "1",
            "trainer",
            "classification",
            "Multilayer perceptron trained with Adam (scikit-learn MLPClassifier).",
            _MLP + _COMMON,
        ),
        Algorithm(
            "evaluate-classification",
            "1",
            "evaluator",
            "classification",
            "Accuracy, log loss, precision, recall and F1 per class, confusion matrix and predictions per record.",
            _EVALUATION,
        ),
    )
}

# What `evaluate-classification` computes of a whole dataset version, and so what a verdict's rule may name.
EVALUATION_METRICS = (
    "accuracy", "log_loss", "macro_precision", "macro_recall", "macro_f1", "weighted_precision", "weighted_recall",
    "weighted_f1", "records",
)  # fmt: skip


def algorithm(name: str) -> Algorithm:
    """The built-in of that name. Raises NotFound with the list of known ones."""
    found = CATALOGUE.get(name)
    if found is None:
        raise NotFound(f"no built-in algorithm {name!r}; there are {', '.join(CATALOGUE)}", field="algorithm")
    return found
