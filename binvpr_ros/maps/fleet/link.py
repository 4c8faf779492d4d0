# SPDX-License-Identifier: Apache-2.0
"""Link: the thread that keeps a robot and the map of its fleet in step, while the robot goes on without waiting.

Connected, it sends what the server lacks, reads what others have sent, and then has each keyframe decided: in this
order, so that of two robots at one place at least the later one finds the other. What was decided while the server was
away, by what the robot had in memory, is decided again if it lacked anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import threading
import time
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from binvpr_ros.keyframes import Keyframe
from binvpr_ros.local_features.features import Features
from binvpr_ros.maps.errors import DatabaseError
from binvpr_ros.maps.fleet import sending
from binvpr_ros.maps.fleet.errors import FleetError, ForkError
from binvpr_ros.maps.fleet.found import FoundKeyframes, own_query
from binvpr_ros.maps.fleet.mirror import MOST_MIRRORED, Mirror, Nearest
from binvpr_ros.maps.fleet.outbox import Outbox
from binvpr_ros.maps.fleet.rows import MOST_BYTES, OtherMap, features_of
from binvpr_ros.maps.fleet.schema import Realm, pgvector, why_without_index
from binvpr_ros.maps.fleet.searching import Search
from binvpr_ros.maps.fleet.server import ANSWER_SECONDS, connected, realm_of, sentences, why_unsafe
from binvpr_ros.network.cells import Grids, shifted
from binvpr_ros.network.hamming import WORD_BITS

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds between two attempts to connect, doubled from one to the next, and scattered by half."""
LASTING_PAUSE = 60.0
"""Where somebody must change something first."""
POLL_SECONDS = 0.5
"""Between two looks at what others have sent."""
FORGOTTEN_SECONDS = 60.0
"""Between two looks at what the robot's own map has forgotten."""
MOST_LIVE = 64
"""Latest keyframes that are kept with all their features; the map keeps half of them."""
CACHED_BYTES = 64 << 20
"""Of others' features that were fetched, so that places nearby can be verified without the server."""
NOTED_EVERY = 32
"""Decisions after which it is written down how far they are."""
MOST_FORKS = 3
"""In a row, after which something else must be wrong."""


class Settings(NamedTuple):
    """What a link connects."""

    url: str
    site: str
    path: Path  # of the robot's own map
    model_sha256: str
    words: int
    grids: Grids
    most_mirrored: int = MOST_MIRRORED


class OwnClosure(NamedTuple):
    """A closure of a keyframe of the robot's own map, by its id there, with one of another's."""

    keyframe: int
    map_uuid: str
    match: int
    inliers: int


class Robot(Protocol):
    """What the link asks of the robot, from a thread of its own."""

    def shift_cells(self) -> int:
        """Return the parameter of this name."""

    def decide(self, query: Keyframe, found: FoundKeyframes, nearest: Nearest, *, live: bool) -> list[OwnClosure]:
        """Decide and publish the closures of a query (`own_query`) with what was found; return them."""

    def fork(self, reason: str) -> None:
        """Give the own map a new uuid."""


@dataclasses.dataclass
class _Session:
    """A connection, and what is known of the server."""

    connection: Any
    realm: Realm
    own: sending.OwnMap


@dataclasses.dataclass(frozen=True)
class Status:
    """How a link is."""

    connected: bool = False
    lag_keyframes: int = 0  # that the server does not have yet
    lag_seconds: float = 0.0  # since the first of them was made
    refused: str = ""  # why the server is not used
    warnings: tuple[str, ...] = ()
    keyframes: int = 0  # of others, that are searched; of a large site about
    maps: int = 0
    mirrored: bool = True
    undecided: int = 0  # keyframes for which no closure was looked for yet


