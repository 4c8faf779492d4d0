# SPDX-License-Identifier: Apache-2.0
"""The examples work: the node in Python beside the real node; the reader in C++ on the bytes of a message."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from robot import Robot
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from binvpr_ros.fleet_closure import FleetClosure
from binvpr_ros.keyframes import Keyframe
from binvpr_ros.loop_closure import LoopClosure
from binvpr_ros.loop_constraint import LoopConstraint, RelativePose
from binvpr_ros.ros.closures import read_loop_closures
from binvpr_ros.ros.messages import (
    from_nanoseconds,
    message_from_closures,
    message_from_constraints,
    message_from_fleet_closures,
)

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
COMPILER = shutil.which("g++")
INCLUDES = Path(sys.prefix) / "include"
PACKAGES = ("sensor_msgs", "std_msgs", "builtin_interfaces", "geometry_msgs", "rosidl_runtime_cpp", "rosidl_runtime_c",
            "rosidl_typesupport_interface", "rcutils")  # fmt: skip
PREFIXES = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]

# From standard input, since a robot's would come over DDS: fields, then the bytes.
READ_MESSAGE = """
  sensor_msgs::msg::PointCloud2 msg;
  int fields = 0, bytes = 0, value = 0;
  std::cin >> msg.header.stamp.sec >> msg.header.stamp.nanosec >> msg.width >> msg.point_step >> fields;
  for (int index = 0; index < fields; ++index) {
    sensor_msgs::msg::PointField field;
    int kind = 0;
    std::cin >> field.name >> field.offset >> kind >> field.count;
    field.datatype = static_cast<std::uint8_t>(kind);
    msg.fields.push_back(field);
  }
  msg.height = 1;
  msg.row_step = msg.width * msg.point_step;
  for (std::cin >> bytes; bytes > 0; --bytes) {
    std::cin >> value;
    msg.data.push_back(static_cast<std::uint8_t>(value));
  }
"""
PRINT_CONSTRAINTS = """
#include <iostream>

#include "loop_constraints.hpp"

int main()
{
  @READ@
  std::cout.precision(17);
  for (const LoopConstraint & row : readLoopConstraints(msg)) {
    std::cout << row.query << ' ' << row.match << ' ' << row.same_session << ' ' << row.scale_known;
    std::cout << ' ' << row.inliers;
    for (double number : row.translation) {std::cout << ' ' << number;}
    for (double number : row.rotation) {std::cout << ' ' << number;}
    for (double number : row.covariance) {std::cout << ' ' << number;}
    std::cout << '\\n';
  }
  msg.data.pop_back();
  try {
    readLoopConstraints(msg);
  } catch (const std::runtime_error &) {
    std::cout << "cut\\n";
  }
}
"""
PRINT_FLEET_CLOSURES = """
#include <iostream>

#include "fleet_closures.hpp"

int main()
{
  @READ@
  for (const FleetClosure & row : readFleetClosures(msg)) {
    std::cout << row.query << ' ' << row.match << ' ' << row.other_clock << ' ' << row.robot << ' ' << int{row.map[0]};
    std::cout << ' ' << row.map_keyframe << ' ' << row.map_session << ' ' << row.match_id << ' ' << row.match_session;
    std::cout << ' ' << row.score << ' ' << row.inliers << ' ' << static_cast<int>(row.pose) << ' ';
    std::cout << row.translation[2] << ' ' << row.rotation[3] << ' ' << row.covariance[35] << '\\n';
  }
  msg.data.pop_back();
  try {
    readFleetClosures(msg);
  } catch (const std::runtime_error &) {
    std::cout << "cut\\n";
  }
}
"""
INTERFACES = """
#include <iostream>

#include "loop_closures.hpp"

void try_to_close(std::int64_t query, std::int64_t match, float score)
{
  std::cout << query << ' ' << match << ' ' << score << '\\n';
}

int main()
{
  @READ@
  const auto * message = &msg;
  @SNIPPET@
}
"""
# The classes have the members of ORB-SLAM3's that docs/back_ends.md uses, whose code stands for @STEP@.
MAIN = """
#include <iostream>
#include <set>

#include "place_candidates.hpp"

