"""Page: all that a report shows, put into one HTML file."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import importlib.resources
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detfeed import boxes as geometry
from detfeed.annotations import Annotations
from detfeed.batches.loader import BatchLoader
from detfeed.check.dataset import RESIZE, check
from detfeed.check.findings import Checked, Report, class_counts
from detfeed.check.pictures import OnProgress
from detfeed.check.printing import printable
from detfeed.images.canvases import Resize
from detfeed.readers.formats import Read
from detfeed.report import charts
from detfeed.report.anchors import fit, smallest_side
from detfeed.report.examples import SHOWN, ExamplePictures
from detfeed.report.gallery import add_fed, found_shapes
from detfeed.report.pictures import LARGE, Pictures, Shape, spread
from detfeed.report.results import Results, log_charts
from detfeed.report.run import Run, read_run
from detfeed.report.speed import time_stages
from detfeed.targets.anchor_targets import AnchorTargets
from detfeed.targets.anchors import AnchorGrid
from detfeed.writing import replace_file

if TYPE_CHECKING:
    import jinja2

# Photographs in the gallery; with those of findings and of the worst images a page stays under 15 MB.
PICTURES = 48
# Validation images in the gallery.
VAL_PICTURES = 24
# What the page's script may switch, from the bottom to the top of a picture.
LAYERS = ("ignored", "masks", "positives", "negatives", "truth", "keypoints", "detections")


def write_report(
    path: str | os.PathLike[str],
    train: Annotations | Read,
    val: Annotations | Read | None = None,
    *,
    resize: Resize = RESIZE,
    anchors: AnchorGrid | AnchorTargets | None = None,
    augment: Any = None,
    run: str | os.PathLike[str] | None = None,
    title: str | None = None,
    num_images: int = PICTURES,
    num_timed: int = 0,
    seed: int = 0,
    fast: bool = False,
    workers: int | None = None,
    image_dirs: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> Report:
    """Write a data set, what is fed of it, and a detector's run on it, as one HTML file that needs no network.

    The page shows every finding of `check` with the images concerned; classes, sizes and places of objects; how well
    anchors cover them; a gallery of what is fed, with the targets of an RPN; and of a run its curves, its scores by
    class, and its worst images.

    Args:
        path: the file; one that exists is replaced once the new one is whole. It has 1 MB for its charts, and up to
            48 KB for each picture of the gallery.
        train, val: as of `check`.
        resize: how images are fed.
        anchors: the grid, or AnchorTargets in the sampled form if its thresholds are not the usual ones. None:
            `AnchorGrid.fpn()`.
        augment: as of a sequence; for the training images in the gallery.
        run: folder of a run of scripts/train_rpn.py or scripts/train_faster_rcnn.py. Its detections are those of `val`.
        title: of the page. None: made of the names of the data.
        num_images: training images in the gallery, drawn with equal chances; half as many of `val`, at most 24.
        num_timed: how many images to time the feed on. 0: none.
        seed: of the draw, and of the feed.
        fast, workers, image_dirs, on_progress: as of `check`.

    Returns:
        The report of `check`.

    Raises:
        DetfeedError: see `check`; or a file of the run can't be read, or is of other data than `val`.
        ValueError: `num_images` or `num_timed` is below 0, or `anchors` are of another form; or see `check` and
            `BatchLoader`.
        ModuleNotFoundError: the extra `detfeed[report]` is not installed.
        OSError: the file can't be written.
    """
    if num_images < 0 or num_timed < 0:
        raise ValueError(f"Expected num_images and num_timed to be at least 0. Received: {num_images} and {num_timed}")
    targets = anchors if isinstance(anchors, AnchorTargets) else AnchorTargets(anchors or AnchorGrid.fpn())
    if targets.form != "sampled":
        raise ValueError(f"Expected anchors in the sampled form, of which pictures are made. Received: {targets.form}")
    template, library = _template(), chart_library()
    report = check(
        train,
        val,
        resize=resize,
        smallest_anchor=smallest_side(targets.anchors),
        fast=fast,
        workers=workers,
        image_dirs=image_dirs,
        on_progress=on_progress,
    )
    page = _Page(report, resize=resize, targets=targets, augment=augment, seed=seed)
    page.add_findings(fast)
    page.add_data(title)
    if run is not None:
        page.add_run(Path(run))
    page.add_anchors()
    page.add_gallery(num_images)
    if num_timed:
        page.add_speed(num_timed)
    content = template.render(page.context(), library=library)
    replace_file(path, content.encode("utf-8"))
    return report


def _template() -> jinja2.Template:
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html")


def _asset(name: str) -> str:
    return importlib.resources.files("detfeed.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def chart_library() -> str:
    """Vega, Vega-Lite and vega-embed as one module of JavaScript; making it takes seconds, once a process."""
    try:
        import vl_convert
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return str(vl_convert.javascript_bundle())  # type: ignore[call-arg]  # its stub asks for the optional one


def _missing(error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"Expected the package {error.name} to be installed: pip install 'detfeed[report]'", name=error.name
    )


class _Page:
    """Collects what the template shows."""

    def __init__(self, report: Report, *, resize: Resize, targets: AnchorTargets, augment: Any, seed: int) -> None:
        self._report = report
        self._checked = [one for one in report.checked if one.annotations is not None]
        self._resize = resize
        self._targets = targets
        self._augment = augment
        self._seed = seed
        self._pictures = Pictures()
        self._charts: dict[str, charts.Chart] = {}
        self._gallery: list[int] = []
        self._results: Results | None = None
        self._run: Run | None = None
        self._parts: dict[str, Any] = {"run": None, "anchors": None, "gallery": None, "speed": None, "first": []}

    def context(self) -> dict[str, Any]:
        """What the template takes. All text is on one line, and letters that change the direction are spelt out."""
        used = {name for item in self._pictures.items for name in item["layers"]}
        script = {
            "pictures": self._pictures.items,
            "charts": self._charts,
            "gallery": self._gallery,
            "layers": LAYERS,
        }
        return {
            **_shown(self._parts),
            "script": _shown(script),
            "charts": _shown(self._charts),
            "layers": [name for name in LAYERS if name in used],
            "sources": self._pictures.sources,
            "side": LARGE,
            "shown": SHOWN,
            "version": importlib.metadata.version("detfeed"),
            "made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            "css": _asset("page.css"),
            "js": _asset("page.js"),
        }

    def add_findings(self, fast: bool) -> None:
        """The findings and their pictures."""
        examples = ExamplePictures(self._pictures, self._checked)
        rows = []
        for number, finding in enumerate(self._report.findings, start=1):
            rows.append(
                {
                    "kind": finding.kind,
                    "severity": finding.severity,
                    "data": finding.data,
                    "count": finding.count,
                    "what": finding.what,
                    "advice": finding.advice,
                    "examples": [{"file": one.file, "detail": one.detail} for one in finding.examples],
                    "groups": examples.of(finding),
                }
            )
            if finding.severity != "note":
                self._parts["first"].append(
                    {
                        "severity": finding.severity,
                        "text": f"{finding.data}: {finding.what} ({finding.count:,} found).",
                        "link": f"finding-{number}",
                        "where": finding.kind,
                    }
                )
        self._parts |= {"findings": rows, "fast": fast}

    def add_data(self, title: str | None) -> None:
        """What is in the data sets."""
        rows = [self._data_row(one) for one in self._report.checked]
        tables = [one.annotations for one in self._checked if one.annotations is not None]
        names = list(dict.fromkeys(name for table in tables for name in table.class_names))
        counts = [_counts_by_name(table) for table in tables]
        self._parts |= {
            "title": title or f"Report of {_last_parts(tables[0].source) if tables else 'data'}",
            "data": rows,
            "classes": [{"name": name, "counts": [own.get(name, 0) for own in counts]} for name in names],
            "data_charts": [],
        }
        if tables and any((~table.ignore).any() for table in tables):
            grid = self._targets.anchors
            made = {
                "classes": charts.class_bars(self._checked),
                "sizes": charts.size_lines(self._checked, grid),
                "ratios": charts.ratio_lines(self._checked, grid),
                "places": charts.place_map(self._checked[0].name, tables[0]),
                "counts": charts.count_bars(self._checked),
            }
            if any(len(np.unique(table.image_hw, axis=0)) > 1 for table in tables):
                made["images"] = charts.image_sizes(self._checked)
            self._charts |= made
            self._parts["data_charts"] = list(made)

    def _data_row(self, checked: Checked) -> dict[str, Any]:
        table = checked.annotations
        if table is None:
            return {"name": checked.name, "read": False}
        sizes = np.unique(table.image_hw, axis=0)
        texts = (
            [f"{width} x {height}" for height, width in (sizes[0].tolist(), sizes[-1].tolist())] if len(sizes) else []
        )
        fed = np.unique(self._resize.canvases(table.image_hw)[0], axis=0) if len(table) else np.zeros((0, 2))
        canvases = ", ".join(f"{width} x {height}" for height, width in fed[:3].tolist())
        return {
            "name": checked.name,
            "read": True,
            "images": len(table),
            "unusable": int((~checked.usable).sum()),
            "objects": int((~table.ignore).sum()),
            "ignored": int(table.ignore.sum()),
            "classes": len(table.class_names),
            "sizes": texts[0] if len(sizes) == 1 else f"{len(sizes)}, from {' to '.join(texts)}" if texts else "",
            "fed": canvases + (f" and {len(fed) - 3} more" if len(fed) > 3 else ""),
            "source": table.source,
        }

    def add_run(self, folder: Path) -> None:
        """The results of a run."""
        train = self._report.checked[0].annotations
        val = self._report.checked[1].annotations if len(self._report.checked) > 1 else None
        run = self._run = read_run(folder, val, () if train is None else train.class_names)
        annotations = run.annotations
        made = {f"log-{number}": one for number, one in enumerate(log_charts(run))}
        part: dict[str, Any] = {
            "folder": str(folder),
            "sentences": [],
            "scores": {name: f"{value:.4g}" for name, value in run.scores.items()},
            "classes": [],
            "worst": [],
            "trained": False,
        }
        self._parts["run"] = part
        if run.found is None:
            part["sentences"].append(
                "The page shows no detections of this run: "
                + ("there is no validation data." if annotations is None else "its folder has none.")
            )
        elif annotations is not None and run.classes and annotations.neg_classes is not None:
            part["sentences"].append(
                "Classes are not scored: the data is federated, as LVIS is, and has rules of its own."
            )
        elif annotations is not None and run.classes:
            self._add_results(run, annotations, part, made)
        self._charts |= made
        part["charts"] = list(made)

    def _add_results(
        self, run: Run, annotations: Annotations, part: dict[str, Any], made: dict[str, charts.Chart]
    ) -> None:
        train = self._report.checked[0].annotations
        counts = None
        if train is not None:
            own = _counts_by_name(train)
            counts = np.array([own.get(name, 0) for name in annotations.class_names], np.int64)
        results = self._results = Results(run, annotations, counts)
        part |= {
            "classes": results.table(),
            "worst": results.add_worst(self._pictures),
            "trained": counts is not None,
            "threshold": results.judged.threshold,
            "f1": results.judged.f1,
        }
        made |= {"precision": results.curves(), "confusion": results.matrix()}
        if part["classes"]:
            worst = part["classes"][0]
            text = f"{worst['name']} is learned worst: AP {worst['ap']:.3f}"
            if len(part["classes"]) > 1:
                best = part["classes"][-1]
                text += f", against {best['ap']:.3f} of {best['name']}, the best"
            part["sentences"].append(text + ".")
            self._parts["first"].append({"severity": "note", "text": text + ".", "link": "run", "where": "run"})

    def add_anchors(self) -> None:
        """How well the anchors fit."""
        tables = {one.name: one.annotations for one in self._checked if one.annotations is not None}
        if not tables:
            return
        found = fit(tables, self._targets, resize=self._resize, augment=self._augment, seed=self._seed)
        if found is None:
            return
        self._charts |= found.charts
        self._parts["anchors"] = {
            "sentences": found.sentences,
            "charts": list(found.charts),
            "python": found.python.splitlines(),
            "options": found.options,
        }
        if found.first:
            text = f"Better anchors were found: {found.first}"
            self._parts["first"].append({"severity": "note", "text": text, "link": "anchors", "where": "anchors"})

    def add_gallery(self, num_images: int) -> None:
        """Pictures of what is fed."""
        words = []
        tables = [one.annotations for one in self._checked if one.annotations is not None]
        labels = list(dict.fromkeys(name for table in tables for name in table.class_names))
        number_of = {name: number for number, name in enumerate(labels)}
        for checked in self._checked:
            is_val = checked is not self._report.checked[0]
            count = min(num_images // 2, VAL_PICTURES) if is_val else num_images
            usable = np.flatnonzero(checked.usable)
            if checked.annotations is None or not count or not len(usable):
                continue
            table = checked.annotations
            part = table.select(usable)
            chosen = spread(part.class_ids, part.offsets, count, seed=self._seed)
            loader = self._loader(table, augment=None if is_val else self._augment)
            self._gallery += add_fed(
                self._pictures,
                loader,
                self._targets,
                usable[chosen.positions].tolist(),
                name=checked.name,
                class_numbers=[number_of[name] for name in table.class_names],
                detections=self._detections(loader) if is_val else None,
            )
            words.append(f"{checked.name}: {chosen.words}.")
        names = list(dict.fromkeys(self._pictures.items[number]["data"] for number in self._gallery))
        if names:
            present = {label for number in self._gallery for label in self._pictures.items[number]["classes"]}
            self._parts["gallery"] = {
                "words": " ".join(words),
                "names": names,
                "classes": [(number, name) for number, name in enumerate(labels) if number in present],
                "scores": any("detections" in item["layers"] for item in self._pictures.items),
                "score": 0.0,
            }

    def _loader(self, table: Annotations, **arguments: Any) -> BatchLoader:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of small objects, which are a finding
            return BatchLoader(
                table, _no_targets, batch_size=1, resize=self._resize, shuffle=False, seed=self._seed, **arguments
            )

    def _detections(self, loader: BatchLoader) -> Callable[[int], list[Shape]] | None:
        """What gives the detections or proposals of an image on its canvas."""
        if self._run is None or self._run.found is None:
            return None
        found, results, table = self._run.found, self._results, self._run.annotations
        names = () if table is None else table.class_names

        def detections(position: int) -> list[Shape]:
            height, width = loader.annotations.image_hw[position].tolist()

            def to_canvas(boxes: Any) -> Any:
                return geometry.rescale(boxes.astype(np.float32), (height, width), loader.placed_hw(position))

            if results is not None:
                return results.detections(position, to_canvas)
            return found_shapes(found, position, to_canvas, names)

        return detections

    def add_speed(self, num_timed: int) -> None:
        """How long each stage of the feed takes."""
        first = self._report.checked[0]
        usable = np.flatnonzero(first.usable)
        if first.annotations is None or not len(usable):
            return
        loader = self._loader(first.annotations, augment=self._augment)
        plain = loader if self._augment is None else self._loader(first.annotations, augment=None, reduce=False)
        count = min(num_timed, len(usable))
        chosen = np.random.default_rng(self._seed).choice(usable, count, replace=False)
        stages = time_stages(loader, plain, self._targets, chosen.tolist())
        total = sum(stage.milliseconds for stage in stages)
        self._charts["speed"] = charts.stage_bars(stages)
        self._parts["speed"] = {
            "words": f"On this machine one thread makes {1000 / total:.0f} images a second: {total:.1f} ms for an "
            f"image, the sum of the medians of {count} images. Files that were read shortly before come from memory; "
            "the first epoch of a large set may read slower."
        }


def _no_targets(sample: Any) -> dict[str, Any]:
    """A target function for a loader of which only samples are asked; it looks at all masks."""
    return {}


def _counts_by_name(table: Annotations) -> dict[str, int]:
    """Objects of each class; two classes may have one name."""
    counts: dict[str, int] = {}
    for name, count in zip(table.class_names, class_counts(table).tolist(), strict=True):
        counts[name] = counts.get(name, 0) + count
    return counts


def _last_parts(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def _shown(value: Any) -> Any:
    """A value of JSON's types in which each text is printable: a name may hold letters that turn the direction."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _shown(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(each) for each in value]
    return value