class Link:
    """Runs from `start` to `close`. `offer` and `status` may be called from any thread, and wait for nothing."""

    def __init__(self, settings: Settings, robot: Robot) -> None:
        self._settings, self._robot = settings, robot
        self._thread = threading.Thread(target=self._main, name="fleet", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._ready = threading.Event()
        self._stopping = False
        self._offers = asyncio.Event()
        self._arrivals: deque[tuple[Keyframe, float]] = deque()  # that were offered, and when
        self._status = Status()
        self._session: _Session | None = None
        self._mirror: Mirror | None = Mirror(settings.words, settings.most_mirrored)
        self._search: Search | None = None
        self.robot = ""
        """The robot's name on the server; "" before it was connected."""
        self._pending: dict[int, float] = {}  # ids that the server lacks, and since when
        self._undecided: dict[int, None] = {}
        self._live: OrderedDict[int, Keyframe] = OrderedDict()  # to be decided first
        self._unsent: list[OwnClosure] = []
        self._features: OrderedDict[tuple[str, int], Features | None] = OrderedDict()  # by uuid and keyframe
        self._cached = 0
        self._missed = False  # features, by the decision in work
        self._asked_again: int | None = None  # keyframe for which features that were missed are fetched once more
        self._batch = sending.BATCH
        self._forks = 0
        self._common = -1  # last keyframe that the map which this one forked from has too
        self._warnings: dict[str, str] = {}
        self._decided: set[int] = set()  # since it was last written down
        self._all_decided = -1  # up to this keyframe, in this run: a server may be restored from an older copy

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        self._ready.wait()

    def close(self, timeout: float = 4.0) -> None:
        """Stop; what is not sent stays in the map, and is sent next time."""
        self._stopping = True
        self._wake()
        self._thread.join(timeout / 2)
        if self._thread.is_alive() and self._loop is not None and self._task is not None:  # it waits for a server
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(timeout / 2)

    def offer(self, keyframe: Keyframe) -> None:
        """Take a keyframe that the own map has just kept, by the map's own ids, with all its features."""
        self._arrivals.append((keyframe, time.monotonic()))
        self._wake()

    @property
    def status(self) -> Status:
        """How it is."""
        now = time.monotonic()
        arrivals = tuple(self._arrivals)
        waiting = [*self._pending.copy().values(), *(since for _, since in arrivals)]
        mirror = self._mirror  # which the link's thread may drop meanwhile
        return dataclasses.replace(
            self._status,
            lag_keyframes=len(waiting),
            lag_seconds=now - min(waiting, default=now),
            undecided=len(self._undecided) + len(arrivals),
            warnings=tuple(self._warnings.values()),
            keyframes=0 if mirror is None else len(mirror),
            maps=0 if mirror is None else mirror.maps,
            mirrored=mirror is not None,
        )

    def _take(self) -> None:
        """Take what was offered."""
        while self._arrivals:
            keyframe, since = self._arrivals[0]
            self._pending[keyframe.id] = since
            self._undecided[keyframe.id] = None
            self._live[keyframe.id] = keyframe
            self._arrivals.popleft()
            if len(self._live) > MOST_LIVE:
                self._live.popitem(last=False)  # it is decided later, with what the map keeps of it
        self._offers.set()

    def _wake(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._take)

    def _main(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._ready.set()
        if unsafe := why_unsafe(self._settings.url):
            self._warnings["tls"] = unsafe
        pause, first = FIRST_PAUSE, True
        while not self._stopping:
            wait = 0.0
            try:
                with contextlib.closing(Outbox(self._settings.path)) as outbox:
                    if first:  # until the server says what it has
                        self._pending = dict.fromkeys(outbox.numbers(), time.monotonic()) | self._pending
                        first = False
                    try:
                        async with connected(self._settings.url) as connection:
                            await self._keep_step(connection, outbox)
                    except (FleetError, ForkError) as error:
                        wait = self._note_trouble(error, pause)
                    finally:
                        if self._status.connected:
                            pause = FIRST_PAUSE
                        self._session = None
                        self._status = dataclasses.replace(self._status, connected=False)
                    if wait:
                        pause = min(2 * pause, LONGEST_PAUSE)
                        await self._offline(wait)
            except DatabaseError as error:
                self._status = dataclasses.replace(self._status, refused=str(error))
                await self._sleep(LASTING_PAUSE)
            except Exception as error:  # noqa: BLE001 - recognition must go on, and so must this
                text = f"an error in the program: {error!r}; please report it"
                self._status = dataclasses.replace(self._status, refused=text)
                await self._sleep(LASTING_PAUSE)

    def _note_trouble(self, error: FleetError | ForkError, pause: float) -> float:
        """Note why the server is not used, or part from it; return for how many seconds it is left alone."""
        if isinstance(error, ForkError):
            if self._forks < MOST_FORKS:
                self._robot.fork(str(error))  # which fails where the disk is full
                self._forks += 1
                self._common = error.common
                return 0.0
            error = FleetError(f"{error}, again and again; see who else writes this map", lasting=True)
        self._status = dataclasses.replace(self._status, refused=str(error))
        return LASTING_PAUSE if error.lasting else pause * random.uniform(0.5, 1.5)  # noqa: S311 - no secret

    async def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            await self._offered(left)

    async def _offered(self, seconds: float) -> None:
        """Wait for a keyframe, or for so long."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._offers.wait(), seconds)
        self._offers.clear()

    async def _offline(self, seconds: float) -> None:
        """Leave the server alone for a while, and decide by what is in memory."""
        deadline = time.monotonic() + seconds
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            while self._live and not self._stopping:
                number, keyframe = self._live.popitem(last=False)
                if await self._decide(keyframe, live=True):
                    self._note(number)
            await self._offered(left)

    async def _keep_step(self, connection: Any, outbox: Outbox) -> None:
        """Keep in step with a server for as long as it answers."""
        settings = self._settings
        realm = await realm_of(connection, settings.site, settings.model_sha256, settings.words * WORD_BITS)
        own = await sending.register(connection, realm, outbox, decided=self._common)
        self._session, self.robot = (session := _Session(connection, realm, own)), own.robot
        # What was missing, or made no sense, may have come meanwhile.
        self._features = OrderedDict((key, one) for key, one in self._features.items() if one is not None)
        await self._choose_search(session)
        await self._compare(session, outbox)
        waiting = outbox.numbers(max(own.decided, self._all_decided)).keys() - self._decided
        self._undecided = dict.fromkeys(sorted(waiting | self._undecided.keys()))
        await self._publish_closures(session)  # first, since the file does not keep how many inliers they have
        await sending.publish_closures(connection, own, [(*closure, -1) for closure in outbox.closures()])
        self._status = dataclasses.replace(self._status, connected=True, refused="")
        compared = time.monotonic()
        while not self._stopping:
            await self._send(session, outbox)
            if self._mirror is not None:
                await self._mirror.refresh(connection, realm, own.number)
                if len(self._mirror) > settings.most_mirrored:
                    await self._choose_search(session)
            self._tell_refused()
            busy = await self._decide_some(session, outbox)
            if time.monotonic() - compared > FORGOTTEN_SECONDS:
                await self._compare(session, outbox)
                compared = time.monotonic()
            if not busy and not self._pending:
                await self._offered(POLL_SECONDS)

    def _tell_refused(self) -> None:
        """Warn of the maps that are left out now."""
        found = self._mirror if self._mirror is not None else self._search
        refused = {} if found is None else {f"map {number}": why for number, why in found.refused.items()}
        others = {key: text for key, text in self._warnings.items() if not key.startswith("map ")}
        self._warnings = others | refused

    async def _choose_search(self, session: _Session) -> None:
        """Mirror a small site; search a large one on the server."""
        most = self._settings.most_mirrored
        there = await session.connection.fetchval(
            "SELECT count(*) FROM (SELECT FROM keyframes WHERE realm = $1 AND map_no <> $2 LIMIT $3) AS k",
            session.realm.number, session.own.number, most + 1,
        )  # fmt: skip
        why_not = why_without_index(await pgvector(session.connection))
        if there > most:
            self._search = Search(session.realm, session.own.number, self._settings.words, index=not why_not)
            self._mirror = None
            if why_not:
                self._warnings["pgvector"] = why_not
        elif self._mirror is None:
            self._mirror, self._search = Mirror(self._settings.words, most), None

    async def _compare(self, session: _Session, outbox: Outbox) -> None:
        """Find out what the server lacks, and delete there what the robot has forgotten."""
        differs = await sending.difference(session.connection, session.own, outbox)
        await sending.delete(session.connection, session.own, differs.surplus, differs.changed)
        now = time.monotonic()
        self._pending = {number: self._pending.get(number, now) for number in differs.missing}

    async def _send(self, session: _Session, outbox: Outbox) -> None:
        """Send all that the server lacks, the camera first."""
        if self._pending:
            session.own = await sending.note_camera(session.connection, session.own, outbox)
        while self._pending and not self._stopping:
            numbers = list(self._pending)[: self._batch]
            letters = outbox.letters(numbers)
            try:
                with sentences(self._settings.url):
                    await sending.send(session.connection, session.own, letters)
            except FleetError:
                self._batch = max(self._batch // 2, 1)  # the way there may be slow
                raise
            self._batch = min(2 * self._batch, sending.BATCH)
            # What the file does not hold, since a disk was full or it was forgotten meanwhile, is not sent.
            for number in numbers:
                self._pending.pop(number, None)
            self._forks = 0

    async def _decide_some(self, session: _Session, outbox: Outbox) -> bool:
        """Decide the keyframes that are live, or one of the backlog; return whether there may be more to do."""
        if self._live:
            for number in [one for one in self._live if one not in self._pending]:
                keyframe = self._live.pop(number)
                if number in self._undecided and await self._decide(keyframe, live=True):
                    await self._publish_closures(session)
                    self._note(number)
        elif self._undecided:
            number = next(iter(self._undecided))
            started = time.monotonic()
            for letter in outbox.letters([number]):
                await self._decide(letter.as_keyframe(), live=False)
            await self._publish_closures(session)
            self._note(number)
            # So that the node keeps half of the processor at the least.
            await asyncio.sleep(min(time.monotonic() - started, 1.0))
        await self._note_decided(session)
        return bool(self._live or self._undecided)

    async def _publish_closures(self, session: _Session) -> None:
        """Write closures on the server."""
        if self._unsent:
            await sending.publish_closures(session.connection, session.own, self._unsent)
            self._unsent = []

    def _note(self, number: int) -> None:
        """Note that a keyframe is decided."""
        self._undecided.pop(number, None)
        self._decided.add(number)

    async def _note_decided(self, session: _Session) -> None:
        """Write down on the server how far the decisions are, now and then, and when they have caught up."""
        decided = max(self._decided, default=-1)
        if self._undecided:
            decided = min(decided, next(iter(self._undecided)) - 1)
        if decided > session.own.decided and (not self._undecided or decided >= session.own.decided + NOTED_EVERY):
            await sending.note_decided(session.connection, session.own, decided)
            session.own = session.own._replace(decided=decided)
            self._decided = {number for number in self._decided if number > decided}
            self._all_decided = max(self._all_decided, decided)

    async def _decide(self, keyframe: Keyframe, *, live: bool) -> bool:
        """Have the closures of a keyframe decided; return whether it is, with all that it takes."""
        views = shifted(keyframe.descriptor, self._settings.grids, self._robot.shift_cells())
        if self._mirror is not None:
            nearest = await asyncio.to_thread(self._mirror.nearest, views)
        elif self._session is not None and self._search is not None:
            nearest = await self._search.nearest(self._session.connection, views)
        else:
            return False
        self._missed = False
        closures: list[OwnClosure] = []
        if nearest.stretches:
            found = FoundKeyframes(nearest.stretches, nearest.typical, None, self._settings.grids, self._features_of)
            decide = self._robot.decide
            try:
                closures = await asyncio.to_thread(decide, own_query(keyframe), found, nearest, live=live)
            except Exception as error:  # noqa: BLE001 - those after it must be decided too
                self._warnings["decision"] = (
                    f"keyframe {keyframe.id} is not looked for in others' maps: an error in the program: {error!r}; "
                    "please report it"
                )
        self._unsent += closures
        if self._missed and self._session is not None and not closures and keyframe.id != self._asked_again:
            self._asked_again = keyframe.id  # the second time it is decided without them: they may never come
            raise FleetError("features of other maps could not be fetched; they are asked for again later")
        return bool(closures) or self._session is not None

    def _features_of(self, whose: OtherMap, number: int) -> Features | None:
        """Return features of another map, from memory or the server (the deciding thread's)."""
        key = whose.identity.uuid, number  # a server that was restored gives map_no out again
        if key in self._features:
            self._features.move_to_end(key)
            return self._features[key]
        session, loop = self._session, self._loop
        if session is None or loop is None:
            self._missed = True
            return None
        try:
            future = asyncio.run_coroutine_threadsafe(_fetch(session, whose.number, number), loop)
            found = future.result(ANSWER_SECONDS)
        except Exception:  # noqa: BLE001 - the session that owns the connection reports it
            self._missed = True
            return None
        self._features[key] = found
        self._cached += 0 if found is None else found.nbytes
        while self._cached > CACHED_BYTES:
            gone = self._features.popitem(last=False)[1]
            self._cached -= 0 if gone is None else gone.nbytes
        return found


async def _fetch(session: _Session, number: int, keyframe: int) -> Features | None:
    """Return the features of another's keyframe, unless they are more than any has."""
    blob = await session.connection.fetchval(
        "SELECT features FROM features WHERE realm = $1 AND map_no = $2 AND keyframe = $3 "
        "AND octet_length(features) <= $4", session.realm.number, number, keyframe, MOST_BYTES,
    )  # fmt: skip
    return features_of(blob)
