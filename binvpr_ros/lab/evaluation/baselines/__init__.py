# SPDX-License-Identifier: Apache-2.0
"""Methods to compare with, which need no training on places.

EfficientNet-Lite0 with GeM pooling is the float network: we know of no wheel on PyPI that contains the weights of a
network trained for place recognition (CosPlace, EigenPlaces, MixVPR and SALAD download theirs at run time).
"""

from __future__ import annotations

from binvpr_ros.lab.evaluation.baselines.bag_of_words import BagOfWords
from binvpr_ros.lab.evaluation.baselines.efficientnet import EfficientNetLite0
from binvpr_ros.lab.evaluation.baselines.gist import Gist
from binvpr_ros.lab.evaluation.baselines.hog import Hog
from binvpr_ros.lab.evaluation.baselines.words import Words, WordsAndBits
from binvpr_ros.lab.evaluation.methods import Method

BASELINES: dict[str, type[Method]] = {
    method.name: method for method in (Hog, Gist, BagOfWords, Words, WordsAndBits, EfficientNetLite0)
}
"""Every baseline by its name."""
