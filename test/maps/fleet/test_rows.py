# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from asyncpg import BitString

from binvpr_ros.keyframes import NOTHING_CLOSED
from binvpr_ros.maps.fleet.errors import FleetError
from binvpr_ros.maps.fleet.rows import OtherMap, bits_of, columns_of, descriptor_of, features_of, other_map
from binvpr_ros.maps.identity import Identity, camera_text
from binvpr_ros.maps.schema import LATEST_STAMP
from binvpr_ros.maps.store import MOST_KEYFRAMES
from maps.small_maps import CAMERA, WORDS, descriptor, features, motion

WHOSE = OtherMap(3, "alice", Identity.new())


def row(keyframe: int, **values: Any) -> dict[str, Any]:
    blob = motion(keyframe).astype("<f4").tobytes()
    common = {"keyframe": keyframe, "session": 0, "stamp": keyframe * 1000, "closes": None, "motion": blob}
    return {**common, "descriptor": bits_of(descriptor(keyframe)), **values}


def test_rows_are_columns_of_a_map() -> None:
    columns = columns_of([row(2), row(5, session=1, closes=2, motion=None)], WORDS, WHOSE)
    assert columns.ids.tolist() == [2, 5]
    assert columns.sessions.tolist() == [0, 1]
    assert columns.closes.tolist() == [NOTHING_CLOSED, 2]
    assert np.array_equal(columns.motions[0], motion(2).ravel())
    assert np.isnan(columns.motions[1]).all()
    assert np.array_equal(columns.descriptors, [descriptor(2), descriptor(5)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"keyframe": -1},
        {"keyframe": 1},
        {"keyframe": MOST_KEYFRAMES},
        {"session": -1},
        {"session": MOST_KEYFRAMES},
        {"stamp": LATEST_STAMP},
        {"stamp": -LATEST_STAMP - 1},
        {"descriptor": BitString("101")},
        {"descriptor": BitString.frombytes(bytes(40), bitlength=320)},
    ],
)
def test_rows_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FleetError, match="keyframes of robot 'alice' on the server make no sense"):
        columns_of([row(1), {**row(2), **wrong}], WORDS, WHOSE)


def test_sessions_must_not_go_back() -> None:
    with pytest.raises(FleetError, match="make no sense"):
        columns_of([row(1, session=1), row(2, session=0)], WORDS, WHOSE)


def test_what_is_only_a_hint_is_left_out_where_it_makes_no_sense() -> None:
    columns = columns_of([row(1, closes=1, motion=b"short"), row(2, closes=-7), row(3, closes=9)], WORDS, WHOSE)
    assert columns.closes.tolist() == [NOTHING_CLOSED] * 3
    assert np.isnan(columns.motions[0]).all()
    assert features_of(b"rubbish") is None
    assert features_of(None) is None
    found = features_of(features(1).to_bytes())
    assert found is not None
    assert found.to_bytes() == features(1).to_bytes()


def test_a_name_is_text_and_a_camera_a_camera() -> None:
    common = {"map_no": 1, "map": Identity.new().uuid}
    strange = other_map({**common, "robot": "a\x1b[31m\nb" + "c" * 99, "camera": "{" * 99})
    assert strange.robot == "a?[31m?b" + "c" * 55
    assert strange.identity.camera is None
    known = other_map({**common, "robot": "bob", "camera": camera_text(CAMERA)}).identity.camera
    assert known is not None
    assert known.is_that(CAMERA)


def test_bits_are_in_the_order_of_the_descriptor() -> None:
    one = descriptor(1)
    bits = np.unpackbits(one.view(np.uint8))
    assert np.array_equal(descriptor_of(bits_of(one)), one)
    part = bits_of(one, 65, 100)
    assert len(part) == 100
    assert np.array_equal(np.unpackbits(np.frombuffer(part.bytes, np.uint8))[:100], bits[64:164])
