"""How adapters are trained. Importing this imports transformers, and later torch and PEFT.

For assisted decoding and object detection, which no job does, transformers' models import scikit-learn's metrics,
SciPy's optimizers and with them pandas, if they are there: a quarter of a training's memory and two seconds.
"""

from transformers import utils

utils.is_sklearn_available = utils.is_scipy_available = lambda: False
