# SPDX-License-Identifier: Apache-2.0
"""PlaceRecognizer.process(image, stamp): the pipeline, readable as its steps."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config, model_path
from binvpr_ros.images import Image, thumbnail
from binvpr_ros.keyframes import KEPT_FEATURES, Keyframe, KeyframePolicy
from binvpr_ros.local_features import orb
from binvpr_ros.local_features.camera import Camera
from binvpr_ros.local_features.depth import DepthImage, why_unusable, with_depths
from binvpr_ros.local_features.features import LEARNED, Features, Tag
from binvpr_ros.local_features.kinds import LocalFeatures, open_local_features
from binvpr_ros.local_features.mask import Mask, read_mask
from binvpr_ros.local_features.pose import relative_pose
from binvpr_ros.loop_closure import LoopCloser, LoopClosure, Refusal, Refused, Verdict
from binvpr_ros.loop_constraint import LoopConstraint, RelativePose
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
from binvpr_ros.maps.source import OtherClosure
from binvpr_ros.maps.store import Columns
from binvpr_ros.network.backends import DescriptorError
from binvpr_ros.network.descriptor import Description, DescriptorNetwork
from binvpr_ros.network.hamming import Descriptor
from binvpr_ros.network.model_card import ModelCardError
from binvpr_ros.odometry import Odometry
from binvpr_ros.stamps import Stamps

NO_DECISION = Verdict()

ABOVE_NOISE = 1.2
"""Of the most by which a model's descriptor changes by the camera's noise alone: what makes a new keyframe."""
USUAL_NOISE = 0.07
"""Share of a descriptor's bits, for models whose cards do not state theirs."""


@dataclass(frozen=True)
class Recognition:
    """What became of one image: a keyframe or None, and the verdict over its matches."""

    keyframe: Keyframe | None
    verdict: Verdict
    new_session: bool = False
    failure: str = ""  # why the keyframe is in memory alone, though there is a map file
    unmatched: str = ""  # why the features of some keyframes that look like it could not be matched
    kept_bytes: int = 0  # by which the map has grown
    depth: DepthImage | None = None  # of the keyframe's image
    without_depth: str = ""  # why the depth image that came is not used
    looked_at: bool = True  # False where it came too soon after another one to become a keyframe

    def constraints(self) -> list[LoopConstraint]:
        """Return the relative poses of the closures, best first, of those whose matches tell one.

        Both images must be of calibrated cameras, surely of these (`of_unsure_calibration`). Their scale is known where
        either has depths enough.
        """
        found = []
        for closure in self.verdict.closures:
            views = closure.views
            if views is None or views.camera is None or views.match_camera is None or not views.sure:
                continue
            ours = views.ours if self.depth is None else with_depths(views.ours, self.depth)
            pose = relative_pose(ours, views.theirs, views.camera, views.match_camera, views.inliers, views.matches)
            if pose is not None:
                found.append(constraint_of(closure, pose))
        return found

    @property
    def of_unsure_calibration(self) -> int:
        """Number of closures without a relative pose since the match may be of a calibration before its map's latest.

        The calibration changed, or the images came before it.
        """
        return sum(
            closure.views is not None and closure.views.camera is not None and not closure.views.sure
            for closure in self.verdict.closures
        )


def constraint_of(closure: LoopClosure, pose: RelativePose) -> LoopConstraint:
    """Return a relative pose with the keyframes that it is between."""
    query, match = closure.query, closure.match
    return LoopConstraint(query.id, match.id, query.session, match.session, query.stamp, match.stamp, pose)


Decided = Callable[[Keyframe, Verdict], None]
"""Is called with a keyframe and its closures as soon as these are known, before its depth is asked for."""
FindDepth = Callable[[], DepthImage | None]
"""Returns the depth image of an image, which it may wait for; None where there is none."""
FindFeatures = Callable[[LocalFeatures, NDArray[np.uint8] | None], Features]
"""Finds the local features of an image, of one kind, where it is visible (`LocalFeatures.extract`)."""


