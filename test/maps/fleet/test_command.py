# SPDX-License-Identifier: Apache-2.0
"""`binvpr fleet`, as a user calls it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fleet_server import Site

from binvpr_ros.maps.command import problems
from binvpr_ros.maps.database import KeyframeDatabase
from binvpr_ros.maps.fleet.command import main
from maps.fleet.driver import driving
from maps.small_maps import CAMERA, MODEL, WORDS, descriptor, features, kept_motions, map_of_version, motion

NOW = time.time_ns()
DAY = 86400 * 10**9


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """Run the command, and return its exit status, and what it prints."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["fleet", *map(str, arguments)])
        status = main()
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def write(path: Path, *stamps: int) -> str:
    """Write a map with keyframes of these stamps, and return its uuid."""
    database = KeyframeDatabase(path, MODEL, WORDS)
    for number, stamp in enumerate(stamps):
        keyframe = database.next_keyframe(stamp, descriptor(number), features(number), b"\xff\xd8\xff jpeg")
        keyframe = keyframe.__class__(**{**keyframe.__dict__, "motion": motion(number)})
        database.add(keyframe, camera=CAMERA)
    uuid = database._file.identity.uuid  # type: ignore[union-attr]
    database.close()
    return uuid


def test_a_map_goes_to_the_server_and_comes_back_whole(fleet: object, site: Site, tmp_path: Path) -> None:
    path, back = tmp_path / "a.db", tmp_path / "back.db"
    uuid = write(path, *(NOW + number for number in range(70)))
    assert callable(fleet)
    assert fleet("push", site.url(), path, "--site", site.name) == (0, f"{path}: 70 keyframes sent, 0 deleted\n")
    assert fleet("push", site.url(), path, "--site", site.name) == (0, f"{path}: 0 keyframes sent, 0 deleted\n")
    status, text = fleet("status", site.url("bob"))
    assert status == 0
    assert f"site {site.name!r}, model {MODEL[:12]}, {64 * WORDS} bits" in text
    assert f"{uuid} of robot 'alice': 70 keyframes, 70 with features, 0 closures with others, the newest of 20" in text
    assert fleet("pull", site.url("bob"), "--map", uuid, "--output", back) == (
        0, f"{back}: 70 keyframes of robot 'alice'\n"
    )  # fmt: skip
    assert not problems(back)
    assert [None if one is None else one.tolist() for one in kept_motions(back)] == [
        None if one is None else one.tolist() for one in kept_motions(path)
    ]
    one, other = KeyframeDatabase(path, MODEL, WORDS), KeyframeDatabase(back, MODEL, WORDS)
    for position in range(70):
        kept, found = one.keyframe(position), other.keyframe(position)
        assert (kept.id, kept.stamp, kept.descriptor.tolist()) == (found.id, found.stamp, found.descriptor.tolist())
        theirs = other.features(found)
        assert theirs is not None
        assert theirs.to_bytes() == features(position).to_bytes()
        assert other.thumbnail(found) == b"\xff\xd8\xff jpeg"
        camera = other.camera_of(found)
        assert camera is not None
        assert camera.is_that(CAMERA)
    one.close()
    other.close()
    assert fleet("pull", site.url("bob"), "--map", uuid, "--output", back) == (
        1, f"fleet: {back} exists; name a new file\n"
    )  # fmt: skip


def test_a_map_of_an_earlier_version_can_be_sent(fleet: object, site: Site, tmp_path: Path) -> None:
    map_of_version(1, tmp_path / "old.db")
    assert callable(fleet)
    path = tmp_path / "old.db"
    assert fleet("push", site.url(), path, "--site", site.name) == (0, f"{path}: 3 keyframes sent, 0 deleted\n")


