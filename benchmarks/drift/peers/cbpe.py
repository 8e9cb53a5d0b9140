"""NannyML's CBPE: estimated accuracy of windows; run by the peers' own Python: FILE.npz in, JSON out."""
# mypy: ignore-errors

import json
import sys
import warnings

import nannyml
import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")


def estimate(confidence, right, window):
    estimator = nannyml.CBPE(
        y_pred_proba="confidence",
        y_pred="said",
        y_true="right",
        metrics=["accuracy"],
        problem_type="classification_binary",
        chunk_size=len(window),
    )
    reference = pd.DataFrame({"confidence": confidence, "said": 1, "right": right.astype(int)})
    estimator.fit(reference)
    found = estimator.estimate(pd.DataFrame({"confidence": window, "said": 1})).filter(period="analysis").to_df()
    return float(found[("accuracy", "value")].iloc[-1])


def main():
    given = np.load(sys.argv[1])
    rows = zip(given["confidence"], given["right"], given["window"], strict=True)
    print(json.dumps([estimate(*row) for row in rows]))


main()
