# SPDX-License-Identifier: Apache-2.0
"""Photographs, and what the teacher says of each: asked once, kept in a folder, and mapped from there."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.images import IMAGE_SUFFIXES, Image, ImageError, as_rgb, decode_file, resize
from binvpr_ros.lab.training.local.network import CELL, POSITIONS
from binvpr_ros.lab.training.teacher import TeacherError
from binvpr_ros.local_features.learned import fitted_size

SIDE = 128
"""Pixels a side of a square of a photograph."""
CELLS = SIDE // CELL
CANVAS = 640
"""Pixels a side of the teacher's input."""
A_SIDE = CANVAS // SIDE
SQUARES = A_SIDE**2
"""On a canvas."""
LEVEL, CONTRAST, LEAST_DEVIATION = 0.5, 0.2, 5 / 255
"""Mean and deviation of each square on a canvas, of a range of 1: the teacher normalises the canvas as a whole."""
CHANNELS = 64
"""Of the teacher's descriptors."""
NOTE_EVERY = 40
"""Canvases after which it is noted how far the teacher was asked."""


Chosen = NDArray[np.int64]
"""Which squares of a Taught."""


class Square(NamedTuple):
    """The square at a row and a column of a photograph, as `_grid` divides it."""

    path: Path
    row: int
    column: int


@dataclass(frozen=True)
class Taught:
    """Squares of photographs [N,128,128,3] uint8 RGB, and the teacher's maps of them, in cells of 8x8 pixels.

    `photographs` [N] int32 numbers what they are squares of, `folders` [N] int32 where those are from, which shows one
    kind of scene. `descriptors`
    [N,16,16,64] int8, each of any length. `keypoints` [N,16,16,64] uint8: square roots of the
    probabilities of the positions in a cell, row by row, of 255. `reliability` [N,16,16] uint8, of 255.
    """

    images: NDArray[np.uint8]
    descriptors: NDArray[np.int8]
    keypoints: NDArray[np.uint8]
    reliability: NDArray[np.uint8]
    photographs: NDArray[np.int32]
    folders: NDArray[np.int32]
    source: str  # checksum of the teacher and of the list of squares

    def split(self, held_out: int) -> tuple[Chosen, Chosen]:
        """Return the squares to train with, and those held out: all squares of the photographs of the last `held_out`.

        Other squares of a photograph that was trained with are not new to the network.
        """
        held = np.isin(self.photographs, self.photographs[-held_out:])
        return np.flatnonzero(~held), np.flatnonzero(held)