def test_what_is_old_is_forgotten_and_not_sent_again(fleet: object, site: Site, tmp_path: Path) -> None:
    assert callable(fleet)
    path = tmp_path / "a.db"
    write(path, NOW - 40 * DAY, NOW - 20 * DAY, NOW)
    fleet("push", site.url(), path, "--site", site.name)

    def left() -> list[tuple[int, bool]]:
        rows = site.rows(
            "SELECT keyframe, features IS NOT NULL FROM keyframes LEFT JOIN features USING (realm, map_no, keyframe) "
            "JOIN realms USING (realm) WHERE site = $1 ORDER BY 1", site.name,
        )  # fmt: skip
        return [(int(number), bool(there)) for number, there in rows]

    assert left() == [(0, True), (1, True), (2, True)]
    where = (site.server.url(), "--site", site.name, "--older-than")
    assert fleet("forget", *where, "10", "--features") == (
        0, f"site {site.name!r}: features of 2 keyframes older than 10 days deleted\n"
    )  # fmt: skip
    assert left() == [(0, False), (1, False), (2, True)]
    assert fleet("forget", *where, "30") == (0, f"site {site.name!r}: 1 keyframe older than 30 days deleted\n")
    with driving(path, site.url(), site.name) as alice:
        alice.drive(1)
        alice.wait()
    assert left() == [(1, False), (2, True), (3, True)]


def test_a_session_of_a_wrong_clock_does_not_take_what_is_young_along(
    fleet: object, site: Site, tmp_path: Path
) -> None:
    assert callable(fleet)
    write(tmp_path / "a.db", NOW, NOW - 40 * DAY, NOW)
    fleet("push", site.url("alice"), tmp_path / "a.db", "--site", site.name)
    assert fleet("forget", site.server.url(), "--site", site.name, "--older-than", "30") == (
        0, f"site {site.name!r}: 0 keyframes older than 30 days deleted\n"
    )  # fmt: skip
    count = "SELECT count(*) FROM keyframes JOIN realms USING (realm) WHERE site = $1"
    assert site.rows(count, site.name) == [(3,)]


def test_a_whole_map_is_forgotten_by_its_robot_or_the_owner_only(fleet: object, site: Site, tmp_path: Path) -> None:
    assert callable(fleet)
    uuid = write(tmp_path / "a.db", 1, 2)
    fleet("push", site.url("alice"), tmp_path / "a.db", "--site", site.name)
    assert fleet("forget", site.url("bob"), "--map", uuid) == (
        1, f"fleet: the map {uuid} is of robot 'alice'; forget it as that, or as the owner\n"
    )  # fmt: skip
    assert fleet("forget", site.url("bob"), "--older-than", "1", "--site", site.name)[0] == 1
    assert len(site.rows("SELECT 1 FROM keyframes JOIN realms USING (realm) WHERE site = $1", site.name)) == 2
    assert fleet("forget", site.url("alice"), "--map", uuid)[0] == 0
    assert not site.rows("SELECT 1 FROM keyframes JOIN realms USING (realm) WHERE site = $1", site.name)
    assert fleet("forget", site.url("alice"), "--map", uuid) == (
        1, f"fleet: the fleet has no map {uuid}; see: binvpr fleet status URL\n"
    )  # fmt: skip


def test_init_makes_what_is_not_there(fleet: object, site: Site) -> None:
    assert callable(fleet)
    name = f"{site.name}, the other"
    status, text = fleet("init", site.server.url(), "--site", name, "--robot", "carol", "o'dave\"; --")
    assert status == 0
    assert f"site {name!r} was added" in text
    assert f"site {name!r} has an index over 512 bits" in text
    assert "robot 'carol' may write its maps" in text
    assert fleet("init", site.server.url(), "--site", name, "--robot", "carol", "o'dave\"; --") == (
        0, "all is there already\n"
    )  # fmt: skip
    assert site.rows("SELECT current_user::text", robot="o'dave\"; --") == [("o'dave\"; --",)]


def test_a_url_with_a_password_is_refused(fleet: object) -> None:
    assert callable(fleet)
    status, text = fleet("status", "postgresql://alice:secret@db/fleet")
    assert status == 1
    assert "must hold no password" in text
    assert "secret" not in text
