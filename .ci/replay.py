# SPDX-License-Identifier: Apache-2.0
"""Recognise places in a folder of images without ROS; print the keyframes and the loop closures as JSON.

Two machines recognise the same places where they print the same:

    .ci/wheels
    .venv/bin/python .ci/replay.py FOLDER > here.json
    .ci/aarch64 python .ci/replay.py FOLDER > there.json
    cmp here.json there.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import cv2

from binvpr_ros.config import BACKENDS, Config
from binvpr_ros.keyframes import NANOSECONDS
from binvpr_ros.recognizer import PlaceRecognizer


def main() -> None:
    """Print one line for each keyframe: its image, its descriptor, its closures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of images, taken in the order of their names")
    parser.add_argument("--rate", type=float, default=15.0, help="images a second in the folder (default %(default)s)")
    parser.add_argument("--every", type=int, default=1, help="take only every n-th image (default %(default)s)")
    parser.add_argument("--count", type=int, help="take only so many images (default: all)")
    parser.add_argument("--backend", default="auto", choices=BACKENDS)
    parser.add_argument("--threads", type=int, default=1)
    choices = parser.parse_args()

    # An emulator takes longer than a robot has.
    recognizer = PlaceRecognizer(Config(backend=choices.backend, threads=choices.threads, verification_time=60.0))
    files = sorted(choices.folder.iterdir())[:: choices.every][: choices.count]
    keyframes = closures = 0
    start = time.monotonic()
    for number, file in enumerate(files):
        image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        recognition = recognizer.process(image, round(number * choices.every / choices.rate * NANOSECONDS))
        if recognition.keyframe is None:
            continue
        matches = [
            {"match": closure.match.id, "hamming": closure.hamming, "score": round(closure.score, 6)}
            for closure in recognition.verdict.closures
        ]
        descriptor = recognition.keyframe.descriptor.tobytes().hex()
        print(json.dumps({"image": file.name, "descriptor": descriptor, "closures": matches}))
        keyframes += 1
        closures += len(matches)
    recognizer.close()
    seconds = time.monotonic() - start
    print(
        f"{len(files)} images, {keyframes} keyframes, {closures} loop closures, {seconds / len(files):.3f} s an image",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
