# SPDX-License-Identifier: Apache-2.0
"""`benchmark`: time an image on this machine, also against another runtime or model; the search; the whole node."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from binvpr_ros import lce_delegate
from binvpr_ros.config import BACKENDS, LOCAL_MODEL, Config, ConfigError, model_path, share_directory
from binvpr_ros.images import Image
from binvpr_ros.installation import how_to_install_module
from binvpr_ros.lab.lce_process import MODES, LceError, LceProcess, random_input
from binvpr_ros.lab.machine import cpu_name, heat, machine, versions
from binvpr_ros.lab.profile import profile, table
from binvpr_ros.lab.search import search_figures
from binvpr_ros.lab.timing import Timer, figures_of, measure, timer
from binvpr_ros.local_features import orb
from binvpr_ros.local_features.geometry import verify
from binvpr_ros.local_features.kinds import open_local_features
from binvpr_ros.network.backends import Backend, DelegateBackend, DescriptorError, LitertBackend, load_backend
from binvpr_ros.network.descriptor import DescriptorNetwork
from binvpr_ros.network.hamming import WORD_BITS
from binvpr_ros.network.model_card import ModelCard, ModelCardError
from binvpr_ros.recordings.image_files import JPEG_AND_PNG, read_image_file
from binvpr_ros.recordings.world import World, drive

FRAME = (480, 640, 3)
LOCAL_SIZE = (368, 480)
"""Of the input of the network for local features, for such a frame."""


def image_timer(network: DescriptorNetwork) -> Timer:
    """Time the whole way from a 640x480 image to its packed descriptor."""
    frame = np.random.default_rng(0).integers(0, 256, FRAME, np.uint8)
    return timer(lambda: network.describe(frame))


def network_timer(backend: Backend) -> Timer:
    """Time the network alone: inputs into tensors, the run, the first output out of its tensor."""
    assert isinstance(backend, LitertBackend)  # noqa: S101 - the model may have several inputs, which `run` does not take
    interpreter = backend.interpreter
    inputs = [
        (detail["index"], random_input(tuple(detail["shape"]), np.dtype(detail["dtype"])))
        for detail in interpreter.get_input_details()
    ]
    output = interpreter.get_output_details()[0]["index"]

    def run() -> None:
        for index, values in inputs:
            interpreter.set_tensor(index, values)
        interpreter.invoke()
        interpreter.get_tensor(output)

    return timer(run)


def binary_layers(content: bytes) -> tuple[bytes, int]:
    """Return the model with its Larq operators alone, and their multiply-accumulates an image."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import flexbuffers

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    names = [(code.customCode or b"").decode() for code in model.operatorCodes]
    kept = [node for node in graph.operators if names[node.opcodeIndex].startswith("Lce")]
    work = 0
    for node in kept:
        if names[node.opcodeIndex] == "LceBconv2d":
            _, height, width, _ = graph.tensors[node.outputs[0]].shape
            channels_out, filter_height, filter_width, words = graph.tensors[node.inputs[1]].shape
            channels_in = min(32 * words, flexbuffers.Loads(bytes(node.customOptions))["channels_in"])
            work += int(height * width * channels_out * filter_height * filter_width * channels_in)
    constant = {index for index, tensor in enumerate(graph.tensors) if model.buffers[tensor.buffer].data is not None}
    read = dict.fromkeys(int(tensor) for node in kept for tensor in node.inputs if tensor >= 0)
    written = dict.fromkeys(int(tensor) for node in kept for tensor in node.outputs)
    read_elsewhere = {int(tensor) for node in graph.operators if node not in kept for tensor in node.inputs}
    graph.operators = kept
    graph.inputs = [tensor for tensor in read if tensor not in written and tensor not in constant]
    graph.outputs = [tensor for tensor in written if tensor not in read or tensor in read_elsewhere]
    model.signatureDefs = []
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output()), work


