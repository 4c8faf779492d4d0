# SPDX-License-Identifier: Apache-2.0
"""`evaluate`: how well models and other methods recognise places, on any data set, in one run."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import matplotlib as mpl  # noqa: F401 - plots.py and report.py need these two
    import rich  # noqa: F401
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f"evaluate: {error.name} is not installed; run, in a checkout: pip install '.[tools]'")
import numpy as np
from numpy.typing import NDArray

from binvpr_ros.config import Config, ConfigError, model_path
from binvpr_ros.descriptor import DescriptorError
from binvpr_ros.evaluation import plots, report
from binvpr_ros.evaluation.baselines import BASELINES
from binvpr_ros.evaluation.closure_stage import ClosureStage, Drive
from binvpr_ros.evaluation.datasets import (
    Dataset,
    DatasetError,
    Options,
    PosedSequence,
    find_datasets,
    open_dataset,
)
from binvpr_ros.evaluation.datasets.dataset import Images
from binvpr_ros.evaluation.datasets.folders import FolderPair
from binvpr_ros.evaluation.datasets.rendered import RenderedBuilding
from binvpr_ros.evaluation.methods import (
    BinaryNetwork,
    Method,
    MethodError,
    Similarities,
    load_model,
    read_similarities,
)
from binvpr_ros.evaluation.metrics import PrecisionRecall, Retrieval
from binvpr_ros.evaluation.report import Result
from binvpr_ros.evaluation.sequence_matching import match_sequences
from binvpr_ros.model_card import ModelCardError

SEQUENCE_LENGTH = 10
"""Images in a row that `--all` matches, as SeqSLAM does."""


@dataclass
class Report:
    """Takes each measurement in turn: keeps the figures and draws the pictures."""

    plots: Path | None
    results: list[Result] = field(default_factory=list)
    _curves: dict[str, dict[str, PrecisionRecall]] = field(default_factory=dict)
    _closure_curves: dict[str, dict[str, PrecisionRecall]] = field(default_factory=dict)

    def add(
        self,
        dataset: Dataset,
        name: str,
        similarities: Similarities,
        *,
        bits: int | None = None,
        milliseconds: float | None = None,
        drive: Drive | None = None,
    ) -> None:
        """Take the similarities [Q,R] of one method on one data set, and its drive where it has one."""
        retrieval = Retrieval.of_similarities(similarities, dataset.truth, dataset.candidates)
        stage = drive.through(drive.config) if drive else None
        queries, references = similarities.shape
        self.results.append(Result(dataset.name, name, queries, references, bits, milliseconds, retrieval, stage))
        if self.plots is None:
            return
        self._curves.setdefault(dataset.name, {})[name] = retrieval.precision_recall()
        if drive:
            self._closure_curves.setdefault(dataset.name, {})[name] = drive.precision_recall()
        title = f"{name} on {dataset.name}"
        start = f"{_file_name(dataset.name)}_{_file_name(name)}"
        plots.similarity_matrix(self.plots / f"{start}_similarity.png", title, similarities, dataset, retrieval)
        plots.match_pairs(self.plots / f"{start}_matches.png", title, dataset, similarities, retrieval)
        if isinstance(dataset, PosedSequence):
            pairs, true, what = _closures(stage, retrieval)
            plots.trajectory(self.plots / f"{start}_trajectory.png", f"{title}: {what}", dataset, pairs, true)

    def finish(self) -> None:
        """Draw what holds all methods."""
        for dataset, curves in self._curves.items():
            file = (self.plots or Path()) / f"{_file_name(dataset)}_precision_recall.png"
            plots.precision_recall(file, dataset, curves, self._closure_curves.get(dataset, {}))


def _closures(stage: ClosureStage | None, retrieval: Retrieval) -> tuple[NDArray[np.int64], NDArray[np.bool_], str]:
    """Return pairs of images [C,2] to draw, whether they are true [C], and what they are."""
    if stage is not None:
        return stage.closures, stage.true, "loop closures"
    curve = retrieval.precision_recall()
    accepted = retrieval.scores >= curve.thresholds[curve.f1.argmax()] if len(curve.f1) else retrieval.correct
    pairs = np.stack([retrieval.queries, retrieval.matches], axis=1)[accepted]
    return pairs, retrieval.correct[accepted], "matches at the best F1"


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def describe(method: Method, images: Images, what: str) -> tuple[NDArray[Any], list[float]]:
    """Return the descriptions [N,D] of all images, and the milliseconds that each took."""
    rows, times = [], []
    for image in tqdm(images, desc=what, unit="image", leave=False, file=sys.stderr):
        start = time.perf_counter()
        rows.append(method.describe(image))
        times.append((time.perf_counter() - start) * 1e3)
    return np.stack(rows), times


def measure(method: Method, dataset: Dataset, sequence_length: int, into: Report) -> None:
    """Measure one method on one data set, also with sequences of images where `sequence_length` is not 0."""
    where = f"{method.name} on {dataset.name}"
    method.fit(dataset.references)
    queries, times = describe(method, dataset.queries, f"{where}: queries")
    references = queries
    if dataset.references is not dataset.queries:
        references, more = describe(method, dataset.references, f"{where}: references")
        times += more
    similarities = method.similarities(queries, references)
    drive = None
    if isinstance(method, BinaryNetwork) and isinstance(dataset, PosedSequence):
        drive = Drive(method.network, dataset)
    bits = method.descriptor_bits
    into.add(dataset, method.name, similarities, bits=bits, milliseconds=float(np.median(times)), drive=drive)
    if sequence_length:
        matched = match_sequences(similarities, dataset.candidates, sequence_length)
        into.add(dataset, f"{method.name}, sequences of {sequence_length}", matched, bits=bits)


def chosen_datasets(choices: argparse.Namespace) -> Iterator[Dataset]:
    """Yield the data sets that the command line names; without any the rendered building."""
    options = Options(
        queries=choices.queries, references=choices.references, tolerance=choices.tolerance, radius=choices.radius,
        angle=choices.angle, exclude_seconds=choices.exclude_seconds, image_topic=choices.image_topic,
        pose_topic=choices.pose_topic,
    )  # fmt: skip
    if choices.all:
        paths = find_datasets(choices.all)
        if not paths:
            raise DatasetError(f"{choices.all} holds no data set; name a folder that does")
        for path in paths:
            yield open_dataset(path, options)
    elif choices.dataset:
        yield open_dataset(choices.dataset, options)
    elif choices.ground_truth:
        parts = (Path(choices.queries), Path(choices.references), choices.ground_truth)
        yield FolderPair.from_parts(*parts)
    else:
        yield RenderedBuilding.make(options)


def chosen_methods(choices: argparse.Namespace) -> list[Method]:
    """Return the models and baselines that the command line names; without any the packaged model."""
    methods: list[Method] = [load_model(model, choices.threads) for model in choices.model]
    methods += [BASELINES[name]() for name in choices.baseline]
    if methods or choices.similarities:
        return methods
    methods = [load_model(model_path(Config()), choices.threads)]
    if choices.all:
        methods += [load_model(model, choices.threads) for model in sorted(choices.all.rglob("*.tflite"))]
        for baseline in BASELINES.values():
            try:
                methods.append(baseline())
            except MethodError as error:
                print(f"evaluate: left out: {error}", file=sys.stderr)
    return methods


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line's choices."""
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    data = parser.add_argument_group("data set (default: a rendered building)")
    data.add_argument("--dataset", "--sequence", type=Path, metavar="PATH", help="folder or bag, of any known layout")
    data.add_argument("--queries", default="", metavar="DIR", help="folder of queries (of --dataset: its name)")
    data.add_argument("--references", default="", metavar="DIR", help="folder of references (likewise)")
    data.add_argument("--ground-truth", type=Path, metavar="CSV", help="for --queries and --references")
    data.add_argument(
        "--all", type=Path, metavar="DIR", help="all data sets below DIR, with all models below it and all baselines"
    )
    data.add_argument(
        "--tolerance", type=int, default=Options.tolerance, metavar="N",
        help="frames by which a match may be off, in traverses without ground truth (default %(default)s)",
    )  # fmt: skip
    data.add_argument("--radius", type=float, metavar="M", help="metres that are one place (default: by layout)")
    data.add_argument("--angle", type=float, metavar="DEG", help="degrees that are one view (default: by layout)")
    data.add_argument(
        "--exclude-seconds", type=float, default=Options.exclude_seconds, metavar="S",
        help="in a drive, match nothing that is younger (default %(default)s)",
    )  # fmt: skip
    data.add_argument("--image-topic", default="", metavar="TOPIC", help="of a bag with several")
    data.add_argument("--pose-topic", default="", metavar="TOPIC", help="of a bag with several")
    methods = parser.add_argument_group("methods (default: the packaged model)", "Each may be given several times.")
    methods.add_argument(
        "--model", type=Path, action="append", default=[], metavar="TFLITE", help="model file, with or without a card"
    )
    methods.add_argument("--baseline", choices=BASELINES, action="append", default=[])
    methods.add_argument(
        "--similarities", type=Path, action="append", default=[], metavar="NPY",
        help="a matrix, queries by references, that another program wrote (VPR-Bench's files too)",
    )  # fmt: skip
    methods.add_argument("--seqslam", type=int, default=0, metavar="N", help="also match sequences of N images")
    methods.add_argument(
        "--threads", type=int, default=Config.threads, metavar="N", help="for models (default %(default)s)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    output.add_argument("--markdown", type=Path, metavar="FILE", help="write one table (--all: evaluation.md)")
    output.add_argument("--plots", type=Path, metavar="DIR", help="draw pictures into this folder")
    choices = parser.parse_args(arguments)
    _check(parser, choices)
    return choices


def _check(parser: argparse.ArgumentParser, choices: argparse.Namespace) -> None:
    """End with a sentence where the choices do not go together; fill in what --all implies."""
    if choices.all and choices.dataset:
        parser.error("--all and --dataset exclude each other; name one of them")
    if choices.ground_truth and (choices.all or choices.dataset):
        parser.error("--ground-truth belongs to --queries and --references; leave out --all and --dataset")
    if choices.ground_truth and not (choices.queries and choices.references):
        parser.error("--ground-truth needs --queries and --references")
    if (choices.queries or choices.references) and not (choices.ground_truth or choices.dataset):
        parser.error("--queries and --references need --ground-truth, or a --dataset that holds both folders")
    for name in ("tolerance", "radius", "angle", "exclude_seconds", "seqslam", "threads"):
        value, least = getattr(choices, name), int(name == "threads")
        if value is not None and not least <= value < float("inf"):
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
    for file in (choices.json, choices.markdown):
        if file and not file.absolute().parent.is_dir():
            parser.error(f"the folder of {file} does not exist; make it first")
    if choices.all:
        choices.markdown = choices.markdown or Path("evaluation.md")
        choices.seqslam = choices.seqslam or SEQUENCE_LENGTH


def run(choices: argparse.Namespace) -> Report:
    """Measure all methods on all data sets."""
    if choices.plots:
        choices.plots.mkdir(parents=True, exist_ok=True)
    datasets = list(chosen_datasets(choices))
    methods = chosen_methods(choices)
    into = Report(choices.plots)
    for dataset in datasets:
        for method in methods:
            measure(method, dataset, choices.seqslam, into)
        for file in choices.similarities:
            similarities = read_similarities(file)
            if similarities.shape != dataset.truth.shape:
                raise DatasetError(
                    f"{file} holds {similarities.shape} similarities, {dataset.name} has {dataset.truth.shape} queries "
                    "and references; name the matrix of this data set"
                )
            into.add(dataset, file.parent.name if file.stem.startswith("precomputed_data") else file.stem, similarities)
    into.finish()
    return into


def main() -> int:
    """Evaluate what the command line names; the exit status is 1 where something cannot be read or run."""
    choices = parse(sys.argv[1:])
    try:
        results = run(choices).results
        report.print_tables(results)
        if choices.json:
            choices.json.write_text(json.dumps(report.as_json(results), indent=2) + "\n", encoding="utf-8")
        if choices.markdown:
            command = shlex.join(["evaluate", *sys.argv[1:]])
            choices.markdown.write_text(report.markdown(results, command), encoding="utf-8")
    except (ConfigError, DatasetError, DescriptorError, MethodError, ModelCardError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evaluate: interrupted", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
