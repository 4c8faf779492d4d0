# SPDX-License-Identifier: Apache-2.0
"""`benchmark --fleet`: the map of a fleet on an embedded PostgreSQL: search, load, inserts, and the robot's own commit.

Keyframes are made of descriptors of real images: each place takes the cells of its left half from one image and those
of its right half from another, and is seen several times, each time with some bits changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from asyncpg import BitString
from numpy.typing import NDArray
from tqdm import tqdm

from binvpr_ros.keyframes import NANOSECONDS, Keyframe
from binvpr_ros.lab.embedded_postgres import EmbeddedPostgres
from binvpr_ros.local_features.features import LEARNED, Features
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.maps.fleet import schema, sending
from binvpr_ros.maps.fleet.found import FoundKeyframes
from binvpr_ros.maps.fleet.link import Link, OwnClosure, Robot, Settings
from binvpr_ros.maps.fleet.mirror import Nearest
from binvpr_ros.maps.fleet.outbox import Letter, Outbox
from binvpr_ros.maps.fleet.searching import Search
from binvpr_ros.maps.fleet.server import STATEMENT_SECONDS, connected, realm_of
from binvpr_ros.network.cells import Grids, shifted
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.hamming import WORD_BITS, nearest_view
from binvpr_ros.network.model_card import ModelCard

SITE = "benchmark"
VIEWS_OF_A_PLACE = 10
CHANGED = 0.07
"""Share of the bits that differ from view to view, and again in a query."""
QUERIES = 200
MAP = 10_000
"""Keyframes of each map."""
CLIENTS, QUERIES_A_SECOND, INSERTS_A_SECOND, LOAD_SECONDS = 50, 250, 50, 20.0
WRITERS, WRITTEN = 4, 1280
"""Robots that send at once, and keyframes of each."""
LOAD_WRITERS = 10
CONNECT_SECONDS = 5.0
COMMIT_RUNS, COMMITS, COMMIT_RATE = 10, 60, 20.0
FEATURES = 540
"""Of a keyframe, as a map keeps them: 20 kB."""


def real_descriptors(network: DescriptorNetwork, images: Iterable[Any]) -> NDArray[np.uint64]:
    """Return the descriptors [n,W] of images."""
    return np.array([network.describe(image).descriptor for image in tqdm(images, desc="describe")], np.uint64)


def left_bits(grids: Grids, bits: int) -> NDArray[np.uint8]:
    """Return which bits [bits] belong to the left half of the image."""
    parts = []
    for side, of_cell in grids:
        columns = np.arange(side) < side / 2
        parts.append(np.repeat(np.tile(columns, side), of_cell))
    mask = np.concatenate(parts) if parts else np.zeros(0, bool)
    return np.resize(mask, bits).astype(np.uint8)


def places(real: NDArray[np.uint64], grids: Grids, count: int, seed: int = 0) -> NDArray[np.uint64]:
    """Return `count` keyframes [count,W], VIEWS_OF_A_PLACE of each place after one another."""
    rng = np.random.default_rng(seed)
    left = np.packbits(left_bits(grids, real.shape[1] * WORD_BITS)).view(np.uint64)
    number = -(-count // VIEWS_OF_A_PLACE)
    pairs = rng.integers(0, len(real), (2, number))
    base = (real[pairs[0]] & left) | (real[pairs[1]] & ~left)
    found = np.repeat(base, VIEWS_OF_A_PLACE, axis=0)[:count]
    for start in range(0, count, MAP):  # a piece at a time, for the memory
        found[start : start + MAP] ^= noise(rng, *found[start : start + MAP].shape)
    return found


def noise(rng: np.random.Generator, count: int, words: int) -> NDArray[np.uint64]:
    """Return bits [count,words] of which a share CHANGED is set."""
    bits = rng.random((count, words * WORD_BITS), np.float32) < CHANGED
    return np.packbits(bits, axis=1).view(np.uint64)


def queries_of(keyframes: NDArray[np.uint64], grids: Grids, seed: int = 1) -> NDArray[np.uint64]:
    """Return queries [QUERIES,W]: keyframes with other bits changed, and the image moved by a cell."""
    rng = np.random.default_rng(seed)
    chosen = keyframes[rng.integers(0, len(keyframes), QUERIES)] ^ noise(rng, QUERIES, keyframes.shape[1])
    moved = [shifted(one, grids, 1) for one in chosen]
    return np.array([views[rng.integers(len(views))] for views in moved])


async def load(server: EmbeddedPostgres, card: ModelCard, keyframes: NDArray[np.uint64]) -> dict[str, Any]:
    """Fill a site, and index it; return how long that took, and how large it is."""
    async with connected(server.url(), patient=True) as connection:
        await schema.init(connection)
        await schema.add_pgvector(connection)
        await schema.add_realm(connection, SITE, card.sha256, keyframes.shape[1], card.grids)
        for number in range(1 + WRITERS + LOAD_WRITERS):
            await schema.add_robot(connection, f"robot{number}")
        realm = await realm_of(connection, SITE, card.sha256, keyframes.shape[1] * WORD_BITS)
        started = time.perf_counter()
        for start in tqdm(range(0, len(keyframes), MAP), desc="load"):
            number = await connection.fetchval(
                "INSERT INTO maps (map, realm, robot, batches) VALUES ($1, $2, 'robot0', 1) RETURNING map_no",
                uuid.uuid4(), realm.number,
            )  # fmt: skip
            rows = [
                (realm.number, number, index, 0, index * NANOSECONDS // 2,
                 BitString.frombytes(one.tobytes(), bitlength=realm.bits), 1)
                for index, one in enumerate(keyframes[start : start + MAP])
            ]  # fmt: skip
            await connection.copy_records_to_table(
                "keyframes", schema_name="binvpr", records=rows,
                columns=["realm", "map_no", "keyframe", "session", "stamp", "descriptor", "batch"],
            )  # fmt: skip
        loaded = time.perf_counter() - started
        await connection.execute("SET maintenance_work_mem = '1GB'")
        started = time.perf_counter()
        await schema.add_indexes(connection)
        built = time.perf_counter() - started
        await connection.execute("ANALYZE binvpr.keyframes")
        sizes = await connection.fetchrow(
            "SELECT pg_table_size(t) AS heap, pg_relation_size(i) AS index FROM "
            "(SELECT ('binvpr.keyframes_' || $1::int)::regclass AS t, "
            "('binvpr.keyframes_' || $1::int || '_bits')::regclass AS i) AS s", realm.number,
        )  # fmt: skip
    return {
        "load_s": round(loaded, 1), "index_s": round(built, 1),
        "heap_mb": round(sizes["heap"] / 1e6), "index_mb": round(sizes["index"] / 1e6),
    }  # fmt: skip


async def recall(
    server: EmbeddedPostgres, card: ModelCard, keyframes: NDArray[np.uint64], queries: NDArray[np.uint64]
) -> dict[str, Any]:
    """Return for how many queries the search on the server has the same best as the exact one with all views."""
    times, right = [], 0
    async with connected(server.url()) as connection:
        realm = await realm_of(connection, SITE, card.sha256, keyframes.shape[1] * WORD_BITS)
        search = Search(realm, -1, keyframes.shape[1], index=True)
        await search.nearest(connection, shifted(queries[0], card.grids, 1))
        for query in tqdm(queries, desc="search"):
            views = shifted(query, card.grids, 1)
            started = time.perf_counter()
            nearest = await search.nearest(connection, views)
            times.append((time.perf_counter() - started) * 1e3)
            best = min(int(one.distances.min()) for one in nearest.stretches)
            right += best == int(nearest_view(keyframes, views).min())
    return {
        "recall_at_1": round(right / len(queries), 3),
        "search_p50_ms": round(float(np.median(times)), 1), "search_p95_ms": round(float(np.percentile(times, 95)), 1),
    }  # fmt: skip


async def under_load(server: EmbeddedPostgres, card: ModelCard, queries: NDArray[np.uint64]) -> dict[str, Any]:
    """Return times of queries while CLIENTS ask, each once in a while, and others write."""
    words = queries.shape[1]
    times: list[float] = []
    commits: list[float] = []
    late = 0
    start = time.monotonic() + CONNECT_SECONDS
    end = start + LOAD_SECONDS

    async def client(number: int) -> None:
        nonlocal late
        rng = random.Random(number)  # noqa: S311 - no secret
        await asyncio.sleep(rng.uniform(0.0, CONNECT_SECONDS))  # as robots do
        async with connected(server.url("robot0"), patient=True) as connection:
            realm = await realm_of(connection, SITE, card.sha256, words * WORD_BITS)
            search = Search(realm, -1, words, index=True)
            await search.candidates(connection, shifted(queries[0], card.grids, 1))
            due = start
            while time.monotonic() < end:
                due += rng.expovariate(QUERIES_A_SECOND / CLIENTS)
                await asyncio.sleep(due - time.monotonic())
                views = shifted(queries[rng.randrange(len(queries))], card.grids, 1)
                started = time.perf_counter()
                await search.candidates(connection, views)
                times.append((time.perf_counter() - started) * 1e3)
                late += times[-1] > STATEMENT_SECONDS * 1e3

    async def writer(robot: str) -> None:
        async with connected(server.url(robot), patient=True) as connection:
            realm = await realm_of(connection, SITE, card.sha256, words * WORD_BITS)
            own = await _new_map(connection, realm.number, robot)
            number, due = 0, start
            while time.monotonic() < end:
                due += LOAD_WRITERS / INSERTS_A_SECOND
                await asyncio.sleep(due - time.monotonic())
                started = time.perf_counter()
                await sending.send(connection, own, [_letter(number, queries[number % len(queries)])])
                commits.append((time.perf_counter() - started) * 1e3)
                number += 1

    writers = [writer(f"robot{1 + WRITERS + number}") for number in range(LOAD_WRITERS)]
    await asyncio.gather(*writers, *(client(number) for number in range(CLIENTS)))
    return {
        "loaded_queries_s": round(len(times) / LOAD_SECONDS), "loaded_inserts_s": round(len(commits) / LOAD_SECONDS),
        "loaded_p50_ms": round(float(np.median(times)), 1), "loaded_p95_ms": round(float(np.percentile(times, 95)), 1),
        "loaded_commit_p50_ms": round(float(np.median(commits)), 1),
        "loaded_beyond_2_s": late,
    }  # fmt: skip


async def _new_map(connection: Any, realm: int, robot: str) -> sending.OwnMap:
    number = await connection.fetchval(
        "INSERT INTO maps (map, realm) VALUES ($1, $2) RETURNING map_no", uuid.uuid4(), realm
    )
    return sending.OwnMap(realm, number, 0, -1, robot)


def _letter(number: int, descriptor: NDArray[np.uint64]) -> Letter:
    blob = _features(number % 8).to_bytes()
    return Letter(number, 0, number * NANOSECONDS, None, None, descriptor.tobytes(), blob, None)


def _features(seed: int) -> Features:
    """Return random features of the size of real ones."""
    rng = np.random.default_rng(seed)
    descriptors = rng.integers(0, 256, (FEATURES, 32), np.uint8)
    positions = rng.integers(0, 1 << 16, (FEATURES, 2), np.uint16)
    return Features((640, 480), positions, np.zeros(FEATURES, np.uint8), descriptors, (LEARNED, 0))


async def inserts(server: EmbeddedPostgres, card: ModelCard, queries: NDArray[np.uint64]) -> dict[str, Any]:
    """Return how many keyframes a second WRITERS send, each with its features and each batch durable."""
    words = queries.shape[1]

    async def writer(number: int) -> None:
        robot = f"robot{number + 1}"
        async with connected(server.url(robot)) as connection:
            realm = await realm_of(connection, SITE, card.sha256, words * WORD_BITS)
            own = await _new_map(connection, realm.number, robot)
            for start in range(0, WRITTEN, sending.BATCH):
                numbers = range(start, start + sending.BATCH)
                await sending.send(connection, own, [_letter(one, queries[one % len(queries)]) for one in numbers])

    started = time.perf_counter()
    await asyncio.gather(*(writer(number) for number in range(WRITERS)))
    return {"inserts_s": round(WRITERS * WRITTEN / (time.perf_counter() - started))}


class _Driver(Robot):
    """A robot that only keeps keyframes."""

    def shift_cells(self) -> int:
        """Return how far the image may be moved."""
        return 0

    def decide(self, query: Keyframe, found: FoundKeyframes, nearest: Nearest, *, live: bool) -> list[OwnClosure]:
        """Close no loop."""
        del query, found, nearest, live
        return []

    def fork(self, reason: str) -> None:
        """Never: nobody else has its map."""
        raise RuntimeError(reason)


def commits(server: EmbeddedPostgres, card: ModelCard, queries: NDArray[np.uint64]) -> dict[str, Any]:
    """Return the p95 of the robot's own commit, with the server dying on the way against without, in turns."""
    ratios, calm_p95, dying_p95 = [], [], []
    for _ in tqdm(range(COMMIT_RUNS), desc="commits"):
        calm, dying = (_commit_p95(server, card, queries, dies) for dies in (False, True))
        calm_p95.append(calm)
        dying_p95.append(dying)
        ratios.append(dying / calm)
    return {
        "commit_p95_ms": round(float(np.median(calm_p95)), 1),
        "commit_p95_dying_ms": round(float(np.median(dying_p95)), 1),
        "commit_ratio": round(float(np.median(ratios)), 2),
    }