def compare(choices: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Measure the network of `model`, or its binary layers, in turns with what it is compared with."""
    with contextlib.ExitStack() as stack:
        content, work = model.read_bytes(), 0
        if choices.binary:
            content, work = binary_layers(content)
            file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".tflite"))
            file.write(content)
            file.flush()
            model = Path(file.name)
        ours = _backend(choices, content)
        timers = {"ours": network_timer(ours)}
        if choices.versus == "lce":
            process = stack.enter_context(LceProcess(model, choices.threads))
            for mode in MODES:
                timers[mode] = functools.partial(process.times, mode)
        elif choices.versus:
            timers["versus"] = network_timer(_backend(choices, Path(choices.versus).read_bytes()))
        times = measure(timers, choices.repeat)
    figures = {
        "model": choices.model or model_path(Config()).name,
        **figures_of(times["ours"]),
        "measured": "binary layers" if choices.binary else "network",
    }
    if choices.versus == "lce":
        figures["lce"] = {mode: figures_of(times[mode]) for mode in MODES}
        figures["ratio"] = round(min(float(np.median(times[mode])) for mode in MODES) / figures["median_ms"], 2)
        figures["least_ratio"] = round(min(min(times[mode]) for mode in MODES) / figures["least_ms"], 2)
    elif choices.versus:
        figures["versus"] = {"model": choices.versus, **figures_of(times["versus"])}
        figures["ratio"] = round(float(np.median(times["versus"])) / figures["median_ms"], 2)
    if choices.binary and isinstance(ours, DelegateBackend):
        kernel = lce_delegate.kernels()[0] if ours.kernel == "auto" else ours.kernel
        figures["kernel"] = kernel
        figures["gmacs"] = round(work / figures["median_ms"] * 1e-6, 1)
        figures["peak_gmacs"] = round(choices.threads * lce_delegate.peak(kernel), 1)
    return {**figures, "backend": ours.name}


def image_figures(choices: argparse.Namespace, config: Config, model: Path) -> dict[str, Any]:
    """Measure the whole way from an image to its descriptor."""
    network = DescriptorNetwork(model, config.backend, config.threads)
    if choices.kernel != "auto":
        network.backend = _backend(choices, model.read_bytes())
    times = measure({"ours": image_timer(network)}, choices.repeat)["ours"]
    return {
        "model": network.card.name,
        **figures_of(times),
        "measured": "image to descriptor",
        "backend": network.backend.name,
    }


def _backend(choices: argparse.Namespace, content: bytes) -> Backend:
    if choices.kernel != "auto":
        return DelegateBackend(content, choices.threads, kernel=choices.kernel)
    return load_backend(choices.backend, content, choices.threads)


def search(choices: argparse.Namespace) -> int:
    """Measure maps of the sizes that the command line names; return the exit status."""
    maps = []
    for count in choices.keyframes:
        maps.append(search_figures(count, choices.bits, choices.repeat))
        print("  ".join(f"{name} {value}" for name, value in maps[-1].items()), flush=True)
    kernel = lce_delegate.kernels()[0]
    _write({"maps": maps, "kernel": kernel, "cpu": cpu_name()}, choices.json)
    return 0


def profiles(choices: argparse.Namespace) -> int:
    """Measure the operators of the model that is named, or of both packaged ones; return the exit status."""
    models: list[tuple[Path, tuple[int, int] | None]] = [(Path(choices.model), None)]
    if not choices.model:
        models = [(model_path(Config()), None), (share_directory() / "models" / LOCAL_MODEL, LOCAL_SIZE)]
    found = {}
    for model, size in models:
        found[model.stem] = profile(model.read_bytes(), choices.kernel, choices.repeat, size)
        print(table(model.stem, found[model.stem], bool(choices.model)), end="\n\n", flush=True)
    _write({**found, "cpu": cpu_name()}, choices.json)
    return 0


def report_figures(config: Config, repeat: int) -> dict[str, Any]:
    """Measure both networks and all that a keyframe costs beside them, and tell on what machine."""
    network = DescriptorNetwork(model_path(config), config.backend, config.threads)
    local_model = share_directory() / "models" / LOCAL_MODEL
    local_network = load_backend(config.backend, local_model.read_bytes(), config.threads)
    learned = open_local_features("learned", config.threads)
    frame = np.asarray(cv2.resize(World().render(*next(drive(2))), FRAME[1::-1]))
    features = learned.extract(frame)
    before, start = heat(), machine()
    times = measure(
        {
            "image to descriptor": timer(lambda: network.describe(frame)),
            f"network {network.card.name}": network_timer(network.backend),
            f"network {local_model.stem}": network_timer(local_network),
            "learned features of an image": timer(lambda: learned.extract(frame)),
            "ORB features of an image": timer(lambda: orb.extract(frame)),
            "verification of a match": timer(lambda: verify(features, features)),
        },
        repeat,
    )
    kernel = lce_delegate.kernels()[0]
    return {
        "machine": start,
        "before": before,
        "after": heat(),
        "versions": versions(),
        "kernel": f"{kernel}, {lce_delegate.peak(kernel):.0f} GMAC/s at most",
        "threads": config.threads,
        "repeat": repeat,
        "figures": {name: figures_of(taken) for name, taken in times.items()},
    }


def markdown(report: dict[str, Any]) -> str:
    """Return what `report_figures` has found as a block for an issue."""
    told = {
        "machine": _line(report["machine"]),
        "before": _line(report["before"]) or "no sensor",
        "after": _line(report["after"]) or "no sensor",
        "versions": _line(report["versions"]),
        "delegate": f"kernel {report['kernel']}",
        "measured": f"{report['repeat']} runs of each in turns, threads {report['threads']}, {FRAME[1]}x{FRAME[0]}",
    }
    figures = [
        f"| {name} | {times['median_ms']:.2f} | {times['p95_ms']:.2f} |" for name, times in report["figures"].items()
    ]
    facts = [f"- {name}: {value}" for name, value in told.items()]
    return "\n".join(
        ["### binvpr benchmark", "", *facts, "", "| | median ms | p95 ms |", "| --- | ---: | ---: |", *figures]
    )


def _line(facts: dict[str, Any]) -> str:
    return "; ".join(f"{name} {value}" for name, value in facts.items())


def start(config: Config, choices: argparse.Namespace) -> int:
    """Measure the start of the node, and its memory; return the exit status."""
    try:
        from binvpr_ros.lab.node_benchmark import NodeError
        from binvpr_ros.lab.start_benchmark import start_figures
    except ImportError as error:
        print(f"benchmark: --start needs ROS 2 ({error}); source its setup, or run make demo once", file=sys.stderr)
        return 1
    try:
        figures = start_figures(config, choices.repeat)
    except NodeError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    for name in ("bare", "node", "above"):
        print(f"{name:6} {figures[name]['seconds']:6.2f} s {figures[name]['megabytes']:7.1f} MB")
    _write({**figures, "cpu": cpu_name()}, choices.json)
    return 0


def fleet(config: Config, model: Path, choices: argparse.Namespace) -> int:
    """Measure the map of a fleet; return the exit status."""
    try:
        from binvpr_ros.lab.fleet_benchmark import fleet_figures, real_descriptors, table
    except ModuleNotFoundError as error:
        remedy = how_to_install_module(error.name or "", "fleet_demo")
        print(f"benchmark: --fleet needs {error.name}, which is not installed; {remedy}", file=sys.stderr)
        return 1
    described = DescriptorNetwork(model, config.backend, config.threads)
    real = real_descriptors(described, _images(choices.images))
    sizes = []
    for count in choices.keyframes:
        sizes.append(fleet_figures(described.card, real, count))
        print(table(sizes), flush=True)
        _write({"sizes": sizes, "cpu": cpu_name()}, choices.json)
    return 0


def _images(folders: list[Path]) -> Iterator[Image]:
    """Yield the JPEG and PNG files below folders; without one, the drive through the rendered building."""
    world = World()
    if not folders:
        yield from (world.render(*stop) for stop in drive())
    for folder in folders:
        files = (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in JPEG_AND_PNG)
        yield from (read_image_file(file).decode() for file in files)


def node(config: Config, choices: argparse.Namespace) -> int:
    """Measure the way of an image through the node; return the exit status."""
    try:
        from binvpr_ros.lab.node_benchmark import NodeError, node_figures
    except ImportError as error:
        print(f"benchmark: --node needs ROS 2 ({error}); source its setup, or run make demo once", file=sys.stderr)
        return 1
    sizes = []
    try:
        for figures in node_figures(config, choices.repeat):
            sizes.append(figures)
            print(f"{figures['size']:14} {'median':>9} {'p95':>9}")
            for name, times in figures["parts"].items():
                print(f"  {name:12} {times['median_ms']:6.2f} ms {times['p95_ms']:6.2f} ms")
            for name in (
                "image_ms",
                "cpu_percent_at_rest",
                "keyframe_with_match_ms",
                "without_fsync_ms",
                "mb_per_hour",
            ):
                print(f"  {name:23} {figures[name]:8.2f}")
            print(f"  disk         {figures['disk']}")
            print("  node         " + ", ".join(f"{name} {value}" for name, value in figures["node"].items()))
            print(f"  outside the network, in times of it: {figures['outside']} an image, "
                  f"{figures['outside_keyframe']} a keyframe with a match", flush=True)  # fmt: skip
    except NodeError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    by_size = {figures["size"]: figures for figures in sizes}
    _write({"sizes": sizes, **by_size, "threads": config.threads, "cpu": cpu_name()}, choices.json)
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="benchmark", description=__doc__)
    parser.add_argument("--model", default="", help="model file (default: the packaged one)")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="(default %(default)s)")
    parser.add_argument(
        "--kernel", default="auto", help="kernel of the delegate, e.g. avx2 (default: the processor's best)"
    )
    parser.add_argument("--local-features", default=Config.local_features, metavar="KIND",
                        help="with --node: what verifies: orb, learned, or a file (default %(default)s)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--repeat", type=int, default=100, help="number of runs to measure (default %(default)s)")
    parser.add_argument(
        "--versus",
        help="time only the network, in turns with the Larq Compute Engine (lce; `make oracle`) or another model file",
    )
    parser.add_argument("--binary", action="store_true", help="time only the network's binary layers")
    parser.add_argument("--search", action="store_true", help="load and search maps of random keyframes instead")
    parser.add_argument("--fleet", action="store_true",
                        help="measure a fleet's map on an embedded PostgreSQL instead")  # fmt: skip
    parser.add_argument("--images", type=Path, nargs="+", default=[], metavar="FOLDER",
                        help="with --fleet: make its keyframes of these (default: of a building)")  # fmt: skip
    parser.add_argument("--node", action="store_true", help="measure the node and each of its parts instead")
    parser.add_argument("--profile", action="store_true",
                        help="time each operator of both networks, or of --model, with one thread")  # fmt: skip
    parser.add_argument("--start", action="store_true",
                        help="measure the node's start and memory, compared with a node that does nothing")  # fmt: skip
    parser.add_argument("--report", action="store_true",
                        help="print machine details and times of networks and features, for an issue")  # fmt: skip
    parser.add_argument(
        "--keyframes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="(default %(default)s)"
    )
    parser.add_argument("--bits", type=int, default=2048, help="bits of a keyframe's descriptor (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    choices = parser.parse_args(arguments)
    if choices.repeat < 1:
        parser.error(f"--repeat must be at least 1, not {choices.repeat}")
    if min(choices.keyframes) < 1 or choices.bits < 1 or choices.bits % WORD_BITS:
        parser.error(f"--keyframes must be at least 1, and --bits a multiple of {WORD_BITS}")
    if choices.json and (choices.json.is_dir() or not choices.json.absolute().parent.is_dir()):
        parser.error(f"--json: {choices.json} is a folder, or in none; name a file")
    return choices


def main() -> int:
    """Measure what the command line names; the exit status is 1 where the model cannot be run."""
    choices = parse(sys.argv[1:])
    try:
        if choices.search:
            return search(choices)
        if choices.profile:
            return profiles(choices)
        config = Config(
            model=choices.model, backend=choices.backend, threads=choices.threads,
            local_features=choices.local_features,
        )  # fmt: skip
        model = model_path(config)
        for file in (model, *([Path(choices.versus)] if choices.versus and choices.versus != "lce" else [])):
            if not file.is_file():
                raise DescriptorError(f"there is no model file {file}; name another")
        if choices.fleet:
            return fleet(config, model, choices)
        if choices.node or choices.start:
            return (node if choices.node else start)(config, choices)
        network(config, model, choices)
    except (ConfigError, DescriptorError, LceError, ModelCardError, OSError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    return 0


def network(config: Config, model: Path, choices: argparse.Namespace) -> None:
    """Measure a model, all of what an issue tells, or what the command line compares."""
    if choices.report:
        report = report_figures(config, choices.repeat)
        print(markdown(report))
        _write(report, choices.json)
        return
    if choices.versus or choices.binary or not ModelCard.path_for(model).exists():
        figures = compare(choices, model)
    else:
        figures = image_figures(choices, config, model)
    figures |= {"threads": config.threads, "cpu": cpu_name()}
    for name, value in figures.items():
        print(f"{name:10} {value}")
    _write(figures, choices.json)


def _write(figures: dict[str, Any], output: Path | None) -> None:
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
