# SPDX-License-Identifier: Apache-2.0
"""What others wrote is data and never code, and takes no memory without bound; the node's rights are few."""

from __future__ import annotations

import ast
import importlib.util
import os
import sqlite3
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "binvpr_ros").rglob("*.py"))
MODEL = "a" * 64
WORDS = 4

CODE_MODULES = {"cloudpickle", "code", "codeop", "dill", "joblib", "marshal", "pickle", "runpy", "shelve"}
"""Modules whose files may run code when they are read, or that run text as code."""
CODE_CALLS = {"compile", "eval", "exec", "__import__", "os.popen", "os.system", "subprocess.getoutput",
              "subprocess.getstatusoutput", "yaml.load", "yaml.unsafe_load", "torch.load"}  # fmt: skip
READERS_OF_PICKLES = {
    "lab/evaluation/datasets/object_array.py",  # VPR-Bench: its unpickler knows arrays of data and no more
    "lab/training/efficientnet_lite0.py",  # the published weights: its unpickler knows tensors and no more
}
SQL_OF_OURS = {"closes", "name", "', '.join(names)", "', '.join(values)", "places",
               "self._names", "self._closes", "order", "distance", "own", "table"}  # fmt: skip
"""What may stand in an SQL statement beside constants and numbers: names of our own columns, question marks."""
SQL_CALLS = ("execute", "executemany", "executescript", "fetch", "fetchrow", "fetchval")
SQL_VERBS = ("ALTER ", "CREATE ", "DELETE ", "GRANT ", "INSERT ", "SELECT ", "UPDATE ", "WITH ")


def calls(path: Path) -> Iterator[ast.Call]:
    """Yield all calls in a file."""
    return (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))


