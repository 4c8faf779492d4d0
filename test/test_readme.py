# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows in C++ compiles, and reads what the node publishes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sensor_msgs.msg import PointField
from std_msgs.msg import Header

from binvpr_ros.keyframes import Keyframe
from binvpr_ros.loop_closure import LoopClosure
from binvpr_ros.ros.messages import from_nanoseconds, message_from_closures

ROOT = Path(__file__).resolve().parents[1]
COMPILER = shutil.which("g++")
INCLUDES = Path(sys.prefix) / "include"
PACKAGES = ("sensor_msgs", "std_msgs", "builtin_interfaces", "geometry_msgs", "rosidl_runtime_cpp", "rosidl_runtime_c",
            "rosidl_typesupport_interface", "rcutils")  # fmt: skip

# Reads the message from standard input, since a robot's would come over DDS: fields, then the bytes.
MAIN = """
int main()
{
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
  for (const LoopClosure & row : readLoopClosures(msg)) {
    std::cout << row.query << ' ' << row.match << ' ' << row.score << ' ';
    std::cout << row.inliers << ' ' << row.same_session << '\\n';
  }
}
"""


def cpp_of(page: str) -> str:
    (code,) = re.findall(r"```cpp\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def closures() -> list[LoopClosure]:
    bits = np.zeros(32, np.uint64)
    query = Keyframe(40, 2, 1_790_000_000_200_000_000, bits)
    earlier = Keyframe(3, 2, 1_789_999_900_500_000_001, bits)
    of_another_session = Keyframe(1, 0, 1_700_000_000_000_000_000, bits)
    return [LoopClosure(query, earlier, 500, 0.75, 25), LoopClosure(query, of_another_session, 600, 0.5)]


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
@pytest.mark.skipif(not (INCLUDES / "sensor_msgs").is_dir(), reason=f"ROS's headers are not in {INCLUDES}")
def test_a_back_end_in_cpp_reads_what_the_node_publishes(tmp_path: Path) -> None:
    source = tmp_path / "back_end.cpp"
    source.write_text("#include <iostream>\n" + cpp_of("README.md") + MAIN, encoding="utf-8")
    includes = [f"-I{INCLUDES / name}" for name in PACKAGES]
    command = [str(COMPILER), "-std=c++17", "-Wall", "-Wextra", "-Werror", *includes, str(source), "-o", "back_end"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr

    message = message_from_closures(Header(stamp=from_nanoseconds(1_790_000_000_200_000_000)), closures())
    assert all(field.datatype in (PointField.UINT32, PointField.INT32, PointField.FLOAT32) for field in message.fields)
    stamp, data = message.header.stamp, bytes(message.data)
    words = [stamp.sec, stamp.nanosec, message.width, message.point_step, len(message.fields)]
    for field in message.fields:
        words += [field.name, field.offset, field.datatype, field.count]
    text = " ".join(map(str, [*words, len(data), *data]))
    ran = subprocess.run([tmp_path / "back_end"], input=text, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "1790000000200000000 1789999900500000001 0.75 25 1",
        "1790000000200000000 1700000000000000000 0.5 -1 0",
    ]