struct KeyFrame
{
  double mTimeStamp;
  std::set<KeyFrame *> neighbours = {};
  bool bad = false;
  bool isBad() const {return bad;}
  std::set<KeyFrame *> GetConnectedKeyFrames() const {return neighbours;}
};

struct Map
{
  std::vector<KeyFrame *> keyframes;
  bool bad = false;
  bool IsBad() const {return bad;}
  std::vector<KeyFrame *> GetAllKeyFrames() const {return keyframes;}
};

struct Atlas
{
  std::vector<Map *> maps;
  std::vector<Map *> GetAllMaps() const {return maps;}
};

int main()
{
  @READ@
  for (const LoopClosure & row : readLoopClosures(msg)) {
    std::cout << row.query << ' ' << row.match << ' ' << row.score << ' ';
    std::cout << row.inliers << ' ' << row.same_session << '\\n';
  }

  PlaceCandidates mPlaceCandidates;
  mPlaceCandidates.add(readLoopClosures(msg));
  std::cout.precision(15);
  for (double stamp : mPlaceCandidates.matches(1790000000.25, 0.1)) {std::cout << stamp << '\\n';}
  std::cout << mPlaceCandidates.matches(1790000001.0, 0.1).size() << '\\n';

  LoopClosure later{1790000002000000000, 1, 0, 0, true}, again = later;
  again.query = 1790000000200000000;
  PlaceCandidates looped;
  looped.add(std::vector<LoopClosure>(1000, later));
  looped.add({again, again});
  std::cout << looped.matches(1790000000.25, 0.1).size() << ' ' << looped.matches(1790000002.0, 0.1).size() << '\\n';

  msg.data.pop_back();
  try {
    readLoopClosures(msg);
  } catch (const std::runtime_error &) {
    std::cout << "cut\\n";
  }

  // The match is at 1789999900.5 s.
  KeyFrame far{1789999900.3}, near{1789999900.46}, removed{1789999900.5}, other{1789999900.55}, current{1790000000.2};
  removed.bad = true;
  for (KeyFrame * keyframe : {&near, &removed, &other}) {keyframe->neighbours = {&far};}
  Map here{{&far, &near, &removed, &current}}, there{{&other}}, gone{{&other}, true};
  Atlas atlas{{&gone, &there, &here}}, * mpAtlas = &atlas;
  Map * mpLastMap = &here;
  KeyFrame * mpCurrentKF = &current;
  std::vector<KeyFrame *> vpLoopBowCand, vpMergeBowCand;
  for (int times = 0; times < 2; ++times) {
    @STEP@
  }
  std::cout << (vpLoopBowCand == std::vector<KeyFrame *>{&near}) << '\\n';
  std::cout << (vpMergeBowCand == std::vector<KeyFrame *>{&other}) << '\\n';
  vpLoopBowCand.clear();
  current.neighbours = {&near};
  appendCandidates(mPlaceCandidates, &current, here.keyframes, 0.1, vpLoopBowCand);
  std::cout << vpLoopBowCand.size() << '\\n';
}
"""


def closures() -> list[LoopClosure]:
    bits = np.zeros(32, np.uint64)
    query = Keyframe(40, 2, 1_790_000_000_200_000_000, bits)
    earlier = Keyframe(3, 2, 1_789_999_900_500_000_001, bits)
    of_another_session = Keyframe(1, 0, 1_700_000_000_000_000_000, bits)
    return [LoopClosure(query, earlier, 500, 0.75, 25), LoopClosure(query, of_another_session, 600, 0.5)]


def printed_in_cpp(program: str, message: PointCloud2, folder: Path) -> list[str]:
    """Return the lines that a program prints which reads a message."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler")
    if not (INCLUDES / "sensor_msgs").is_dir():
        pytest.skip(f"ROS's headers are not in {INCLUDES}")
    source = folder / "reader.cpp"
    source.write_text(program.replace("@READ@", READ_MESSAGE), encoding="utf-8")
    includes = [f"-I{EXAMPLES / 'cpp'}", *(f"-I{INCLUDES / name}" for name in PACKAGES)]
    command = [str(COMPILER), "-std=c++17", "-Wall", "-Wextra", "-Werror", *includes, str(source), "-o", "reader"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    stamp, data = message.header.stamp, bytes(message.data)
    words = [stamp.sec, stamp.nanosec, message.width, message.point_step, len(message.fields)]
    for field in message.fields:
        words += [field.name, field.offset, field.datatype, field.count]
    text = " ".join(map(str, [*words, len(data), *data]))
    return subprocess.run(
        [folder / "reader"], input=text, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_a_pose_graph_in_cpp_reads_what_the_node_publishes(tmp_path: Path) -> None:
    sent = []
    for match, known in ((3, True), (4, False)):
        rotation = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        translation = np.array([0.6, -0.8, 0]) * (2 if known else 1)
        covariance = np.diag(np.arange(1.0, 7.0)) / 8
        pose = RelativePose(rotation, translation, covariance, known, 60 + match)
        session = match - 3
        sent.append(LoopConstraint(40, match, 0, session, 1_790_000_000_200_000_003, 1_789_999_900_500_000_001, pose))
    *lines, last = printed_in_cpp(PRINT_CONSTRAINTS, message_from_constraints(Header(), sent), tmp_path)
    assert last == "cut"
    for line, one, known in zip(lines, sent, (True, False), strict=True):
        words = line.split()
        numbers = [one.query_stamp, one.match_stamp, int(known), int(known), one.pose.inliers]
        assert words[:5] == [str(number) for number in numbers]
        half = np.sqrt(0.5)
        expected = [*one.pose.translation, 0, 0, half, half, *one.pose.covariance.ravel()]
        np.testing.assert_allclose([float(word) for word in words[5:]], expected, atol=1e-12)


def test_a_back_end_in_cpp_reads_closures_with_the_maps_of_others(tmp_path: Path) -> None:
    pose = RelativePose(np.eye(3), np.array([1.0, 2.0, 3.0]), np.diag([1.0, 1, 1, 1, 1, 8]), True, 44)
    uuid = "12345678-1234-5678-1234-56781234567a"
    sent = [
        FleetClosure(1, 2, 3 * 10**9, "robot_a", uuid, 5, 6, 7 * 10**9 + 8, True, 9, 0.5, 10, pose),
        FleetClosure(1, 2, 3 * 10**9, "b", uuid, 4, 6, 5, False, 9, 0.25, -1),
    ]
    message = message_from_fleet_closures(Header(stamp=from_nanoseconds(3 * 10**9)), sent, lambda _: 7)
    assert printed_in_cpp(PRINT_FLEET_CLOSURES, message, tmp_path) == [
        "3000000000 7000000008 1 robot_a 18 5 6 2147483653 2147483655 0.5 10 2 3 1 8",
        "3000000000 5 0 b 18 4 6 2147483652 2147483655 0.25 -1 0 0 0 0",
        "cut",
    ]


def test_a_back_end_in_cpp_reads_what_the_node_publishes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "back_ends.md").read_text(encoding="utf-8")
    (step,) = re.findall(r"```cpp\n((?:(?!```).)*?appendCandidates.*?)```", page, re.DOTALL)
    message = message_from_closures(Header(stamp=from_nanoseconds(1_790_000_000_200_000_000)), closures())
    printed = printed_in_cpp(MAIN.replace("@STEP@", textwrap.dedent(step)), message, tmp_path)
    assert printed == [
        "1790000000200000000 1789999900500000001 0.75 25 1",
        "1790000000200000000 1700000000000000000 0.5 -1 0",
        "1789999900.5",
        "0",
        "2 998",
        "cut",
        "1",
        "1",
        "0",
    ]


def snippet(language: str, name: str) -> str:
    """Return the one code block of docs/interfaces.md in a language that has a name in it."""
    page = (ROOT / "docs" / "interfaces.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{language}\n((?:(?!```).)*?{name}.*?)```", page, re.DOTALL)
    return str(found)


def test_the_docs_read_closures_in_python() -> None:
    called: list[tuple[int, int, float]] = []
    names: dict[str, Any] = {"try_to_close": lambda *values: called.append(values)}
    exec(snippet("python", "read_loop_closures"), names)  # noqa: S102 - our own page
    names["on_loop_closures"](
        message_from_closures(Header(stamp=from_nanoseconds(1_790_000_000_200_000_000)), closures())
    )
    assert called == [(one.query.stamp, one.match.stamp, one.score) for one in closures()]


def test_the_docs_read_constraints_in_python() -> None:
    edges: list[tuple[Any, ...]] = []
    names: dict[str, Any] = {"add_edge": lambda *values: edges.append(values)}
    exec(snippet("python", "read_loop_constraints"), names)  # noqa: S102 - our own page
    poses = [RelativePose(np.eye(3), np.array([0.0, 0, 1]), np.eye(6), known, 30) for known in (True, False)]
    sent = [LoopConstraint(2, 1, 0, 0, 20, 10, pose) for pose in poses]
    names["on_loop_constraints"](message_from_constraints(Header(), sent))
    ((match_stamp, query_stamp, rotation, translation, covariance),) = edges
    assert (match_stamp, query_stamp) == (10, 20)
    for found, expected in ((rotation, np.eye(3)), (translation, [0, 0, 1]), (covariance, np.eye(6))):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_docs_read_closures_in_cpp(tmp_path: Path) -> None:
    program = INTERFACES.replace("@SNIPPET@", snippet("cpp", "readLoopClosures"))
    message = message_from_closures(Header(stamp=from_nanoseconds(1_790_000_000_200_000_000)), closures())
    assert printed_in_cpp(program, message, tmp_path) == [
        "1790000000200000000 1789999900500000001 0.75",
        "1790000000200000000 1700000000000000000 0.5",
    ]


@pytest.mark.skipif(
    not any((prefix / "share" / "rclcpp").is_dir() for prefix in PREFIXES),
    reason="rclcpp is not installed: it is in no package registry",
)
def test_the_node_in_cpp_builds(tmp_path: Path) -> None:
    for command in (["cmake", "-S", str(EXAMPLES / "cpp"), "-B", str(tmp_path)], ["cmake", "--build", str(tmp_path)]):
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "print_closures").is_file()