class PlaceRecognizer:
    """Recognises places in a stream of images. One thread processes; the other methods may be called from any.

    `network` and `local_features` take the place of the models that `config` names, and `closer` that of a new one.
    `camera` is the one that takes the images, None while its calibration is not known. Raises ModelCardError,
    DescriptorError, DatabaseError or ConfigError when it cannot start.
    """

    def __init__(
        self,
        config: Config,
        network: DescriptorNetwork | None = None,
        closer: LoopCloser | None = None,
        local_features: LocalFeatures | None = None,
    ) -> None:
        self.camera: Camera | None = None
        self.network = network or DescriptorNetwork(
            model_path(config), config.backend, config.threads, config.untried_runtime
        )
        self.local_features = local_features or open_local_features(
            config.local_features, config.threads, config.untried_runtime
        )
        self.config = config
        self.mask = Mask(read_mask(config.mask))
        path = Path(config.database) if config.database else None
        earlier = [Path(name) for name in config.maps if name]
        card = self.network.card
        self.database = KeyframeDatabase(path, card.sha256, self.network.words, earlier, card.grids)
        self._policy = KeyframePolicy()
        self._closer = closer or LoopCloser()
        self.odometry = Odometry()
        self._stamps = Stamps()
        self._lock = threading.Lock()

    @property
    def config(self) -> Config:
        """The parameters, `keyframe_distance` filled in."""
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        if config.keyframe_distance < 0:
            noise = self.network.card.noise or USUAL_NOISE
            config = config.replace(keyframe_distance=ABOVE_NOISE * noise)
        self._config = config

    def process(
        self,
        image: Image | Callable[[], Image],
        stamp: int,
        depth: FindDepth | None = None,
        decided: Decided | None = None,
    ) -> Recognition:
        """Recognise the place in `image` (uint8, [H,W,3] RGB or [H,W] grey), taken at `stamp` (nanoseconds).

        In its place may stand what decodes it, which is called once, and only where the image is looked at. Raises
        StampError, as `recognize` does.
        """
        pixels = functools.cache(image if callable(image) else lambda: image)
        return self.recognize(
            lambda: self.network.describe(pixels()),
            stamp,
            lambda kind, visible: kind.extract(pixels(), visible),
            lambda: thumbnail(pixels()),
            depth,
            decided,
        )

    def recognize(
        self,
        describe: Callable[[], Description],
        stamp: int,
        features: FindFeatures | None = None,
        picture: Callable[[], bytes | None] = lambda: None,
        depth: FindDepth | None = None,
        decided: Decided | None = None,
    ) -> Recognition:
        """Recognise the place of an image that the network can `describe`, taken at `stamp` (nanoseconds).

        It becomes a keyframe if it differs enough, or where a back end chooses the images in any case, unless it has no
        contrast; where it comes too soon for that, it is not even described. `features` finds its local features,
        `picture` makes its thumbnail, `depth` returns its depth image; each is called where it is wanted. `decided` is
        called once the keyframe is kept, or with `depth` before that, which may have to be waited for. Raises
        StampError for an image whose stamp does not follow (stamps.py); a leap back (a bag that loops) begins a
        session.
        """
        config, camera = self.config, self.camera  # which other threads may set meanwhile
        chosen = config.keyframe_source == "topic"
        with self._lock:
            # Before its stamp counts: an image that cannot be read says nothing about time.
            description = describe() if chosen or not self._policy.too_soon(stamp, config) else None
            new_session = self._stamps.advance(stamp, config.exclusion_time, chosen)
            if new_session:
                self.database.new_session()
                self._start_anew()
            elif description is None:
                return Recognition(None, NO_DECISION, looked_at=False)
            descriptor, contrast = description or describe()
            if contrast < config.min_contrast:
                self._policy.rest(stamp)
                self._closer.lose_sight()
                return Recognition(None, Verdict(refused=[Refused(Refusal.FEATURELESS)]), new_session)
            if not chosen and not self._policy.wants(stamp, descriptor, config):
                return Recognition(None, NO_DECISION, new_session)
            recognition = self._keep(stamp, descriptor, config, camera, features, picture, depth, decided)
            return dataclasses.replace(recognition, new_session=new_session)

    def _keep(
        self,
        stamp: int,
        descriptor: Descriptor,
        config: Config,
        camera: Camera | None,
        features: FindFeatures | None,
        picture: Callable[[], bytes | None],
        depth: FindDepth | None,
        decided: Decided | None,
    ) -> Recognition:
        """Make an image a keyframe: decide over its matches, and keep it; the lock is held."""
        own = None
        if config.verify and features:
            own = self.mask.features(functools.partial(features, self.local_features))
        query = self.database.next_keyframe(stamp, descriptor, own, picture() if config.thumbnails else None)
        others = _OtherKinds(self._kind_of, own, features, self.mask)
        query = dataclasses.replace(query, whereabouts=self.odometry.at(stamp))
        query = self._closer.follow(query, camera)
        verdict = self._closer.decide(query, self.database, config, camera, others.like)
        if verdict.closures:
            query = dataclasses.replace(query, closes=verdict.closures[0].match.id)
        if decided and depth is not None:
            decided(query, verdict)
        measured, without_depth = None, ""
        if own is not None and depth is not None:
            own, measured, without_depth = _measured(own, depth)
            query = dataclasses.replace(query, features=own)
        failure, remembered = "", kept(query)
        try:
            self.database.add(remembered, self.database.redundant(config), camera)
        except DatabaseError as error:
            failure = str(error)
        if decided and depth is None:
            decided(query, verdict)
        self._policy.accept(query)
        size = remembered.nbytes
        return Recognition(query, verdict, False, failure, others.unmatched, size, measured, without_depth)

    def kept_of(self, keyframe: Keyframe) -> tuple[Features | None, bytes | None, Camera | None]:
        """Return a keyframe's local features, thumbnail (a small jpeg file) and camera; None for what is not known."""
        with self._lock:
            database = self.database
            return database.features(keyframe), database.thumbnail(keyframe), database.camera_of(keyframe)

    def matched_before(self, number: int) -> tuple[Columns, slice]:
        """Return a copy of all keyframes, and which of them are matched with the one of this id."""
        with self._lock:
            return self.database.matched_before(number)

    def remember(self, closure: OtherClosure) -> None:
        """Keep a closure with a map of the fleet, by the ids of the map files; raises DatabaseError."""
        with self._lock:
            self.database.remember(closure)

    def renew(self) -> None:
        """Give the map a new uuid, since another one goes by the one that it had; raises DatabaseError."""
        with self._lock:
            self.database.renew()

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

    def _kind_of(self, tag: Tag) -> LocalFeatures | None:
        """Return what finds features of a tag; None where that is not to be had."""
        kinds = [self.local_features, orb]
        if tag[0] == LEARNED and tag != self.local_features.tag:
            kinds += self._packaged
        return next((kind for kind in kinds if kind.tag == tag), None)

    @functools.cached_property
    def _packaged(self) -> list[LocalFeatures]:
        """The packaged network for local features, which is read where a map was made with it; or none."""
        try:
            return [open_local_features("learned", self.config.threads, self.config.untried_runtime)]
        except (ModelCardError, DescriptorError):
            return []

    def _start_anew(self) -> None:
        self._policy = KeyframePolicy()
        self._closer.forget()


