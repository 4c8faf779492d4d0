# SPDX-License-Identifier: Apache-2.0
"""FleetTopics: the part of the node that is there with the parameter `fleet`: its topic, diagnostics and warnings."""

from __future__ import annotations

import math
from typing import Any

from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from binvpr_ros.counted import counted
from binvpr_ros.fleet import Fleet
from binvpr_ros.fleet_closure import FleetClosure
from binvpr_ros.recognizer import PlaceRecognizer, Recognition
from binvpr_ros.ros.messages import from_nanoseconds, message_from_fleet_closures, own_rows_of
from binvpr_ros.ros.voice import Voice


class FleetTopics:
    """Publishes closures with other maps on `closures` (loop_closures) and on `fleet_closures`."""

    def __init__(self, publishers: tuple[Any, Any], recognizer: PlaceRecognizer, voice: Voice) -> None:
        self._closures, self._fleet_closures = publishers
        self._voice = voice
        self._frame_id = ""
        self._sessions: dict[tuple[str, int], int] = {}
        self._fleet = Fleet(recognizer, self._publish)

    def offer(self, recognition: Recognition, frame_id: str) -> None:
        """Take what became of an image."""
        self._frame_id = frame_id
        self._fleet.offer(recognition)

    def _publish(self, closures: list[FleetClosure]) -> None:
        """Publish the closures of a keyframe (the fleet's thread)."""
        header = Header(stamp=from_nanoseconds(closures[0].query_stamp), frame_id=self._frame_id)
        message: PointCloud2 = message_from_fleet_closures(header, closures, self._session_of)
        self._closures.publish(own_rows_of(message))
        self._fleet_closures.publish(message)
        best = closures[0]
        self._voice.tell(
            "fleet closure",
            f"keyframe {best.query_id} is where robot {best.robot!r} was at its keyframe {best.match_id} "
            f"({best.inliers} inliers)",
        )

    def _session_of(self, closure: FleetClosure) -> int:
        key = closure.map_uuid, closure.match_session
        return self._sessions.setdefault(key, len(self._sessions))

    @property
    def trouble(self) -> str:
        """Return why the fleet's map is not in use, for people; "" where it is."""
        status = self._fleet.status
        if status.connected or not status.refused:
            return ""
        return f"the fleet's map is not in use: {status.refused}; {counted(status.lag_keyframes, 'keyframe')} wait"

    def values(self) -> dict[str, str]:
        """Return what diagnostics tell, and warn of what is not as it should be."""
        status, (closed, refused) = self._fleet.status, self._fleet.counts
        for kind, warning in enumerate((*status.warnings, self._fleet.warning)):
            if warning:
                self._voice.warn(f"fleet {kind}: {warning}", warning, interval=math.inf)
        where = "mirrored" if status.mirrored else "searched on the server"
        size = f"{status.keyframes} of {counted(status.maps, 'map')}, {where}" if status.mirrored else where
        return {
            "fleet_connected": str(status.connected),
            "fleet_lag_keyframes": str(status.lag_keyframes),
            "fleet_lag_seconds": f"{status.lag_seconds:.1f}",
            "fleet_refused": status.refused,
            "fleet_keyframes": size,
            "fleet_undecided": str(status.undecided),
            "fleet_closures": str(closed),
            **{f"fleet_refused_{reason.value}": str(count) for reason, count in sorted(refused.items())},
        }

    def close(self) -> None:
        """Stop; what is not sent yet is sent next time."""
        self._fleet.close()
