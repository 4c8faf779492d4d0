# SPDX-License-Identifier: Apache-2.0
"""`binvpr watch` beside a running node, with a terminal and without one."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("rich", reason="the extra `tools` is not installed")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import SingleThreadedExecutor
from robot import Robot
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from binvpr_ros.keyframes import Keyframe
from binvpr_ros.loop_closure import LoopClosure
from binvpr_ros.pictures import GAP, LABEL_HEIGHT, PANEL, TITLE_HEIGHT
from binvpr_ros.ros.closures import LoopClosureRow, read_loop_closures
from binvpr_ros.ros.messages import from_nanoseconds, message_from_closures
from binvpr_ros.ros.node import EVERY_RESULT
from binvpr_ros.ros.replay import wait_for_subscriber
from binvpr_ros.ros.watch import Running, Watcher, WatchError, cells, find, line, wait_for_node

pytestmark = pytest.mark.usefixtures("ros")

EAGER = ("-p", "keyframe_distance:=0.0", "-p", "keyframe_min_interval:=0.0")
WATCH = [sys.executable, "-c", "import sys; from binvpr_ros.programs import binvpr; sys.exit(binvpr())", "watch"]
ROW = LoopClosureRow(1_022_400_000_000, 900_300_000_000, 40, 3, 2, 2, 500, 0.754, 25)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Robot]]:
    robots: list[Robot] = []

    def start_robot(*arguments: str, **options: Any) -> Robot:
        robots.append(Robot(tmp_path, *EAGER, *arguments, **options))
        return robots[-1]

    yield start_robot
    for robot in robots:
        robot.close()


def lines_of(robot: Robot) -> list[str]:
    return [line(row) for message in robot.listener.closures for row in read_loop_closures(message)]


def is_there_soon(file: Path, seconds: float = 2.0) -> bool:
    deadline = time.monotonic() + seconds
    while not file.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    return file.is_file()


def test_without_a_terminal_it_prints_lines_and_saves_what_a_match_in_the_map_file_looked_like(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    database = ("-p", f"database:={tmp_path / 'map.db'}")
    first = start(*database, "-p", "thumbnails:=true")
    first.show(world_images[:20], start=100)
    first.close()

    robot = start(*database, "-p", "thumbnails:=true")
    output, folder = tmp_path / "watch.txt", tmp_path / "deep" / "pictures"
    with output.open("w", encoding="utf-8") as file:
        watch = subprocess.Popen([*WATCH, "--save", str(folder)], stdout=file, stderr=subprocess.PIPE, text=True)
    try:
        robot.wait(lambda: robot.node.count_subscribers("/binvpr/match_image") == 1, "it has found the node")
        for number in range(40):  # again and again, until the node has found it too, for which it draws
            (stamp,) = robot.show([world_images[8 + number % 4]], start=1022 + number / 5)
            last = folder / f"{stamp // 10**9:010}.{stamp % 10**9:09}.jpg"
            if number % 4 == 3 and is_there_soon(last):
                break
        assert last.is_file()
        robot.wait(lambda: len(lines_of(robot)) == robot.count("loop_closures"), "all closures have come")
        robot.wait(lambda: lines_of(robot)[-1] in output.read_text(), "the last one is printed")
        robot.wait(lambda: "keyframes (" in output.read_text(), "it reports")
    finally:
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=20)
    assert watch.returncode == 0
    assert errors == ""
    printed = output.read_text().splitlines()
    closures = [text for text in printed if "closure with" in text]
    assert closures
    assert closures == lines_of(robot)[-len(closures) :]
    assert all("session 0 (earlier), 15." in text for text in closures)
    assert any(re.search(r"; \d+ keyframes .* latency .* saved", text) for text in printed)

    names = sorted(path.stem for path in folder.iterdir())
    assert names == sorted(names, key=float)
    picture = cv2.imread(str(last))
    assert picture is not None
    query, match = (
        picture[TITLE_HEIGHT:-LABEL_HEIGHT, left : left + PANEL[0]].astype(int) for left in (0, PANEL[0] + GAP)
    )
    assert np.median(np.abs(query - match)) < 12  # the thumbnail, not features on a dark ground
    seen = cv2.resize(cv2.cvtColor(world_images[11], cv2.COLOR_RGB2BGR), PANEL).astype(int)
    assert np.median(np.abs(query - seen)) < 6  # its colours are in order


def test_in_a_terminal_it_is_a_live_table_that_ctrl_c_ends(
    start: Callable[..., Robot], world_images: list[NDArray[np.uint8]]
) -> None:
    robot = start(namespace="/front")
    size = {"COLUMNS": "120", "LINES": "40", "TERM": "xterm"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(WATCH[0], [*WATCH, "--namespace", "front"], {**os.environ, **size})  # noqa: S606 - wants none
    shown = b""

    def read() -> bool:
        """Read what is shown; return whether more may come."""
        nonlocal shown
        try:
            while select.select([terminal], [], [], 0)[0]:
                shown += (data := os.read(terminal, 65536))
                if not data:
                    return False
        except OSError:  # the other side is closed
            return False
        return True

    def now_shown(pattern: str) -> bool:
        read()
        return re.search(pattern, shown.decode(errors="replace")) is not None

    try:
        robot.wait(lambda: now_shown("loop closures of /front"), "it has found the node")
        robot.show(world_images[:20], start=100)
        robot.show(world_images[30:36], start=112)
        robot.show(world_images[4:12], start=122)
        robot.wait(lambda: now_shown(r" 34 keyframes \([1-9]\d* in the last minute\)"), "all is counted")
        row = read_loop_closures(robot.listener.closures[-1])[-1]
        robot.wait(lambda: now_shown(re.escape(f"│ {cells(row)[0]} │ {cells(row)[1]}")), "the last closure is shown")
        assert now_shown("no history")
    finally:
        os.write(terminal, b"\x03")
        deadline = time.monotonic() + 20
        while read() and time.monotonic() < deadline:
            time.sleep(0.05)
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert "Traceback" not in shown.decode(errors="replace")


def test_it_waits_for_a_node_and_ctrl_c_ends_that_too() -> None:
    watch = subprocess.Popen([*WATCH, "--namespace", "nowhere"], stderr=subprocess.PIPE, text=True)
    assert watch.stderr is not None
    assert watch.stderr.readline() == (
        "watch: waiting for a node that publishes loop_closures in the namespace /nowhere\n"
    )
    watch.send_signal(signal.SIGINT)
    _, errors = watch.communicate(timeout=20)
    assert (watch.returncode, errors) == (0, "")


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [*WATCH, "--save", str(tmp_path / "file" / "folder")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr == (f"watch: {tmp_path}/file/folder cannot be made (Not a directory); name another folder\n")


def test_of_several_nodes_one_is_asked_for() -> None:
    nodes = [rclpy.create_node("binvpr", namespace=namespace) for namespace in ("/", "/front", "/rear")]
    executor = SingleThreadedExecutor()
    executor.add_node(nodes[0])

    def spin(seconds: float) -> bool:
        executor.spin_once(timeout_sec=seconds)
        return True

    try:
        for node in nodes:
            node.create_publisher(PointCloud2, "loop_closures", EVERY_RESULT)
            node.create_publisher(Header, "keyframes", EVERY_RESULT)
        with pytest.raises(WatchError, match="in /, /front, /rear; choose one with --namespace"):
            wait_for_node(nodes[0], spin, None)
        assert find(nodes[0], "/front") == [Running("/front", "binvpr")]
        assert wait_for_node(nodes[0], spin, "/") == Running("/", "binvpr")
    finally:
        executor.shutdown()
        for node in nodes:
            node.destroy_node()


def test_what_others_publish_on_its_topics_is_skipped_in_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    node, seen = rclpy.create_node("binvpr"), list[LoopClosureRow]()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    watcher = Watcher(node, Running("/", "binvpr"), on_closure=seen.append)
    closures = node.create_publisher(PointCloud2, "/loop_closures", EVERY_RESULT)
    diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    bits = np.zeros(32, np.uint64)
    closure = LoopClosure(Keyframe(40, 2, ROW.query_stamp, bits), Keyframe(3, 2, ROW.match_stamp, bits), 500, 0.75, 25)
    values = [KeyValue(key="unclosed_few_inliers", value="many"), KeyValue(key="unclosed_no_history", value="3")]
    try:
        assert wait_for_subscriber(closures, 20.0)
        assert wait_for_subscriber(diagnostics, 20.0)
        for _ in range(2):
            status = DiagnosticStatus(level=b"\x00", name="binvpr: place recognition", values=values)
            diagnostics.publish(DiagnosticArray(status=[status]))
            closures.publish(PointCloud2())
            closures.publish(message_from_closures(Header(stamp=from_nanoseconds(ROW.query_stamp)), [closure]))
        deadline = time.monotonic() + 20
        while (len(seen) < 2 or not watcher.values) and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        assert [row.match_stamp for row in seen] == [ROW.match_stamp] * 2
        assert watcher.outcomes() == {"no history": 3}
        assert sorted(capfd.readouterr().err.splitlines()) == [
            "watch: a message on /loop_closures is skipped: the message is no table of loop closures: its fields "
            "differ; check the topic",
            "watch: unclosed_few_inliers of binvpr: place recognition is skipped: it is not a number; check who "
            "publishes it",
        ]
    finally:
        executor.shutdown()
        node.destroy_node()


def test_keyframes_are_forgotten_while_no_diagnostics_come() -> None:
    node, time_is = rclpy.create_node("watcher"), 0.0
    watcher = Watcher(node, Running("/", "binvpr"), clock=lambda: time_is)
    try:
        for second in range(300):
            time_is = float(second)
            watcher._on_keyframe(Header())
        assert len(watcher._keyframes) == 61  # 239 s to 299 s
    finally:
        node.destroy_node()


def test_a_reader_that_has_enough_ends_the_live_table(start: Callable[..., Robot]) -> None:
    start()
    watch = subprocess.Popen(
        WATCH, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "FORCE_COLOR": "1"}
    )
    assert watch.stdout is not None
    assert watch.stderr is not None
    assert watch.stdout.readline()
    watch.stdout.close()
    assert watch.stderr.read() == ""
    assert watch.wait(30) == 0


def test_the_status_says_what_the_node_says_and_that_it_has_stopped() -> None:
    node, time_is = rclpy.create_node("watcher"), 0.0
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    watcher = Watcher(node, Running("/front", "binvpr"), clock=lambda: time_is)
    publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    values = {"keyframes": "26", "keyframes_closed": "3", "loop_closures": "5",
              "latency_ms_median": "unknown: the stamps are 3.0 h old",
              "latency_ms_p95": "unknown: the stamps are 3.0 h old", "processing_ms_median": "8.0",
              "processing_ms_p95": "9.5", "unclosed_few_inliers": "3", "unclosed_no_history": "20",
              "unclosed_odometry": "0", "refused_few_inliers": "99"}  # fmt: skip
    mine = DiagnosticStatus(level=b"\x01", name="front/binvpr: place recognition", message="the disk is nearly full",
                            values=[KeyValue(key=key, value=value) for key, value in values.items()])  # fmt: skip
    other = DiagnosticStatus(level=b"\x00", name="rear/binvpr: place recognition", message="5.0 images/s")
    try:
        assert str(watcher.status()) == "waiting for diagnostics"
        assert wait_for_subscriber(publisher, 20.0)
        publisher.publish(DiagnosticArray(status=[mine, other]))
        deadline = time.monotonic() + 20
        while not watcher.values and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        assert str(watcher.status()) == (
            "the disk is nearly full; 26 keyframes (0 in the last minute), "
            "latency unknown: the stamps are 3.0 h old, processing 8.0 ms (95%: 9.5 ms)"
        )
        assert list(watcher.outcomes().items()) == [("closed a loop", 3), ("no history", 20), ("few inliers", 3)]
        time_is = 60.0
        assert str(watcher.status()) == "no diagnostics for 60.0 s: has the node stopped?"
    finally:
        executor.shutdown()
        node.destroy_node()


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (ROW, "1022.4 s  closure with keyframe 3, session 2, 2.0 min ago, score 0.75, 25 inliers"),
        (ROW._replace(inliers=-1), "1022.4 s  closure with keyframe 3, session 2, 2.0 min ago, score 0.75"),
        (
            ROW._replace(match_session=0, match_stamp=5_000_000_000_000),
            "1022.4 s  closure with keyframe 3, session 0 (earlier), score 0.75, 25 inliers",
        ),
    ],
)
def test_a_closure_is_a_line(row: LoopClosureRow, text: str) -> None:
    assert line(row) == text


def test_a_stamp_of_today_is_a_time_of_day() -> None:
    now = time.time_ns()
    assert cells(ROW._replace(query_stamp=now))[0] == time.strftime("%H:%M:%S", time.localtime(now // 10**9))
