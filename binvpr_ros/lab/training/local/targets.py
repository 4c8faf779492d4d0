# SPDX-License-Identifier: Apache-2.0
"""Photographs, and what the teacher says of each: asked once, kept in a folder, and mapped from there."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.images import IMAGE_SUFFIXES, Image, ImageError, as_rgb, decode_file
from binvpr_ros.lab.training.local.network import CELL, POSITIONS
from binvpr_ros.lab.training.teacher import TeacherError

SIDE = 128
"""Pixels a side of a photograph."""
CELLS = SIDE // CELL
CANVAS = 640
"""Pixels a side of the teacher's input."""
A_SIDE = CANVAS // SIDE
PHOTOGRAPHS = A_SIDE**2
"""On a canvas."""
LEVEL, CONTRAST, LEAST_DEVIATION = 0.5, 0.2, 5 / 255
"""Mean and deviation of each photograph on a canvas, of a range of 1: the teacher normalises the canvas as a whole."""
CHANNELS = 64
"""Of the teacher's descriptors."""
NOTE_EVERY = 40
"""Canvases after which it is noted how far the teacher was asked."""


@dataclass(frozen=True)
class Taught:
    """Photographs [N,128,128,3] uint8 RGB, and the teacher's maps of them, in cells of 8x8 pixels.

    `descriptors` [N,16,16,64] int8, each of any length. `keypoints` [N,16,16,64] uint8: square roots of the
    probabilities of the positions in a cell, row by row, of 255. `reliability` [N,16,16] uint8, of 255.
    """

    images: NDArray[np.uint8]
    descriptors: NDArray[np.int8]
    keypoints: NDArray[np.uint8]
    reliability: NDArray[np.uint8]
    source: str  # checksum of the teacher and of the list of photographs

    def split(self, held_out: int) -> tuple[Taught, Taught]:
        """Return all but the last `held_out` photographs, and those."""
        return self._part(slice(None, -held_out)), self._part(slice(-held_out, None))

    def _part(self, part: slice) -> Taught:
        arrays = (self.images[part], self.descriptors[part], self.keypoints[part], self.reliability[part])
        return Taught(*arrays, self.source)


def photographs(folder: Path, most: int, seed: int) -> list[Path]:
    """Return image files below `folder`, `most` at the most, in a random order; raises TeacherError."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    order = np.random.default_rng(seed).permutation(len(found))[: most or None]
    chosen = [found[number] for number in order[: len(order) // PHOTOGRAPHS * PHOTOGRAPHS]]
    if not chosen:
        raise TeacherError(f"{folder} holds {len(found)} images, {PHOTOGRAPHS} are needed at least; add photographs")
    return chosen


def ask(files: list[Path], teacher: Path, folder: Path) -> Taught:
    """Return what the teacher (an ONNX file with XFeat's interface) says of photographs, whose number fills canvases.

    It is kept in `folder`; what is there already of the same files and teacher is not asked again, also where an
    earlier call was interrupted. Raises TeacherError.
    """
    source = _checksum(files, teacher)
    arrays, done = _open(folder, source, len(files))
    if done < len(files):
        run = _session(teacher)
        starts = range(done, len(files), PHOTOGRAPHS)
        for start in tqdm(starts, desc="teacher", unit="canvas", file=sys.stderr, mininterval=5):
            shown = list(_read(files[start : start + PHOTOGRAPHS]))
            _teach(run, shown, *(array[start : start + PHOTOGRAPHS] for array in arrays))
            if (start // PHOTOGRAPHS + 1) % NOTE_EVERY == 0:
                _note(folder, source, start + PHOTOGRAPHS, arrays)
        _note(folder, source, len(files), arrays)
    images, descriptors, keypoints, reliability = arrays
    return Taught(images, descriptors, keypoints, reliability, source)


def _checksum(files: list[Path], teacher: Path) -> str:
    try:
        digest = hashlib.sha256(teacher.read_bytes())
    except OSError as error:
        raise TeacherError(f"the teacher {teacher} cannot be read ({error.strerror}); check --teacher") from None
    digest.update("\n".join(f"{path.parent.name}/{path.name}" for path in files).encode())
    return digest.hexdigest()


def _open(folder: Path, source: str, count: int) -> tuple[list[NDArray[Any]], int]:
    """Return images, descriptors, keypoints and reliability of `count` photographs, mapped, and how many are done."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {
        "images": ((count, SIDE, SIDE, 3), np.uint8), "descriptors": ((count, CELLS, CELLS, CHANNELS), np.int8),
        "keypoints": ((count, CELLS, CELLS, POSITIONS), np.uint8), "reliability": ((count, CELLS, CELLS), np.uint8),
    }  # fmt: skip
    try:
        progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        done = int(progress["done"]) if progress["source"] == source else 0
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r+", allow_pickle=False) for name in shapes]
        if done and [(array.shape, array.dtype) for array in arrays] == list(shapes.values()):
            return arrays, done
    except (OSError, ValueError, KeyError, TypeError):
        pass
    (folder / "progress.json").unlink(missing_ok=True)
    arrays = [
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype(kind), shape)
        for name, (shape, kind) in shapes.items()
    ]
    return arrays, 0