def squares(folder: Path, most: int, seed: int) -> list[Square]:
    """Return squares of the photographs below `folder`, `most` at the most, in a random order; raises TeacherError.

    A small photograph is one square, its middle. A larger one is brought to the size in which the node describes
    images, and divided.
    """
    found: list[Square] = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        try:
            with PIL.Image.open(path) as photograph:
                width, height = photograph.size
        except (OSError, PIL.Image.DecompressionBombError) as error:
            raise TeacherError(f"{path} cannot be read ({error}); remove it") from None
        rows, columns = _grid(height, width)
        found += [Square(path, row, column) for row in range(rows) for column in range(columns)]
    order = np.random.default_rng(seed).permutation(len(found))[: most or None]
    chosen = [found[number] for number in order[: len(order) // SQUARES * SQUARES]]
    if not chosen:
        raise TeacherError(f"{folder} gives {len(found)} squares, but at least {SQUARES} are needed; add photographs")
    return chosen


def _grid(height: int, width: int) -> tuple[int, int]:
    """Return into how many rows and columns of squares a photograph of so many pixels is divided."""
    height, width = fitted_size(height, width, 1)
    if min(height, width) < 2 * SIDE:
        return 1, 1
    return height // SIDE, width // SIDE


def ask(asked: list[Square], teacher: Path, folder: Path) -> Taught:
    """Return what the teacher (an ONNX file with XFeat's interface) says of squares, whose number fills canvases.

    It is kept in `folder`; what is there already of the same squares and teacher is not asked again, also where an
    earlier call was interrupted. Raises TeacherError.
    """
    source = _checksum(asked, teacher)
    arrays, done = _open(folder, source, len(asked))
    if done < len(asked):
        run = _session(teacher)
        starts = range(done, len(asked), SQUARES)
        for start in tqdm(starts, desc="teacher", unit="canvas", file=sys.stderr, mininterval=5):
            shown = [_read(square) for square in asked[start : start + SQUARES]]
            _teach(run, shown, *(array[start : start + SQUARES] for array in arrays))
            if (start // SQUARES + 1) % NOTE_EVERY == 0:
                _note(folder, source, start + SQUARES, arrays)
        _note(folder, source, len(asked), arrays)
    photographs = _numbered([str(square.path) for square in asked])
    folders = _numbered([str(square.path.parent) for square in asked])
    images, descriptors, keypoints, reliability = arrays
    return Taught(images, descriptors, keypoints, reliability, photographs, folders, source)


def _numbered(names: list[str]) -> NDArray[np.int32]:
    return np.unique(names, return_inverse=True)[1].astype(np.int32)


def _checksum(asked: list[Square], teacher: Path) -> str:
    try:
        digest = hashlib.sha256(teacher.read_bytes())
    except OSError as error:
        raise TeacherError(f"the teacher {teacher} cannot be read ({error.strerror}); check --teacher") from None
    names = (f"{square.path.parent.name}/{square.path.name} {square.row} {square.column}" for square in asked)
    digest.update("\n".join(names).encode())
    return digest.hexdigest()


def _open(folder: Path, source: str, count: int) -> tuple[list[NDArray[Any]], int]:
    """Return images, descriptors, keypoints and reliability of `count` squares, mapped, and how many are done."""
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
        raise TeacherError(f"{teacher} is not a teacher ({str(error).splitlines()[0]}); give an ONNX file") from None
    side = CANVAS // CELL
    maps = [(1, channels, side, side) for channels in (CHANNELS, POSITIONS + 1, 1)]
    if shapes != [(1, 3, CANVAS, CANVAS), *maps]:
        raise TeacherError(f"{teacher} has other inputs and outputs than XFeat at {CANVAS}x{CANVAS}: {shapes}")
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})


def _read(square: Square) -> Image:
    """Return a square [128,128,3] RGB of a photograph; raises TeacherError."""
    try:
        image = as_rgb(decode_file(square.path.read_bytes()))
    except (OSError, ImageError) as error:
        raise TeacherError(f"{square.path} cannot be read ({error}); remove it") from None
    rows, columns = _grid(*image.shape[:2])
    if (rows, columns) == (1, 1):
        side = min(image.shape[:2])
        image = _cut(image, (image.shape[0] - side) // 2, (image.shape[1] - side) // 2, side)
        shrunk: Image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return shrunk
    height, width = fitted_size(image.shape[0], image.shape[1], 1)
    top, left = _spread(square.row, rows, height), _spread(square.column, columns, width)
    return _cut(resize(image, (width, height)), top, left, SIDE)


def _spread(number: int, of: int, length: int) -> int:
    """Return where a square begins that is one `of` so many along `length` pixels, evenly spread."""
    return round((length - SIDE) * number / (of - 1)) if of > 1 else (length - SIDE) // 2


def _cut(image: Image, top: int, left: int, side: int) -> Image:
    return image[top : top + side, left : left + side]


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
    """Return where on the canvas, or on its map, a square is."""
    row, column = divmod(number, A_SIDE)
    return slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)


def stand_in(images: NDArray[np.uint8], seed: int = 0) -> Taught:
    """Return squares [N,128,128,3] as if a teacher had seen them; to try things without one, nothing is learnt.

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
    photographs = np.arange(len(images), dtype=np.int32)
    return Taught(images, descriptors, keypoints, reliability, photographs, np.zeros_like(photographs), "stand-in")


def _in_cells(map_: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map [128,128] cell by cell: [16,16,64]."""
    return map_.reshape(CELLS, CELL, CELLS, CELL).transpose(0, 2, 1, 3).reshape(CELLS, CELLS, POSITIONS)
