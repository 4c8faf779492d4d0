# SPDX-License-Identifier: Apache-2.0
"""PlaceRecognizer.process(image, stamp): the pipeline, readable as its steps."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from binvpr_ros.config import Config, model_path
from binvpr_ros.database import KeyframeDatabase
from binvpr_ros.descriptor import DescriptorNetwork, Image
from binvpr_ros.keyframes import NANOSECONDS, Keyframe, KeyframePolicy
from binvpr_ros.loop_closure import LoopCloser, Refusal, Refused, Verdict

NO_DECISION = Verdict()


class StampError(ValueError):
    """An image's stamp is not later than that of the image before."""


@dataclass(frozen=True)
class Recognition:
    """What became of one image: a keyframe or None, and the verdict over its matches."""

    keyframe: Keyframe | None
    verdict: Verdict
    new_session: bool = False


class PlaceRecognizer:
    """Recognises places in a stream of images. One thread processes; the other methods may be called from any.

    Raises ModelCardError, DescriptorError, DatabaseError or ConfigError when it cannot start.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.network = DescriptorNetwork(model_path(config), config.backend, config.threads)
        words = self.network.words
        self.database = KeyframeDatabase(
            Path(config.database) if config.database else None, self.network.card.sha256, words
        )
        self._policy = KeyframePolicy()
        self._closer = LoopCloser()
        self._last_stamp: int | None = None
        self._lock = threading.Lock()

    def process(self, image: Image, stamp: int) -> Recognition:
        """Recognise the place in `image` (uint8, [H,W,3] RGB or [H,W] grey), taken at `stamp` (nanoseconds).

        A stamp that jumps back by more than the exclusion window begins a new session (a bag that loops); one that does
        not advance otherwise raises StampError. DatabaseError says that the keyframe could not be written.
        """
        config = self.config
        descriptor, contrast = self.network.describe(image)
        with self._lock:
            new_session = self._advance_to(stamp, config)
            if contrast < config.min_contrast:
                return Recognition(None, Verdict(refused=[Refused(Refusal.FEATURELESS)]), new_session)
            if not self._policy.wants(stamp, descriptor, config):
                return Recognition(None, NO_DECISION, new_session)
            query = self.database.next_keyframe(stamp, descriptor)
            verdict = self._closer.decide(query, self.database, config)
            self.database.add(query)
            self._policy.accept(query)
        return Recognition(query, verdict, new_session)

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
        last, jumped = self._last_stamp, False
        if last is not None and stamp <= last:
            jumped = last - stamp > config.exclusion_time * NANOSECONDS
            if not jumped:
                raise StampError(f"its stamp ({stamp / NANOSECONDS:.3f} s) is not later than the last image's")
            self.database.new_session()
            self._start_anew()
        self._last_stamp = stamp
        return jumped

    def _start_anew(self) -> None:
        self._policy = KeyframePolicy()
        self._closer.forget()
        self._last_stamp = None
