# SPDX-License-Identifier: Apache-2.0
"""The card beside each model file: what it is, how it was made, and the checksum that ties the two together."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_GRIDS = 16
"""Of cells of a descriptor."""
LARGEST_INPUT = 1 << 16
"""Of the values to which pixels are brought, either sign."""
AS_PIXELS: dict[str, Any] = {"colour": "RGB", "range": [0, 255]}
"""The preprocessing of a model that takes the pixels as they are, uint8."""


class ModelCardError(ValueError):
    """A model's card is missing, unreadable or does not fit; the message says what to do."""


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model file; stored as JSON with these keys.

    `preprocessing` says what the model takes once an image has been resized to `input_size` (see `images.resize`): the
    order of its colours, which is RGB, and the values to which the pixels 0 and 255 are brought. A card without it is
    that of a model whose uint8 input takes the pixels as they are, or whose float32 input takes them from 0 to 1.
    """

    name: str
    network: str
    recipe: str
    training_data: str
    git_revision: str
    input_size: list[int]  # height, width
    descriptor_bits: int
    sha256: str
    command: str = ""
    evaluation: dict[str, Any] = field(default_factory=dict)
    cells: list[list[int]] = field(default_factory=list)  # cells a side and bits of each, grid after grid; or unknown
    noise: float = 0.0  # share of the bits in which two images of one view differ, at most; 0: it was not measured
    preprocessing: dict[str, Any] = field(default_factory=dict)  # as AS_PIXELS, with another range; or not stated

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Return which bits of a descriptor belong to which cell of the image, as `cells.Grids`."""
        return tuple((side, bits) for side, bits in self.cells)

    @property
    def input_range(self) -> tuple[float, float] | None:
        """Values to which the pixels 0 and 255 are brought; None where the card does not state them."""
        if not self.preprocessing:
            return None
        low, high = self.preprocessing["range"]
        return low, high

    @staticmethod
    def path_for(model: Path) -> Path:
        """Return where the card of `model` stands: the same name with .json."""
        return model.with_suffix(".json")

    @classmethod
    def read(cls, model: Path) -> ModelCard:
        """Read the card of `model` and hold it against the file; raises ModelCardError."""
        if not model.is_file():
            raise ModelCardError(f"there is no model file {model}; check the parameter model")
        path = cls.path_for(model)
        advice = "use the pair of files that train_offline wrote"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelCardError(f"{path}, the card of the model, is missing; {advice}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ModelCardError(f"{path}, the card of the model, cannot be read ({error}); {advice}") from None
        known = {item.name: item for item in dataclasses.fields(cls)}
        required = [name for name, item in known.items() if item.default is item.default_factory is dataclasses.MISSING]
        if not isinstance(content, dict) or any(name not in content for name in required):
            raise ModelCardError(f"{path} is not a model card: it lacks one of {', '.join(required)}; {advice}")
        card = cls(**{name: content[name] for name in known if name in content})
        card._check_types(path, advice)
        if card.sha256 != checksum(model):
            raise ModelCardError(f"{path} belongs to another model file than {model} (checksums differ); {advice}")
        return card

    def write(self, model: Path) -> None:
        """Write the card beside `model`."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        self.path_for(model).write_text(text, encoding="utf-8")

    def _check_types(self, path: Path, advice: str) -> None:
        size = self.input_size
        if not _is_pair(size):
            raise ModelCardError(f"{path} has input_size {size!r} instead of [height, width]; {advice}")
        if type(self.descriptor_bits) is not int or self.descriptor_bits < 1:
            raise ModelCardError(f"{path} has descriptor_bits {self.descriptor_bits!r}; {advice}")
        cells = self.cells
        if not (isinstance(cells, list) and len(cells) <= MOST_GRIDS and all(_is_pair(grid) for grid in cells)) or (
            cells and sum(side**2 * bits for side, bits in cells) != self.descriptor_bits
        ):
            raise ModelCardError(f"{path} has cells {self.cells!r}, which are not its descriptor's bits; {advice}")
        if not _is_preprocessing(self.preprocessing):
            raise ModelCardError(
                f"{path} has preprocessing {self.preprocessing!r} instead of "
                f'{{"colour": "RGB", "range": [low, high]}}; upgrade binvpr_ros, or {advice}'
            )
        if type(self.noise) not in (int, float) or not 0 <= self.noise < 0.5:
            raise ModelCardError(f"{path} has noise {self.noise!r}, which is not a share of bits below 0.5; {advice}")
        if not all(isinstance(text, str) for text in (self.name, self.network, self.recipe, self.sha256)):
            raise ModelCardError(f"{path} has an entry of the wrong type; {advice}")


def _is_pair(sizes: Any) -> bool:
    return isinstance(sizes, list) and len(sizes) == 2 and all(type(size) is int and size > 0 for size in sizes)


def _is_preprocessing(stated: Any) -> bool:
    if stated == {}:
        return True
    if not isinstance(stated, dict) or stated.keys() != AS_PIXELS.keys() or stated["colour"] != AS_PIXELS["colour"]:
        return False
    values = stated["range"]
    if not (isinstance(values, list) and len(values) == 2 and all(type(value) in (int, float) for value in values)):
        return False
    return -LARGEST_INPUT <= values[0] < values[1] <= LARGEST_INPUT  # so neither is NaN or infinite


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; raises ModelCardError when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelCardError(f"the model file {path} cannot be read ({error.strerror}); check `model`") from None