class _OtherKinds:
    """The features of an image of other kinds than the node's own, which maps of earlier drives may hold."""

    def __init__(
        self,
        kind_of: Callable[[Tag], LocalFeatures | None],
        own: Features | None,
        find: FindFeatures | None,
        mask: Mask,
    ) -> None:
        self._kind_of, self._find, self._mask = kind_of, find, mask
        self._found = {} if own is None else {own.tag: own}
        self.unmatched = ""

    def like(self, theirs: Features) -> Features | None:
        """Return the image's features that can be matched with a keyframe's; None, and why, where there are none."""
        if not self._found or self._find is None:
            return None
        if theirs.tag not in self._found:
            kind = self._kind_of(theirs.tag)
            if kind is None:
                model = "another network" if theirs.tag[0] == LEARNED else "a kind that this version does not know"
                self.unmatched = (
                    f"keyframes of the map have local features of {model}, so nothing verifies there; name its file "
                    "as local_features, or make them anew with: map redescribe"
                )
                return None
            self._found[theirs.tag] = self._find(kind, self._mask.visible)
        return self._found[theirs.tag]


def _measured(features: Features, find: FindDepth) -> tuple[Features, DepthImage | None, str]:
    """Return features with their depths, the depth image, and why there is none though one came.

    No error leaves it: the keyframe's closures are out, so that it must be kept.
    """
    try:
        depth = find()
        if depth is None:
            return features, None, ""
        if reason := why_unusable(depth, features.size):
            return features, None, reason
        return with_depths(features, depth), depth, ""
    except Exception as error:  # noqa: BLE001
        return features, None, f"an error in the program: {error!r}; please report it"


def kept(keyframe: Keyframe) -> Keyframe:
    """Return a keyframe as a map keeps it: with KEPT_FEATURES of its features."""
    if keyframe.features is None:
        return keyframe
    return dataclasses.replace(keyframe, features=keyframe.features.fewer(KEPT_FEATURES))