@pytest.mark.usefixtures("ros")
def test_the_node_in_python_prints_closures_and_relocalisations(
    world_images: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    arguments = ("-p", "keyframe_distance:=0.0", "-p", "keyframe_min_interval:=0.0", "-p", f"database:={tmp_path}/a.db")
    robot = Robot(tmp_path, *arguments)
    robot.show(world_images[:20], start=100)
    robot.close()

    robot = Robot(tmp_path, *arguments)
    output = tmp_path / "printed.txt"
    with output.open("w", encoding="utf-8") as file:
        example = subprocess.Popen([sys.executable, EXAMPLES / "print_closures.py"], stdout=file)
    try:
        robot.wait(lambda: "closure_printer" in robot.node.get_node_names(), "the example runs")
        stranger = robot.node.create_publisher(PointCloud2, "loop_closures", 1)
        robot.wait(lambda: stranger.get_subscription_count() == 2, "the example hears others too, as does the listener")
        stranger.publish(PointCloud2())
        robot.show(world_images[:20], start=1000)
        robot.show(world_images[30:36], start=1012)
        robot.show(world_images[4:12], start=1022)

        def expected() -> list[str]:
            return [
                f"{'relocalised in session 0' if row.is_relocalisation else 'loop closed'}: the image at "
                f"{row.query_stamp * 1e-9:.3f} s shows the place of {row.match_stamp * 1e-9:.3f} s "
                f"(score {row.score:.2f}, {row.inliers} inliers)"
                for message in robot.listener.closures
                if message.fields  # not the stranger's
                for row in read_loop_closures(message)
            ]

        robot.wait(lambda: len(expected()) == robot.count("loop_closures"), "all closures have come")
        robot.wait(lambda: output.read_text().splitlines()[-1:] == expected()[-1:] != [], "the last one is printed")
        printed = output.read_text().splitlines()
        assert printed == expected()[-len(printed) :]  # the node may not have known of the example at first
        assert {line.partition(":")[0] for line in printed} == {"relocalised in session 0", "loop closed"}
    finally:
        example.send_signal(signal.SIGINT)
        robot.close()
    assert example.wait(20) == 0


def test_every_example_is_installed_and_says_its_licence() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    for path in (path for path in EXAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        assert "SPDX-License-Identifier: Apache-2.0" in path.read_text(encoding="utf-8"), path
        folder = path.parent.relative_to(ROOT).as_posix()
        (pattern,) = re.findall(rf'files\("{folder}", "(.*?)"\)', setup)
        assert path.match(pattern), path