def _note(folder: Path, source: str, done: int, arrays: list[NDArray[Any]]) -> None:
    for array in arrays:
        if isinstance(array, np.memmap):
            array.flush()
    part = folder / "progress.part"
    part.write_text(json.dumps({"source": source, "done": done}), encoding="utf-8")
    part.replace(folder / "progress.json")


def _session(teacher: Path) -> Any:
    """Return the teacher as a function of an image [1,3,640,640] float32 to a list of maps; raises TeacherError."""
    try:
        import onnxruntime
    except ImportError:
        raise TeacherError("a teacher needs onnxruntime; run: pip install '.[training]'") from None
    try:
        session = onnxruntime.InferenceSession(str(teacher), providers=["CPUExecutionProvider"])
        shapes = [tuple(entry.shape) for entry in (*session.get_inputs(), *session.get_outputs())]
    except Exception as error:  # noqa: BLE001  whatever the runtime raises is derived from nothing else
        raise TeacherError(f"{teacher} is no teacher ({str(error).splitlines()[0]}); give an ONNX file") from None
    side = CANVAS // CELL
    maps = [(1, channels, side, side) for channels in (CHANNELS, POSITIONS + 1, 1)]
    if shapes != [(1, 3, CANVAS, CANVAS), *maps]:
        raise TeacherError(f"{teacher} has other inputs and outputs than XFeat at {CANVAS}x{CANVAS}: {shapes}")
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})


def _read(files: list[Path]) -> Iterator[Image]:
    """Yield photographs [128,128,3] RGB: the middle square of each."""
    for path in files:
        try:
            image = as_rgb(decode_file(path.read_bytes()))
        except (OSError, ImageError) as error:
            raise TeacherError(f"{path} cannot be read ({error}); remove it") from None
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = image[top : top + side, left : left + side]
        shrunk: Image = cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        yield shrunk


def _teach(run: Any, images: list[Image], *arrays: NDArray[Any]) -> None:
    """Fill in the images and the teacher's maps of one canvas of them."""
    canvas = np.full((CANVAS, CANVAS), LEVEL, np.float32)
    for number, image in enumerate(images):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        canvas[_square(number, SIDE)] = (grey - grey.mean()) / (grey.std() + LEAST_DEVIATION) * CONTRAST + LEVEL
    descriptors, logits, reliability = run(np.repeat(canvas[None, None], 3, axis=1))
    descriptors = descriptors[0].transpose(1, 2, 0)
    descriptors = np.rint(descriptors / (np.abs(descriptors).max(axis=2, keepdims=True) + 1e-9) * 127)
    likely = np.exp(logits[0] - logits[0].max(axis=0))
    likely = (likely / likely.sum(axis=0))[:POSITIONS].transpose(1, 2, 0)
    for number, image in enumerate(images):
        cells = _square(number, CELLS)
        arrays[0][number] = image
        arrays[1][number] = descriptors[cells]
        arrays[2][number] = np.rint(np.sqrt(likely[cells]) * 255)
        arrays[3][number] = np.rint(np.clip(reliability[0, 0][cells], 0, 1) * 255)


def _square(number: int, side: int) -> tuple[slice, slice]:
    """Return where on the canvas, or on its map, a photograph is."""
    row, column = divmod(number, A_SIDE)
    return slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)


def stand_in(images: NDArray[np.uint8], seed: int = 0) -> Taught:
    """Return photographs [N,128,128,3] as if a teacher had seen them; to try things without one, nothing is learnt.

    A descriptor is a random projection of its cell, and keypoints are corners (Shi and Tomasi).
    """
    projection = np.random.default_rng(seed).standard_normal((POSITIONS, CHANNELS))
    arrays: list[list[NDArray[Any]]] = [[], [], []]
    for image in images:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        patches, corners = _in_cells(grey), _in_cells(cv2.cornerMinEigenVal(grey, 3))
        contrast = patches.std(axis=2)
        descriptors = (patches - patches.mean(axis=2, keepdims=True)) @ projection
        descriptors /= np.abs(descriptors).max(axis=2, keepdims=True) + 1e-9
        likely = corners / (corners.sum(axis=2, keepdims=True) + corners.mean() + 1e-9)
        arrays[0].append(np.rint(descriptors * 127).astype(np.int8))
        arrays[1].append(np.rint(np.sqrt(np.clip(likely, 0, 1)) * 255).astype(np.uint8))
        arrays[2].append(np.rint(255 * contrast / (contrast + 10)).astype(np.uint8))
    descriptors, keypoints, reliability = (np.stack(array) for array in arrays)
    return Taught(images, descriptors, keypoints, reliability, "stand-in")


def _in_cells(map_: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map [128,128] cell by cell: [16,16,64]."""
    return map_.reshape(CELLS, CELL, CELLS, CELL).transpose(0, 2, 1, 3).reshape(CELLS, CELLS, POSITIONS)
