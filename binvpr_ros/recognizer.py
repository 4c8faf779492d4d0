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
from binvpr_ros.keyframes import Keyframe, KeyframePolicy
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.features import Features
from binvpr_ros.local_features.orb import extract
from binvpr_ros.loop_closure import LoopCloser, Refusal, Refused, Verdict
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.network.descriptor import Description, DescriptorNetwork
from binvpr_ros.stamps import Stamps

NO_DECISION = Verdict()


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
        self.network = network or DescriptorNetwork(
            model_path(config), config.backend, config.threads, config.untried_runtime
        )
        path = Path(config.database) if config.database else None
        earlier = [Path(name) for name in config.maps if name]
        card = self.network.card
        self.database = KeyframeDatabase(path, card.sha256, self.network.words, earlier, card.grids)
        self._policy = KeyframePolicy()
        self._closer = closer or LoopCloser()
        self._stamps = Stamps()
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
        Raises StampError for an image whose stamp does not follow (stamps.py); a leap back (a bag that loops) begins a
        session.
        """
        config = self.config
        descriptor, contrast = description
        with self._lock:
            new_session = self._stamps.advance(stamp, config.exclusion_time, config.keyframe_source == "topic")
            if new_session:
                self.database.new_session()
                self._start_anew()
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
        """Return the local features and the thumbnail (a small jpeg file) of a keyframe; None for what is missing."""
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
            self._stamps = Stamps()
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

    def _start_anew(self) -> None:
        self._policy = KeyframePolicy()
        self._closer.forget()