def imports(path: Path) -> set[str]:
    """Return the packages that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def identity(path: Path) -> str:
    return path.relative_to(ROOT / "binvpr_ros").as_posix()


def test_the_readers_of_pickles_are_these() -> None:
    assert {identity(path) for path in SOURCES if imports(path) & CODE_MODULES} == READERS_OF_PICKLES


@pytest.mark.parametrize("name", sorted(READERS_OF_PICKLES))
def test_they_restrict_what_a_pickle_may_name(name: str) -> None:
    path = ROOT / "binvpr_ros" / name
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    restricted = [node for node in classes if "pickle.Unpickler" in map(ast.unparse, node.bases)]
    assert len(restricted) == 1
    assert "find_class" in {item.name for item in restricted[0].body if isinstance(item, ast.FunctionDef)}
    used = {ast.unparse(call.func) for call in calls(path)}
    assert not used & {"pickle.load", "pickle.loads", "pickle.Unpickler"}


@pytest.mark.parametrize("path", SOURCES, ids=identity)
def test_nothing_is_run_that_a_file_or_a_parameter_says(path: Path) -> None:
    for call in calls(path):
        name = ast.unparse(call.func)
        assert name not in CODE_CALLS, ast.unparse(call)
        for keyword in call.keywords:
            unsafe = keyword.arg in ("shell", "allow_pickle") and ast.unparse(keyword.value) != "False"
            assert not unsafe, ast.unparse(call)


@pytest.mark.parametrize("path", SOURCES, ids=identity)
def test_sql_is_parametrised(path: Path) -> None:
    for call in calls(path):
        if isinstance(call.func, ast.Attribute) and call.func.attr in SQL_CALLS and call.args:
            parts = [] if isinstance(call.args[0], ast.JoinedStr) else ast.walk(call.args[0])
            for node in parts:
                if isinstance(node, ast.BinOp):
                    assert isinstance(node.op, ast.Add), ast.unparse(call)
                elif isinstance(node, ast.Name) and not node.id.isupper():
                    known = ("closes", "name", "names", "statement", "steps", "values", "places")
                    assert node.id in known, ast.unparse(call)
    for text in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(text, ast.JoinedStr) and str(getattr(text.values[0], "value", "")).lstrip().startswith(SQL_VERBS):
            for part in text.values:
                if isinstance(part, ast.FormattedValue) and not is_number(part):
                    name = ast.unparse(part.value)
                    assert name.isupper() or name in SQL_OF_OURS, ast.unparse(text)


def is_number(part: ast.FormattedValue) -> bool:
    """Tell whether a value is formatted as an integer, which nothing else can be."""
    return part.format_spec is not None and ast.unparse(part.format_spec) == "f'd'"


@pytest.mark.parametrize(
    "name", ["a b.db", "'; DROP TABLE map; --.db", "$(touch x)", "file:x?mode=memory", ":memory:", "%41"]
)
def test_a_path_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for count in range(2):
        database = KeyframeDatabase(Path(name), MODEL, WORDS)
        assert len(database) == count
        database.add(database.next_keyframe(count, np.zeros(WORDS, np.uint64)))
        database.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def map_with(path: Path, *statements: str) -> Path:
    """Write a map of one keyframe, and then what a stranger has made of it."""
    database = KeyframeDatabase(path, MODEL, WORDS)
    database.add(database.next_keyframe(1, np.zeros(WORDS, np.uint64)))
    database.close()
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON keyframes BEGIN DELETE FROM keyframes; END",
        f"CREATE TRIGGER t BEFORE INSERT ON keyframes WHEN (SELECT COUNT(*) FROM ({ENDLESS})) BEGIN SELECT 1; END",  # noqa: S608
        f"CREATE VIEW v AS {ENDLESS}",
        "CREATE VIRTUAL TABLE t USING fts4(text)",
    ],
)
def test_what_a_map_would_have_sqlite_do_is_not_done(tmp_path: Path, statement: str) -> None:
    path = map_with(tmp_path / "map.db", statement)
    before = path.read_bytes()
    with pytest.raises(
        DatabaseError, match=r"contains views or triggers, which maps do not have; name another map file"
    ):
        KeyframeDatabase(path, MODEL, WORDS)
    assert path.read_bytes() == before


HUGE = 256 << 20
WITH_LITTLE_MEMORY = f"""
import resource, sys
from pathlib import Path
import numpy as np
from binvpr_ros.maps.database import DatabaseError, KeyframeDatabase
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + {HUGE // 4}
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    database = KeyframeDatabase(Path(sys.argv[1]), {MODEL!r}, {WORDS})
    print(database.features(database.keyframe(0)))
    database.add(database.next_keyframe(2, np.zeros({WORDS}, np.uint64)))
    print(len(database))
except DatabaseError as error:
    print(error)
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot limit what SQLite takes")
@pytest.mark.parametrize(
    ("change", "output"),
    [
        ("UPDATE keyframes SET descriptor = zeroblob({})", "cannot be read"),
        ("UPDATE keyframes SET session = zeroblob({})", "cannot be read"),
        ("UPDATE map SET model_sha256 = CAST(zeroblob({}) AS TEXT)", "cannot be opened as a map"),
        ("UPDATE map SET schema_version = zeroblob({})", "cannot be opened as a map"),
        ("UPDATE keyframes SET features = zeroblob({})", "None\n2"),
    ],
)
def test_a_huge_value_takes_no_memory(tmp_path: Path, change: str, output: str) -> None:
    path = map_with(tmp_path / "map.db", change.format(HUGE))
    result = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_MEMORY, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert output in result.stdout, result.stdout + result.stderr
    assert len(result.stdout) < 1000


def profile_of(name: str) -> ET.Element:
    """Return what the policy allows a node."""
    policy = ET.parse(ROOT / "config" / "sros2_policy.xml").getroot()  # noqa: S314 - our own file
    (profile,) = (one for one in policy.iter("profile") if one.get("node") == name)
    return profile


def rights(node: str, kind: str, right: str) -> set[str]:
    """Return the names that the policy allows a node: `kind` is topic or service."""
    groups = profile_of(node).iter(f"{kind}s")
    names = [element.text for group in groups if group.get(right) == "ALLOW" for element in group]
    assert len(names) == len(set(names)) > 0
    return set(filter(None, names))


def test_the_policy_allows_each_node_what_it_needs_and_denies_by_default() -> None:
    policy = ET.parse(ROOT / "config" / "sros2_policy.xml").getroot()  # noqa: S314 - our own file
    assert (policy.tag, policy.get("version")) == ("policy", "0.2.0")
    assert [enclave.get("path") for enclave in policy.iter("enclave")] == ["/binvpr/binvpr", "/binvpr/pose_graph"]
    for name in ("binvpr", "pose_graph"):
        profile = profile_of(name)
        assert profile.get("ns") == "/binvpr"
        assert [(group.tag, dict(group.attrib)) for group in profile] == [
            ("topics", {"subscribe": "ALLOW"}), ("topics", {"publish": "ALLOW"}), ("services", {"reply": "ALLOW"}),
        ]  # fmt: skip


@pytest.mark.usefixtures("ros")
def test_the_policy_allows_what_the_node_does_and_no_more(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from binvpr_ros.ros.live import Listener, NodeProcess

    found: dict[str, set[str]] = {"subscribe": set(), "publish": set(), "reply": set()}
    everything = ["-p", "compressed:=true", "-p", "keyframe_source:=topic", "-p", "use_sim_time:=true"]
    without = {"/binvpr/fleet_closures"}
    if importlib.util.find_spec("asyncpg") is not None:
        everything += ["-p", f"database:={tmp_path}/map.db", "-p", "fleet:=postgresql://robot@/fleet?host=/nowhere"]
        without = set()
    for image, arguments in (("/camera/image_raw", []), ("/camera/image_raw/compressed", everything)):
        names = [
            "-r",
            "__ns:=/binvpr",
            "-r",
            f"image:={image}",
            "-r",
            "camera_info:=/camera/camera_info",
            "-r",
            "odometry:=/odom",
        ]
        with Listener("/listener") as listener, NodeProcess(*names, *arguments, log=tmp_path / "node.log"):
            seen = _wait_for_node(listener.node, "binvpr", image)
        for right, more in seen.items():
            found[right] |= more
    assert found["subscribe"] == rights("binvpr", "topic", "subscribe")
    assert found["publish"] == rights("binvpr", "topic", "publish") - without
    assert found["reply"] | _missing("binvpr") == rights("binvpr", "service", "reply")


@pytest.mark.usefixtures("ros")
def test_the_policy_allows_what_pose_graph_does_and_no_more(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    pytest.importorskip("gtsam", reason="the extra slam is not installed")
    from binvpr_ros.ros.live import Listener

    command = [sys.executable, "-m", "binvpr_ros.ros.pose_graph", "--ros-args", "-r", "__ns:=/binvpr"]
    command += ["-r", "odometry:=/odom", "-p", "use_sim_time:=true"]
    with Listener("/listener") as listener, (tmp_path / "node.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            seen = _wait_for_node(listener.node, "pose_graph", "/odom")
        finally:
            process.terminate()
            process.wait(20)
    with_tf = importlib.util.find_spec("tf2_msgs") is not None
    tf = set() if with_tf else {"/tf", "/tf_static"}  # it has no wheel
    assert seen["subscribe"] | tf - {"/tf"} == rights("pose_graph", "topic", "subscribe")
    assert seen["publish"] | tf - {"/tf_static"} == rights("pose_graph", "topic", "publish")
    assert seen["reply"] | _missing("pose_graph") == rights("pose_graph", "service", "reply")


def _missing(name: str) -> set[str]:
    return {f"/binvpr/{name}/get_type_description"} if os.environ.get("ROS_DISTRO") == "humble" else set()


def _wait_for_node(node: Any, name: str, image: str, seconds: float = 30.0) -> dict[str, set[str]]:
    """Return the names of a node's topics and services, once it has subscribed to `image` and all is known."""
    seen: dict[str, set[str]] = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before, seen = seen, {
            "subscribe": _names(node.get_subscriber_names_and_types_by_node, name),
            "publish": _names(node.get_publisher_names_and_types_by_node, name),
            "reply": _names(node.get_service_names_and_types_by_node, name),
        }  # fmt: skip
        if image in seen["subscribe"] and seen == before:
            return seen
        time.sleep(0.5)
    raise AssertionError(f"the node did not subscribe to {image}; it has {seen}")


def _names(ask: Any, node: str) -> set[str]:
    try:
        return {name for name, _ in ask(node, "/binvpr")}
    except Exception:  # noqa: BLE001 - the node is not there yet
        return set()
