# SPDX-License-Identifier: Apache-2.0
"""A drive through the recognizer, told to a View image by image."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.lab.evaluation.datasets.sequences import ImageSequence, PosedSequence, Relation
from binvpr_ros.lab.view import CLOSED, Place, View
from binvpr_ros.loop_closure import LoopClosure
from binvpr_ros.pictures import Side, match_picture
from binvpr_ros.recognizer import PlaceRecognizer, Recognition


class ViewedDrive:
    """Tells a view what the recognizer makes of each image of a drive, and the truth about its closures."""

    def __init__(self, view: View, sequence: ImageSequence, places: NDArray[np.float64] | None) -> None:
        self._view, self._sequence, self._places = view, sequence, places
        self._index_at = {int(stamp): index for index, stamp in enumerate(sequence.stamps)}
        self._counts: Counter[str] = Counter()

    @classmethod
    @contextlib.contextmanager
    def open(cls, sequence: ImageSequence, viewer: bool, file: Path | None) -> Iterator[ViewedDrive]:
        """Open a view of `sequence`, in Rerun's viewer and in a file, and close it at the end; raises ViewError."""
        places, corners = None, None
        if isinstance(sequence, PosedSequence):
            places = _from_above(sequence)
            corners = _place(places.min(axis=0)), _place(places.max(axis=0))
        with View(sequence.name, viewer=viewer, file=file, corners=corners) as view:
            yield cls(view, sequence, places)

    def __call__(self, index: int, recognizer: PlaceRecognizer, recognition: Recognition) -> None:
        """Tell of image `index`."""
        view, sequence, stamp = self._view, self._sequence, int(self._sequence.stamps[index])
        image = sequence.queries[index]
        view.image(stamp, image, None if self._places is None else _place(self._places[index]))
        query, verdict = recognition.keyframe, recognition.verdict
        if query is None:
            return
        for closure in verdict.closures:
            match = closure.match.stamp
            (relation,) = sequence.relations(np.array([index]), np.array([self._index_at[match]])).tolist()
            view.closure(stamp, match, closure.score, Relation(relation))
        judged = verdict.best or verdict.refused[0]
        if isinstance(judged, LoopClosure):
            self._counts[CLOSED] += 1
        else:
            self._counts[judged.reason.value] += 1
            if judged.match is not None:
                view.refusal(stamp, judged.reason, judged.score)
        view.outcomes(stamp, self._counts)
        if judged.match is not None:
            theirs = recognizer.database.features(judged.match)
            sides = (
                Side(query, image, query.features),
                Side(judged.match, sequence.queries[self._index_at[judged.match.stamp]], theirs),
            )
            picture = match_picture(*sides, judged, recognizer.config, recognizer.camera, recognizer.camera)
            view.picture(stamp, picture, isinstance(judged, LoopClosure))


def _from_above(sequence: PosedSequence) -> NDArray[np.float64]:
    """Return where the camera was at each image [N,2], seen along the axis that it moves least in, y downwards."""
    across, up = sorted(np.argsort(-np.ptp(sequence.positions, axis=0), kind="stable")[:2])
    return sequence.positions[:, [across, up]] * (1, -1)


def _place(coordinates: NDArray[np.float64]) -> Place:
    x, y = coordinates.tolist()
    return x, y
