#!/usr/bin/env python
"""Find objects in pictures with the detector of a training run: a table, and JSON, CSV and drawn pictures on request.

Of a run of train_rpn.py, the proposals are found.
"""

from __future__ import annotations

import argparse
import collections
import csv
import io
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detfeed import SampleError, read_image, read_images
from detfeed.check.printing import printable
from detfeed.commands.parser import Parser, run_program, share, whole
from detfeed.drawing.detections import draw_detections
from detfeed.drawing.sheets import write_png
from detfeed.errors import DetfeedError, RepeatedImageError
from detfeed.images.headers import SUFFIXES
from detfeed.writing import replace_file

SIDE = 1280  # pixels of the longer side of a drawn picture, at most

# Keras is imported after the pictures are looked for: it takes seconds.
if TYPE_CHECKING:
    from detfeed import Annotations
    from detfeed.models import Found


def build_parser() -> Parser:
    parser = Parser(description=__doc__, usage="%(prog)s [options] RUN PICTURE_OR_FOLDER...")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a training run")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE_OR_FOLDER", help="image files, and folders of them")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        metavar="NAME",
        help="weights: of the epoch scored best, or of the last [best]",
    )
    parser.add_argument(
        "--min-score", type=share, default=0.3, metavar="SCORE", help="leave out what has a lower score [0.3]"
    )
    parser.add_argument("--top", type=whole(1), metavar="N", help="keep the N best of a picture [all]")
    parser.add_argument("--batch-size", type=whole(1), default=1, metavar="N", help="pictures at once [1]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is found as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write what is found as CSV")
    parser.add_argument("--draw", type=Path, metavar="DIR", help="draw what is found into pictures in this folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    unreadable: list[DetfeedError] = []
    with parser.one_line_errors():
        pictures = read_images(arguments.pictures, on_problem=lambda path, error: unreadable.append(error))
        unreadable = [error for error in unreadable if not isinstance(error, RepeatedImageError)]  # it is found once
        check_outputs(arguments, pictures)

        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # without what TensorFlow only notes
        from detfeed.detections import Detections
        from detfeed.models import load_detector

        detector = load_detector(arguments.run, best=arguments.checkpoint == "best")
        answers = []
        if len(pictures):
            find = partial(detector.find, batch_size=arguments.batch_size, verbose=len(pictures) > 20)
            try:
                found = find(pictures)
            except SampleError:  # one that can't be decoded ends the batch
                pictures = _readable(pictures, unreadable)
                found = find(pictures) if len(pictures) else Detections([], [], [])
            answers = [_best(detector.name(*one), arguments) for one in zip(*found, strict=True)]
        for file in (arguments.json, arguments.csv):
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
        if arguments.json:
            replace_file(arguments.json, _json(pictures, answers))
        if arguments.csv:
            replace_file(arguments.csv, _csv(pictures, answers))
        if arguments.draw:
            _draw(pictures, answers, arguments.draw)
        for path, answer in zip(pictures.paths, answers, strict=True):
            print(printable(f"{path}: {_summary(answer)}"))
    for error in unreadable:
        print(printable(f"{parser.prog}: {error}"), file=sys.stderr)
    return 1 if unreadable else 0


def check_outputs(arguments: argparse.Namespace, pictures: Annotations) -> None:
    """Check that nothing that is written replaces a picture.

    Raises:
        argparse.ArgumentError: drawings would go into a folder of pictures, or JSON or CSV into an image file.
    """
    if arguments.draw:
        folder = os.path.realpath(arguments.draw)
        beside = next((path for path in pictures.paths if os.path.dirname(os.path.realpath(path)) == folder), None)
        if beside is not None:
            raise argparse.ArgumentError(
                None,
                f"--draw: expected a folder of its own, got {arguments.draw}, the folder of {beside}, which a drawing "
                "could replace; give another",
            )
    for option, file in (("--json", arguments.json), ("--csv", arguments.csv)):
        if file and file.suffix.lower() in SUFFIXES:
            raise argparse.ArgumentError(
                None, f"{option}: expected a file to write, got {file}, the name of a picture; give another"
            )


def _readable(pictures: Annotations, unreadable: list[DetfeedError]) -> Annotations:
    """The images that can be decoded, not only their headers read."""
    kept = []
    for position, path in enumerate(pictures.paths):
        try:
            read_image(path)
            kept.append(position)
        except DetfeedError as error:
            unreadable.append(error)
    return pictures.select(kept)


def _best(found: Found, arguments: argparse.Namespace) -> Found:
    return found.best(min_score=arguments.min_score, top=arguments.top)


def _summary(found: Found) -> str:
    """Such as "3 dog, 1 cat", most frequent first."""
    counts = collections.Counter(found.class_names).most_common()
    return ", ".join(f"{count} {name}" for name, count in counts) or "nothing"


def _objects(found: Found) -> list[dict[str, Any]]:
    columns = zip(found.boxes.tolist(), found.scores.tolist(), found.class_names, strict=True)
    return [
        {"class": name, "score": round(score, 5), "box": [round(side, 2) for side in box]}
        for box, score, name in columns
    ]


def _json(pictures: Annotations, answers: list[Found]) -> bytes:
    """A list of pictures, one a line; boxes are x0, y0, x1, y1 in pixels."""
    lines = [
        json.dumps({"file": path, "height": height, "width": width, "objects": _objects(found)}, ensure_ascii=False)
        for path, (height, width), found in zip(pictures.paths, pictures.image_hw.tolist(), answers, strict=True)
    ]
    return _encoded("[" + ",\n ".join(lines) + "]\n")


def _csv(pictures: Annotations, answers: list[Found]) -> bytes:
    """A row for each object."""
    content = io.StringIO()
    rows = csv.writer(content)
    rows.writerow(("file", "class", "score", "x0", "y0", "x1", "y1"))
    for path, found in zip(pictures.paths, answers, strict=True):
        rows.writerows((path, one["class"], one["score"], *one["box"]) for one in _objects(found))
    return _encoded(content.getvalue())


def _encoded(content: str) -> bytes:
    """UTF-8. A byte of a file name that is none of UTF-8 becomes \\udcXX, as Python has it in strings."""
    return content.encode(errors="backslashreplace")


def _draw(pictures: Annotations, answers: list[Found], folder: Path) -> None:
    """One PNG for each picture, of its name; a number is added where two pictures have one name."""
    taken: set[str] = set()
    for path, found in zip(pictures.paths, answers, strict=True):
        stem = name = Path(path).stem
        number = 2
        while name.casefold() in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.casefold())
        image = read_image(path)
        picture = draw_detections(image, found.boxes, found.scores, found.class_names, side=SIDE)
        write_png(folder / f"{name}.png", picture)


if __name__ == "__main__":
    sys.exit(run_program(main))
