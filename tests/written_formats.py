"""One set written in every format that is read, as the tools of each write it."""

import csv
import json
import os
from pathlib import Path

from detfeed import (
    make_shapes,
    read_coco,
    read_csv,
    read_image_folder,
    read_kitti,
    read_lvis,
    read_ndjson,
    read_openimages,
    read_voc,
    read_yolo,
)


def draw_set(root):
    """Draw a set into a folder, its images in a folder of every layout's name; return the folder."""
    make_shapes(root, num_images=24, image_hw=(96, 128), seed=0)
    for name in ("JPEGImages", "image_2"):
        (root / name).symlink_to(root / "images")
    for name in ("Annotations", "label_2", "labels"):
        (root / name).mkdir()
    return root


def objects(table, position):
    """Corners, class name and ignore flag of each box of an image."""
    rows = table.rows(position)
    names = [table.class_names[class_id] for class_id in table.class_ids[rows]]
    return list(zip(table.boxes[rows].tolist(), names, table.ignore[rows].tolist(), strict=True))


def stem(table, position):
    return Path(table.paths[position]).stem


def through_voc(table, folder):
    for position in range(len(table)):
        height, width = table.image_hw[position]
        body = "".join(
            f"<object><name>{name}</name><difficult>{int(ignore)}</difficult><bndbox><xmin>{x0 + 1}</xmin>"
            f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for (x0, y0, x1, y1), name, ignore in objects(table, position)
        )
        (folder / "Annotations" / f"{stem(table, position)}.xml").write_text(
            f"<annotation><size><width>{width}</width><height>{height}</height></size>{body}</annotation>"
        )
    return read_voc(folder)


def through_kitti(table, folder):
    for position in range(len(table)):
        lines = [
            f"{'DontCare' if ignore else name} 0 0 0 {x0:.2f} {y0:.2f} {x1:.2f} {y1:.2f} 0 0 0 0 0 0 0\n"
            for (x0, y0, x1, y1), name, ignore in objects(table, position)
        ]
        (folder / "label_2" / f"{stem(table, position)}.txt").write_text("".join(lines))
    return read_kitti(folder)


def through_yolo(table, folder):
    for position in range(len(table)):
        height, width = table.image_hw[position]
        lines = [
            f"{table.class_names.index(name)} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} "
            f"{(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}\n"
            for (x0, y0, x1, y1), name, _ in objects(table, position)
        ]
        (folder / "labels" / f"{stem(table, position)}.txt").write_text("".join(lines))
    (folder / "data.yaml").write_text(json.dumps({"train": "images", "val": "images", "names": table.class_names}))
    return read_yolo(folder / "data.yaml")


def through_csv(table, folder):
    with open(folder / "boxes.csv", "w", newline="") as file:
        rows = csv.writer(file)
        for position in range(len(table)):
            name = os.path.relpath(table.paths[position], folder)
            boxes = objects(table, position)
            rows.writerows([name, *corners, label] for corners, label, _ in boxes)
            if not boxes:
                rows.writerow([name, "", "", "", "", ""])
    lines = [f"{label},{row}\n" for row, label in enumerate(table.class_names)]
    (folder / "classes.csv").write_text("".join(lines))
    return read_csv(folder / "boxes.csv", folder / "classes.csv")


def through_openimages(table, folder):
    lines = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n"]
    for position in range(len(table)):
        height, width = table.image_hw[position]
        lines += [
            f"{stem(table, position)},x,/m/{label},1,{x0 / width:.8f},{x1 / width:.8f},{y0 / height:.8f},"
            f"{y1 / height:.8f},{int(ignore)}\n"
            for (x0, y0, x1, y1), label, ignore in objects(table, position)
        ]
    (folder / "boxes_norm.csv").write_text("".join(lines))
    (folder / "descriptions.csv").write_text("".join(f"/m/{label},{label}\n" for label in table.class_names))
    return read_openimages(folder / "boxes_norm.csv", folder / "descriptions.csv", folder / "images")


def through_lvis(table, folder):
    return read_lvis(folder / "instances.json", folder / "images")


def through_image_folder(table, folder):
    lines = []
    for position in range(len(table)):
        boxes = [(x0, y0, x1 - x0, y1 - y0) for (x0, y0, x1, y1), _, _ in objects(table, position)]
        names = [name for _, name, _ in objects(table, position)]
        name = os.path.basename(table.paths[position])
        lines.append(json.dumps({"file_name": name, "objects": {"bbox": boxes, "categories": names}}) + "\n")
    (folder / "images" / "metadata.jsonl").write_text("".join(lines))
    return read_image_folder(folder / "images")


def through_ndjson(table, folder):
    lines = [
        json.dumps({"type": "dataset", "task": "detect", "class_names": dict(enumerate(table.class_names))}) + "\n"
    ]
    for position in range(len(table)):
        height, width = table.image_hw[position].tolist()
        boxes = [
            [table.class_names.index(name), (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width,
             (y1 - y0) / height]
            for (x0, y0, x1, y1), name, _ in objects(table, position)
        ]  # fmt: skip
        name = os.path.basename(table.paths[position])
        image = {"type": "image", "file": name, "url": f"https://example.com/{name}", "width": width, "height": height}
        lines += [
            json.dumps({**image, "split": split, "annotations": {"boxes": boxes}}) + "\n" for split in ("train", "val")
        ]
    (folder / "set.ndjson").write_text("".join(lines))
    return read_ndjson(folder / "set.ndjson")


def options_of(folder):
    """The options of a command line that name the set in each format, after it was written by all of the above."""
    images = ("--images", str(folder / "images"))
    return {
        "coco": ("--coco", str(folder / "instances.json"), *images),
        "lvis": ("--lvis", str(folder / "instances.json"), *images),
        "voc": ("--voc", str(folder)),
        "yolo": ("--yolo", str(folder / "data.yaml")),
        "csv": ("--csv", str(folder / "boxes.csv"), "--classes", str(folder / "classes.csv")),
        "kitti": ("--kitti", str(folder)),
        "openimages": (
            "--openimages", str(folder / "boxes_norm.csv"), "--classes", str(folder / "descriptions.csv"), *images,
        ),
        "imagefolder": ("--imagefolder", str(folder / "images")),
        "ndjson": ("--ndjson", str(folder / "set.ndjson")),
    }  # fmt: skip


def write_all(root):
    """Draw a set into a folder and write it in every format; return the options that name it in each."""
    folder = draw_set(root)
    table = read_coco(folder / "instances.json", folder / "images")
    writers = (through_voc, through_kitti, through_yolo, through_csv, through_openimages)
    for through in (*writers, through_image_folder, through_ndjson):
        through(table, folder)
    return options_of(folder)