def _commit_p95(server: EmbeddedPostgres, card: ModelCard, queries: NDArray[np.uint64], dies: bool) -> float:
    words, times = queries.shape[1], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "map.db")
        database = KeyframeDatabase(path, card.sha256, words)
        link = Link(Settings(server.url("robot0"), SITE, path, card.sha256, words, card.grids, 0), _Driver())
        link.start()
        death = threading.Timer(COMMITS / COMMIT_RATE / 3, _restart, (server,))
        if dies:
            death.start()
        for number in range(COMMITS):
            keyframe = database.next_keyframe(
                number * NANOSECONDS, queries[number % len(queries)], _features(number % 8)
            )
            started = time.perf_counter()
            database.add(keyframe)
            link.offer(keyframe)
            times.append((time.perf_counter() - started) * 1e3)
            time.sleep(1 / COMMIT_RATE)
        if dies:
            death.join()
        link.close()
        with contextlib.closing(Outbox(path)) as outbox:
            assert outbox.last() == COMMITS - 1  # noqa: S101 - nothing is measured that is not there
        database.close()
    return float(np.percentile(times, 95))


def _restart(server: EmbeddedPostgres) -> None:
    server.kill()
    server.start()


def fleet_figures(card: ModelCard, real: NDArray[np.uint64], count: int) -> dict[str, Any]:
    """Measure a site of `count` keyframes made of real descriptors [n,W] of a model."""
    keyframes = places(real, card.grids, count)
    queries = queries_of(keyframes, card.grids)
    figures: dict[str, Any] = {"keyframes": count, "real_images": len(real)}
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder, "postgres")) as server:
        figures |= asyncio.run(load(server, card, keyframes))
        figures |= asyncio.run(recall(server, card, keyframes, queries))
        figures |= asyncio.run(under_load(server, card, queries))
        figures |= asyncio.run(inserts(server, card, queries))
        figures |= commits(server, card, queries)
    return figures


def table(figures: Sequence[dict[str, Any]]) -> str:
    """Return figures of several sizes, a line for each."""
    return "\n".join(f"{name:22}" + "".join(f"{one[name]:>12}" for one in figures) for name in figures[0])
