# SPDX-License-Identifier: Apache-2.0
"""Methods to compare with, which need no training on places."""

from __future__ import annotations

from binvpr_ros.evaluation.baselines.bag_of_words import BagOfWords
from binvpr_ros.evaluation.baselines.efficientnet import EfficientNetLite0
from binvpr_ros.evaluation.baselines.gist import Gist
from binvpr_ros.evaluation.baselines.hog import Hog
from binvpr_ros.evaluation.methods import Method

BASELINES: dict[str, type[Method]] = {method.name: method for method in (Hog, Gist, BagOfWords, EfficientNetLite0)}
"""Every baseline by its name."""
