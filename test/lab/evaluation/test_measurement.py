# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation import measurement
from binvpr_ros.lab.evaluation.datasets import Options, PosedSequence
from binvpr_ros.lab.evaluation.measurement import Comparison, describe
from binvpr_ros.lab.evaluation.methods import Method, MethodError

from .stages import NoImages

TWO_GIGABYTES = 2_000_000  # kilobytes
COUNT = 30_000


class Tiny(Method):
    """Four numbers of an image."""

    name = "tiny"
    descriptor_bits = 128

    def describe(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return image[0, :4].astype(np.float32) - 128


class Nothing(Tiny):
    """A method that fails."""

    def describe(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return super().describe(image) * np.float32(np.nan)


def long_drive(count: int) -> PosedSequence:
    """Return a drive that goes round every hundred seconds and stands for its last quarter."""
    angles = np.minimum(np.arange(count), count * 3 // 4) * (2 * np.pi / 1000)
    positions = np.column_stack([50 * np.cos(angles), 50 * np.sin(angles), 0 * angles])
    rotations = np.tile(np.eye(3), (count, 1, 1))
    stamps = (np.arange(count) * 1e8).astype(np.int64)
    return PosedSequence.from_poses(
        "long", NoImages(count), stamps, positions, rotations, Options(), optical=True, left_out={}
    )


def measure(pictures: Path) -> None:
    """Measure one method on COUNT images, and print the most memory that took, in kilobytes."""
    import resource

    comparison = Comparison(long_drive(COUNT), pictures=pictures)
    comparison.measure(Tiny())
    comparison.finish()
    (result,) = comparison.results
    assert result.figures["answerable_queries"] > COUNT / 2
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_thirty_thousand_images_are_measured_within_two_gigabytes(tmp_path: Path) -> None:
    code = "from evaluation import test_measurement as t; import pathlib, sys; t.measure(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, timeout=800,
        cwd=Path(__file__).resolve().parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < TWO_GIGABYTES
    assert (tmp_path / "long_tiny_similarity.png").is_file()


def test_too_many_images_for_the_memory_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "MOST_DESCRIPTION_BYTES", 1000)
    with pytest.raises(MethodError, match=r"its descriptions of 100 images do not fit; take 62 images at most"):
        describe(Tiny(), NoImages(100), "tiny")


def test_a_method_that_gives_no_numbers_is_named_with_the_image() -> None:
    with pytest.raises(MethodError, match=r"tiny returns NaN or infinity for image 0; leave out this method"):
        describe(Nothing(), NoImages(3), "tiny")
