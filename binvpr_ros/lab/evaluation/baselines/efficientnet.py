# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 as ImageNet left it, pooled: what a network of real numbers gives that has seen no places."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.images import Image, as_rgb, resize
from binvpr_ros.lab.evaluation.methods import FLOAT_BITS, Method, MethodError


class EfficientNetLite0(Method):
    """The last feature map of EfficientNet-Lite0 at 224x224, pooled by GeM (Radenovic et al., TPAMI 2019, equation 3).

    Needs Keras and the weights; raises MethodError where they are not installed.
    """

    name = "efficientnet-lite0"
    descriptor_bits = 1280 * FLOAT_BITS

    def __init__(self) -> None:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            import keras  # noqa: F401
        except ImportError:
            raise MethodError(
                f"{self.name} needs Keras and its weights; run, in a checkout: pip install '.[training,baselines]'"
            ) from None
        from binvpr_ros.lab.training import efficientnet_lite0

        self._lite0 = efficientnet_lite0
        try:
            self._network = efficientnet_lite0.efficientnet_lite0(efficientnet_lite0.SIDE)
        except efficientnet_lite0.WeightsError as error:
            raise MethodError(str(error)) from None

    def describe(self, image: Image) -> NDArray[np.float32]:
        """Return the pooled features [1280] float32 of a uint8 image, [H,W,3] RGB or [H,W] grey."""
        small = as_rgb(resize(image, (self._lite0.SIDE, self._lite0.SIDE)))
        return self._lite0.pooled_features(self._network, small[np.newaxis])[0]
