# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fleet_server import Site

from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.maps.fleet import rows, sending
from binvpr_ros.maps.fleet.errors import ForkError
from binvpr_ros.maps.fleet.outbox import Outbox
from binvpr_ros.maps.fleet.server import realm_of
from maps.small_maps import MODEL, WORDS, descriptor, features, motion


def write(path: Path, *seeds: int) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    for seed in seeds:
        database.add(database.next_keyframe(seed * 1000, descriptor(seed), features(seed), b"jpeg"))
    database.close()


def test_what_is_sent_again_changes_nothing(site: Site, path: Path) -> None:
    write(path, *range(5))

    async def send(connection: Any) -> tuple[sending.Difference, sending.Difference]:
        with contextlib.closing(Outbox(path)) as outbox:
            own = await sending.register(connection, await realm_of(connection, site.name, MODEL, 64 * WORDS), outbox)
            before = await sending.difference(connection, own, outbox)
            for _ in range(3):
                await sending.send(connection, own, outbox.letters([0, 1, 2, 3]))
            await sending.send(connection, own, outbox.letters([2, 3, 4]))
            return before, await sending.difference(connection, own, outbox)

    before, after = site.ask(send, "alice")
    assert before == ([0, 1, 2, 3, 4], [], [])
    assert after == ([], [], [])
    sent = site.rows(
        "SELECT keyframe, stamp FROM keyframes JOIN realms USING (realm) WHERE site = $1 ORDER BY 1", site.name
    )
    assert sent == [(number, number * 1000) for number in range(5)]


@pytest.mark.parametrize("listed", [1, 2, 3, 6, 7])
def test_a_list_of_keyframes_comes_whole_in_pieces_of_any_size(
    site: Site, path: Path, listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LISTED", listed)
    write(path, *range(6))

    async def send(connection: Any) -> tuple[dict[int, int | None], sending.Difference]:
        with contextlib.closing(Outbox(path)) as outbox:
            own = await sending.register(connection, await realm_of(connection, site.name, MODEL, 64 * WORDS), outbox)
            await sending.send(connection, own, outbox.letters(range(6)))
            await sending.delete(connection, own, [2], [(5, 1)])
            return (
                await rows.keyframes_of(connection, own.realm, own.number),
                await sending.difference(connection, own, outbox),
            )

    there, differs = site.ask(send, "alice")
    assert there == {0: None, 1: None, 3: None, 4: None, 5: 1}
    assert differs == ([2], [], [(5, None)])


def test_other_keyframes_under_the_same_numbers_are_not_overwritten(site: Site, path: Path, tmp_path: Path) -> None:
    write(path, 1, 2, 3)
    write(tmp_path / "other.db", 1, 7, 3)

    async def send(connection: Any) -> None:
        realm = await realm_of(connection, site.name, MODEL, 64 * WORDS)
        with contextlib.closing(Outbox(path)) as outbox, contextlib.closing(Outbox(tmp_path / "other.db")) as other:
            own = await sending.register(connection, realm, outbox)
            await sending.send(connection, own, outbox.letters([0, 1, 2]))
            with pytest.raises(ForkError):
                await sending.send(connection, own, other.letters([0, 1, 2]))

    site.ask(send, "alice")
    stamps = site.rows("SELECT stamp FROM keyframes JOIN realms USING (realm) WHERE site = $1 ORDER BY 1", site.name)
    assert stamps == [(1000,), (2000,), (3000,)]


def test_an_outbox_reads_what_a_node_writes_meanwhile(path: Path) -> None:
    database = KeyframeDatabase(path, MODEL, WORDS)
    with contextlib.closing(Outbox(path)) as outbox:
        assert outbox.last() == -1
        assert not outbox.numbers()
        for seed in range(3):
            keyframe = database.next_keyframe(seed, descriptor(seed), features(seed))
            database.add(dataclasses.replace(keyframe, motion=motion(seed) if seed else None))
        assert (outbox.last(), list(outbox.numbers(0))) == (2, [1, 2])
        letter, *others = outbox.letters([2, 9])
        assert not others
        keyframe = letter.as_keyframe()
        assert keyframe.motion is not None
        assert (keyframe.motion == motion(2)).all()
        assert (keyframe.id, keyframe.stamp) == (2, 2)
        assert (keyframe.descriptor == descriptor(2)).all()
        assert keyframe.features is not None
        assert keyframe.features.to_bytes() == features(2).to_bytes()
        database.renew()
        assert outbox.identity().uuid == database._file.identity.uuid  # type: ignore[union-attr]
    database.close()
