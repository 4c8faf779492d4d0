# SPDX-License-Identifier: Apache-2.0
"""PlaceRecognizer.process(image, stamp): the pipeline, readable as its steps."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from binvpr_ros.config import Config, model_path
from binvpr_ros.images import Image, thumbnail
from binvpr_ros.keyframes import NANOSECONDS, Keyframe, KeyframePolicy
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features
from binvpr_ros.local_features.orb import extract
from binvpr_ros.loop_closure import LoopCloser, Refusal, Refused, Verdict
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.network.descriptor import Description, DescriptorNetwork

NO_DECISION = Verdict()
SHORTEST_LEAP = 1.0
"""Seconds by which a stamp must be off before time is thought to have leapt."""
LEAP_INTERVALS = 5
"""Intervals between the last two images by which it must be ahead, too: they may come seldom."""


class StampError(ValueError):
    """An image's stamp does not follow that of the image before."""


@dataclass(frozen=True)
class Recognition:
    """What became of one image: a keyframe or None, and the verdict over its matches."""

    keyframe: Keyframe | None
    verdict: Verdict
    new_session: bool = False
    failure: str = ""  # why the keyframe is in memory alone, though there is a map file


class PlaceRecognizer:
    """Recognises places in a stream of images. One thread processes; the other methods may be called from any.

    `network` takes the place of the model that `config` names, and `closer` that of a new one. `camera` is the one that
    takes the images, None while its calibration is not known. Raises ModelCardError, DescriptorError, DatabaseError or
    ConfigError when it cannot start.
    """

    def __init__(
        self, config: Config, network: DescriptorNetwork | None = None, closer: LoopCloser | None = None
    ) -> None:
        self.config = config
        self.camera: Camera | None = None
        self.network = network or DescriptorNetwork(model_path(config), config.backend, config.threads)
        path = Path(config.database) if config.database else None
        earlier = [Path(name) for name in config.maps if name]
        card = self.network.card
        self.database = KeyframeDatabase(path, card.sha256, self.network.words, earlier, card.grids)
        self._policy = KeyframePolicy()
        self._closer = closer or LoopCloser()
        self._last_stamp: int | None = None
        self._interval = 0  # nanoseconds between the last two images
        self._leapt_to: int | None = None
        self._late: tuple[int, int] | None = None  # the first and the last stamp of images in a row that are too early
        self._lock = threading.Lock()

    def process(self, image: Image, stamp: int) -> Recognition:
        """Recognise the place in `image` (uint8, [H,W,3] RGB or [H,W] grey), taken at `stamp` (nanoseconds).

        Raises StampError, as `recognize` does.
        """
        return self.recognize(self.network.describe(image), stamp, lambda: extract(image), lambda: thumbnail(image))

    def recognize(
        self,
        description: Description,
        stamp: int,
        features: Callable[[], Features | None] = lambda: None,
        picture: Callable[[], bytes | None] = lambda: None,
    ) -> Recognition:
        """Recognise the place of an image that the network has described, taken at `stamp` (nanoseconds).

        It becomes a keyframe if it differs enough, or where a back end chooses the images in any case, unless it has no
        contrast. `features` finds its local features, `picture` makes its thumbnail; each is called where it is wanted.
        Raises StampError for an image whose stamp does not advance, or leaps by more than the exclusion window (ahead,
        by LEAP_INTERVALS intervals of the images too). That the time has leapt is believed when a second image is
        nearer to the new time than to the old one; where a back end's keyframe leaps ahead, at once; a leap back within
        the window when SHORTEST_LEAP has gone by in order since. A leap back (a bag that loops) begins a session.
        """
        config = self.config
        descriptor, contrast = description
        with self._lock:
            new_session = self._advance_to(stamp, config)
            if contrast < config.min_contrast:
                return Recognition(None, Verdict(refused=[Refused(Refusal.FEATURELESS)]), new_session)
            if config.keyframe_source == "images" and not self._policy.wants(stamp, descriptor, config):
                return Recognition(None, NO_DECISION, new_session)
            query = self.database.next_keyframe(
                stamp,
                descriptor,
                features() if config.verify else None,
                picture() if config.thumbnails else None,
            )
            verdict = self._closer.decide(query, self.database, config, self.camera)
            if verdict.closures:
                query = dataclasses.replace(query, closes=verdict.closures[0].match.id)
            failure = ""
            try:
                self.database.add(query, forgotten=self.database.redundant(config))
            except DatabaseError as error:
                failure = str(error)
            self._policy.accept(query)
        return Recognition(query, verdict, new_session, failure)

    def kept_of(self, keyframe: Keyframe) -> tuple[Features | None, bytes | None]:
        """Return the local features and the thumbnail (a small jpeg file) of a keyframe of the map, None where missing."""
        with self._lock:
            return self.database.features(keyframe), self.database.thumbnail(keyframe)

    def save(self) -> str:
        """Bring the map into its one file; return a sentence about it, or raise DatabaseError."""
        with self._lock:
            return self.database.save()

    def reset(self) -> str:
        """Begin a new session that is not matched against what came before; return a sentence about it."""
        with self._lock:
            self.database.reset()
            self._start_anew()
            return f"session {self.database.session} begins; earlier keyframes are kept and no longer matched"

    def reload(self) -> str:
        """Match against all sessions again; return a sentence about it."""
        with self._lock:
            self.database.reload()
            return f"{len(self.database)} keyframes are matched"

    def close(self) -> None:
        """Close the map."""
        with self._lock:
            self.database.close()

    def _advance_to(self, stamp: int, config: Config) -> bool:
        """Take `stamp` as the present; return True where it begins a new session."""
        last, leapt_to = self._last_stamp, self._leapt_to
        if last is None:
            self._last_stamp = stamp
            return False
        window = round(max(config.exclusion_time, SHORTEST_LEAP) * NANOSECONDS)
        chosen = config.keyframe_source == "topic" and stamp > last  # a back end has taken this stamp for a keyframe's
        new_session = False
        if not chosen and not 0 < stamp - last <= max(window, LEAP_INTERVALS * self._interval):
            if abs(stamp - last) <= window:
                # An image that comes late says nothing, images that go on from there that the time does.
                first, leapt_to = self._late if self._late and stamp > self._late[1] else (stamp, stamp)
                self._late = first, stamp
                if stamp - first < round(SHORTEST_LEAP * NANOSECONDS):
                    raise StampError(f"its stamp ({stamp / NANOSECONDS:.3f} s) is not later than the last image's")
            elif leapt_to is None or not 0 < stamp - leapt_to < abs(stamp - last):
                self._leapt_to = stamp
                raise StampError(f"its stamp leaps by {(stamp - last) / NANOSECONDS:.3f} s")
            new_session = stamp < last
            if new_session:
                self.database.new_session()
                self._start_anew()
            last = leapt_to
        self._last_stamp, self._interval = stamp, stamp - last
        self._leapt_to = self._late = None
        return new_session

    def _start_anew(self) -> None:
        self._policy = KeyframePolicy()
        self._closer.forget()
        self._last_stamp = None
        self._interval = 0
        self._leapt_to = self._late = None
