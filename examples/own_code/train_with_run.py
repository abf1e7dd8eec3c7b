"""Trains a random forest with `penstock.run`, which saves handling the files by hand.

    penstock train digits@1 --code examples/own_code --command "python train_with_run.py" -p trees=50 --model forest

Needs `penstock[train]`. By hand: put the partitions into `inputs/train` and run it; the model is in `outputs/model`.
"""

import json

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from penstock import run

trees = int(run.params().get("trees", 50))
data = run.inputs["train"]
table = data.to_arrow()
# Lists are columns of JSON text, as data.meta["json_columns"] says.
pixels = np.array([json.loads(text) for text in table["pixels"].to_pylist()], dtype=np.float32)
labels = table[data.meta["label"]].to_numpy()

train_pixels, held_pixels, train_labels, held_labels = train_test_split(pixels, labels, random_state=0)
forest = RandomForestClassifier(n_estimators=0, warm_start=True, random_state=0)
for count in range(10, trees + 1, 10):
    forest.set_params(n_estimators=count)
    forest.fit(train_pixels, train_labels)
    run.log_metrics(accuracy=forest.score(held_pixels, held_labels), step=count)
    if run.should_prune():  # only ever true in a study that has given this trial up
        break

# The input bears the field's name, so that evaluation and clients can use records as they are.
# Zipmap off: probabilities as one tensor, which can be served, instead of a list of dictionaries.
model = convert_sklearn(
    forest,
    initial_types=[("pixels", FloatTensorType([None, pixels.shape[1]]))],
    options={"zipmap": False},
    target_opset={"": 17, "ai.onnx.ml": 3},
)
run.save_model(
    model.SerializeToString(),
    examples={"pixels": pixels[:16]},
    labels=[int(label) for label in forest.classes_],
    framework={"name": "scikit-learn"},
)
