"""What labelling tools write by default is read as it is: one row of the table in docs/data.md each."""

import json

import cv2
import numpy as np
import pytest

from detfeed import (
    read_coco,
    read_csv,
    read_image_folder,
    read_kitti,
    read_ndjson,
    read_openimages,
    read_voc,
    read_yolo,
)

HEIGHT, WIDTH = 64, 96
BOXES = {"cat": (10, 8, 50, 40), "traffic light": (60, 20, 90, 60)}
CLASSES = list(BOXES)
ELSEWHERE = "the image is in another folder, or its name is written in another way"


class Folder:
    """A folder that files are written into."""

    def __init__(self, root):
        self.root = root

    def text(self, name, text):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def image(self, name):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(self.root / name), np.zeros((HEIGHT, WIDTH, 3), np.uint8))

    def xml(self, name, filename, *, size=None, flag="<difficult>0</difficult>"):
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>" if size is None else size
        body = "".join(
            f"<object><name>{label}</name><pose>Unspecified</pose><truncated>0</truncated>{flag}<bndbox>"
            f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for label, (x0, y0, x1, y1) in BOXES.items()
        )
        head = f"<folder>x</folder><filename>{filename}</filename>"
        self.text(name, f"<annotation>{head}{size}<segmented>0</segmented>{body}</annotation>")

    def yolo(self, name):
        lines = [
            f"{row} {(x0 + x1) / 2 / WIDTH:.6f} {(y0 + y1) / 2 / HEIGHT:.6f} {(x1 - x0) / WIDTH:.6f} "
            f"{(y1 - y0) / HEIGHT:.6f}\n"
            for row, (x0, y0, x1, y1) in enumerate(BOXES.values())
        ]
        self.text(name, "".join(lines))

    def kitti(self, name):
        lines = [
            f"{label} 0.0 0 0.0 {x0} {y0} {x1} {y1}" + 7 * " 0.0" + "\n" for label, (x0, y0, x1, y1) in BOXES.items()
        ]
        self.text(name, "".join(lines))

    def rows(self, name, line, *, headings="", images=("a.jpg", "b.jpg")):
        lines = [line.format(image, *box, label) for image in images for label, box in BOXES.items()]
        self.text(name, "\n".join([*([headings] if headings else []), *lines]))

    def coco(self, name, files, *, size=(WIDTH, HEIGHT), mask=False):
        """A COCO file; with `mask`, every object is a crowd with a run-length mask, as CVAT writes masks."""
        annotations = []
        for image_id, _ in enumerate(files):
            for category, (x0, y0, x1, y1) in enumerate(BOXES.values()):
                inside = np.zeros((HEIGHT, WIDTH), bool)
                inside[y0:y1, x0:x1] = True
                ends = np.flatnonzero(np.diff(inside.ravel(order="F"), prepend=False))
                runs = {"counts": np.diff(ends, prepend=0, append=inside.size).tolist(), "size": inside.shape}
                annotations.append(
                    {"id": len(annotations), "image_id": image_id, "category_id": category, "iscrowd": int(mask)}
                    | {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "ignore": 0}
                    | {"segmentation": runs if mask else []}
                )
        images = [
            {"id": image_id, "file_name": file, "width": size[0], "height": size[1]}
            for image_id, file in enumerate(files)
        ]
        categories = [{"id": category, "name": label} for category, label in enumerate(CLASSES)]
        self.text(name, json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def label_studio_coco(folder):
    for name in ("a", "b"):
        folder.image(f"images/{name}.jpg")
    folder.coco("result.json", ["images/a.jpg", "images/b.jpg"], size=(None, None))
    return read_coco(folder.root / "result.json", folder.root)


def cvat_coco(folder):
    for name in ("sub/a", "b"):
        folder.image(f"images/{name}.jpg")
    folder.coco("annotations/instances_default.json", ["sub/a.jpg", "b.jpg"])
    return read_coco(folder.root / "annotations" / "instances_default.json", folder.root / "images")


def cvat_coco_masks(folder):
    for name in ("a", "b"):
        folder.image(f"images/{name}.jpg")
    folder.coco("annotations/instances_default.json", ["a.jpg", "b.jpg"], mask=True)
    return read_coco(folder.root / "annotations" / "instances_default.json", folder.root / "images", crowds="object")


def label_studio_voc(folder):
    for name in ("a", "b"):
        folder.image(f"images/{name}.jpg")
        folder.xml(f"Annotations/{name}.xml", f"{name}.jpg", flag="<difficult>0</difficult><occluded/>")
    return read_voc(folder.root)


def label_studio_yolo(folder):
    for name in ("a", "b"):
        folder.image(f"images/{name}.jpg")
        folder.yolo(f"labels/{name}.txt")
    folder.text("classes.txt", "\n".join(CLASSES))
    folder.text("notes.json", json.dumps({"categories": []}))
    return read_yolo(folder.root)


def cvat_voc(folder):
    for name in ("sub/a", "b"):
        folder.image(f"JPEGImages/{name}.jpg")
        folder.xml(f"Annotations/{name}.xml", f"{name}.jpg")
    folder.text("ImageSets/Main/default.txt", "sub/a\nb\n")
    folder.text("labelmap.txt", "# label:color_rgb:parts:actions\n")
    return read_voc(folder.root, "default")


def cvat_yolo_11(folder):
    for name in ("a", "b"):
        folder.image(f"obj_train_data/sub/{name}.jpg")
        folder.yolo(f"obj_train_data/sub/{name}.txt")
    folder.text("obj.names", "\n".join(CLASSES))
    folder.text("obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    folder.text("train.txt", "data/obj_train_data/sub/a.jpg\ndata/obj_train_data/sub/b.jpg\n")
    return read_yolo(folder.root / "obj.data")


def cvat_ultralytics(folder):
    for name in ("a", "b"):
        folder.image(f"images/train/{name}.jpg")
        folder.yolo(f"labels/train/{name}.txt")
    folder.text("train.txt", "data/images/train/a.jpg\ndata/images/train/b.jpg\n")
    folder.text("data.yaml", "names:\n  0: cat\n  1: traffic light\npath: .\ntrain: train.txt\n")
    with pytest.warns(UserWarning, match=ELSEWHERE):
        return read_yolo(folder.root / "data.yaml")


def cvat_kitti(folder):
    for name in ("a", "sub/b"):
        folder.image(f"default/image_2/{name}.png")
        folder.kitti(f"default/label_2/{name}.txt")
    folder.text("label_colors.txt", "cat 1 2 3\n")
    return read_kitti(folder.root / "default")


def roboflow_voc(folder):
    for name in ("a_jpg.rf.0123", "b_jpg.rf.4567"):
        folder.image(f"train/{name}.jpg")
        folder.xml(f"train/{name}.xml", f"{name}.jpg")
    return read_voc(folder.root / "train")


def roboflow_yolov8(folder):
    for name in ("a_jpg.rf.0123", "b_jpg.rf.4567"):
        folder.image(f"train/images/{name}.jpg")
        folder.yolo(f"train/labels/{name}.txt")
    folder.text(
        "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'traffic light']\n"
        "\nroboflow:\n  workspace: x\n  version: 1\n",
    )
    return read_yolo(folder.root / "data.yaml")


def roboflow_csv(folder):
    for name in ("a", "b"):
        folder.image(f"train/{name}.jpg")
    headings = "filename,width,height,class,xmin,ymin,xmax,ymax"
    folder.rows("train/_annotations.csv", "{0},96,64,{5},{1},{2},{3},{4}", headings=headings)
    return read_csv(folder.root / "train" / "_annotations.csv")


def roboflow_coco(folder):
    for name in ("a", "b"):
        folder.image(f"train/{name}.jpg")
    sizes = {"height": HEIGHT, "width": WIDTH}
    boxes = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in BOXES.values()]
    content = {
        "info": {"description": "Exported from roboflow.com"},
        "categories": [{"id": row, "name": name, "supercategory": "x"} for row, name in enumerate(["x", *CLASSES])],
        "images": [{"id": row, "file_name": f"{name}.jpg", **sizes} for row, name in enumerate("ab")],
        "annotations": [
            {"id": 2 * image + row, "image_id": image, "category_id": row + 1, "bbox": box, "area": 9, "iscrowd": 0}
            for image in range(2)
            for row, box in enumerate(boxes)
        ],
    }
    folder.text("train/_annotations.coco.json", json.dumps(content))
    return read_coco(folder.root / "train" / "_annotations.coco.json", folder.root / "train")


def hugging_face(folder):
    for name in ("a", "b"):
        folder.image(f"train/{name}.jpg")
    boxes = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in BOXES.values()]
    lines = [{"file_name": f"{name}.jpg", "objects": {"bbox": boxes, "categories": CLASSES}} for name in "ab"]
    folder.text("train/metadata.jsonl", "\n".join(map(json.dumps, lines)))
    return read_image_folder(folder.root / "train")


def ultralytics_ndjson(folder):
    lines = [{"type": "dataset", "task": "detect", "name": "x", "class_names": {"0": "cat", "1": "traffic light"}}]
    boxes = [
        [row, (x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT]
        for row, (x0, y0, x1, y1) in enumerate(BOXES.values())
    ]
    for name in ("a.jpg", "b.jpg"):
        folder.image(f"images/val/{name}")
        lines.append({"type": "image", "file": name, "split": "val", "annotations": {"boxes": boxes}})
    folder.text("coco8.ndjson", "\n".join(map(json.dumps, lines)))
    return read_ndjson(folder.root / "coco8.ndjson", "val")


def labelme2voc(folder):
    for name in ("a", "b"):
        folder.image(f"JPEGImages/{name}.jpg")
        folder.image(f"AnnotationsVisualization/{name}.jpg")
        folder.xml(f"Annotations/{name}.xml", f"{name}.jpg", flag="<difficult/>")
    folder.text("class_names.txt", "_background_\ncat\ntraffic light")
    return read_voc(folder.root)


def labelimg_voc(folder):
    for name in ("a", "b"):
        folder.image(f"{name}.jpg")
        folder.xml(f"{name}.xml", f"{name}.jpg")
    return read_voc(folder.root)


def labelimg_yolo(folder):
    for name in ("a", "b"):
        folder.image(f"{name}.jpg")
        folder.yolo(f"{name}.txt")
    folder.text("classes.txt", "\n".join(CLASSES))
    return read_yolo(folder.root)


def makesense_voc(folder):
    for name in ("a", "b"):
        folder.image(f"images/{name}.jpg")
        folder.xml(f"annotations/{name}.xml", f"{name}.jpg", flag="<difficult>Unspecified</difficult>")
    return read_voc(folder.root)


def makesense_csv(folder):
    for name in ("a", "b"):
        folder.image(f"{name}.jpg")
    lines = [
        f"{label},{x0},{y0},{x1 - x0},{y1 - y0},{image}.jpg,{WIDTH},{HEIGHT}"
        for image in ("a", "b")
        for label, (x0, y0, x1, y1) in BOXES.items()
    ]
    folder.text("labels_old.csv", "\n".join(lines))
    headings = "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height"
    folder.text("labels.csv", "\n".join([headings, *lines]))
    table, old = read_csv(folder.root / "labels.csv"), read_csv(folder.root / "labels_old.csv")
    assert (table.boxes == old.boxes).all()
    return table


def via_coco(folder):
    for name in ("a", "b"):
        folder.image(f"{name}.jpg")
    folder.coco("via_project_coco.json", ["a.jpg", "b.jpg"])
    content = json.loads((folder.root / "via_project_coco.json").read_text())
    for image in content["images"]:
        image |= {"id": str(image["id"]), "license": 0, "flickr_url": image["file_name"], "date_captured": ""}
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        outline = [x, y, x + w, y, x + w, y + h, x, y + h]
        annotation |= {"image_id": str(annotation["image_id"]), "segmentation": outline}
    folder.text("via_project_coco.json", json.dumps(content))
    return read_coco(folder.root / "via_project_coco.json", folder.root)


def labelme2coco(folder):
    for name in ("a", "b"):
        folder.image(f"labelme/{name}.jpg")
    folder.coco("dataset.json", ["a.jpg", "b.jpg"])
    return read_coco(folder.root / "dataset.json", folder.root / "labelme")


def fiftyone_coco(folder):
    for name in ("a", "b"):
        folder.image(f"data/{name}.jpg")
    folder.coco("labels.json", ["a.jpg", "b.jpg"])
    return read_coco(folder.root / "labels.json", folder.root / "data")


def fiftyone_openimages(folder):
    headings = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"
    lines = [
        f"{image},xclick,/m/{row},1,{x0 / WIDTH},{x1 / WIDTH},{y0 / HEIGHT},{y1 / HEIGHT},0,0,0"
        for image in ("a", "b")
        for row, (x0, y0, x1, y1) in enumerate(BOXES.values())
    ]
    for name in ("a", "b"):
        folder.image(f"data/{name}.jpg")
    folder.text("labels/detections.csv", "\n".join([headings, *lines]))
    folder.text("metadata/classes.csv", "".join(f"/m/{row},{name}\n" for row, name in enumerate(CLASSES)))
    root = folder.root
    return read_openimages(root / "labels" / "detections.csv", root / "metadata" / "classes.csv", root / "data")


def vott_voc(folder):
    for name in ("a", "b"):
        folder.image(f"JPEGImages/{name}.jpg")
        folder.xml(f"Annotations/{name}.xml", f"{name}.jpg")
    folder.text("ImageSets/Main/cat_train.txt", "a.jpg 1\nb.jpg 1\n")
    folder.text("pascal_label_map.pbtxt", "item {\n id: 1\n name: 'cat'\n}\n")
    with pytest.warns(UserWarning, match="the XML file is in another folder, or its name is written in another way"):
        assert len(read_voc(folder.root, "cat_train")) == 2
    return read_voc(folder.root)


def vott_csv(folder):
    for name in ("a", "b"):
        folder.image(f"vott-csv-export/{name}.jpg")
    headings = '"image","xmin","ymin","xmax","ymax","label"'
    folder.rows("vott-csv-export/x-export.csv", '"{0}",{1},{2},{3},{4},"{5}"', headings=headings)
    return read_csv(folder.root / "vott-csv-export" / "x-export.csv")


def fiftyone_voc(folder):
    for name in ("a", "b"):
        folder.image(f"data/{name}.jpg")
        size = "<size><width></width><height></height><depth></depth></size>"
        folder.xml(f"labels/{name}.xml", f"{name}.jpg", size=size, flag="<difficult>None</difficult>")
    return read_voc(folder.root)


def fiftyone_yolov5(folder):
    for name in ("a", "b"):
        folder.image(f"images/validation/{name}.jpg")
        folder.yolo(f"labels/validation/{name}.txt")
    folder.text(
        "dataset.yaml",
        "names:\n  0: cat\n  1: traffic light\npath: /home/other/export\nvalidation: ./images/validation/\n",
    )
    with (
        pytest.warns(UserWarning, match="`path` '/home/other/export' is no folder here"),
        pytest.warns(UserWarning, match="`validation` is read for the split 'val'"),
    ):
        return read_yolo(folder.root, "val")


def fiftyone_kitti(folder):
    for name in ("a", "b"):
        folder.image(f"data/{name}.jpg")
        folder.kitti(f"labels/{name}.txt")
    return read_kitti(folder.root)


def rectlabel_voc(folder):
    for name in ("a", "b"):
        folder.image(f"{name}.jpg")
        folder.xml(f"annotations/{name}.xml", f"{name}.jpg")
    return read_voc(folder.root)


def darknet(folder):
    for name in ("a", "b"):
        folder.image(f"data/obj/{name}.jpg")
        folder.yolo(f"data/obj/{name}.txt")
    folder.text("data/obj.names", "\n".join(CLASSES))
    folder.text("data/obj.data", "classes=2\ntrain=data/train.txt\nvalid=data/test.txt\nnames=data/obj.names\n")
    folder.text("data/train.txt", "/home/other/darknet/data/obj/a.jpg\nC:\\darknet\\data\\obj\\b.jpg")
    return read_yolo(folder.root / "data" / "obj.data")


def keras_retinanet(folder):
    for name in ("a", "b"):
        folder.image(f"images/{name}.jpg")
    images = ("images/a.jpg", "images/b.jpg")
    folder.rows("annotations.csv", "{0},{1},{2},{3},{4},{5}", images=images)
    folder.text("classes.csv", "cat,0\ntraffic light,1\n")
    return read_csv(folder.root / "annotations.csv", folder.root / "classes.csv")


def keras_retinanet_with_headings(folder):
    for name in ("a", "b"):
        folder.image(f"{name}.jpg")
    folder.rows("annotations.csv", "{0},{1},{2},{3},{4},{5}", headings="path,x1,y1,x2,y2,class_name")
    folder.text("classes.csv", "class_name,id\ncat,0\ntraffic light,1\n")
    return read_csv(folder.root / "annotations.csv", folder.root / "classes.csv")


def sku110k(folder):
    for name in ("a", "b"):
        folder.image(f"images/{name}.jpg")
    folder.rows("annotations/annotations_train.csv", "{0},{1},{2},{3},{4},{5},96,64")
    return read_csv(folder.root / "annotations" / "annotations_train.csv", image_dir=folder.root / "images")


def gtsdb(folder):
    for name in ("00000", "00001"):
        folder.image(f"{name}.ppm")
    folder.rows("gt.txt", "{0};{1};{2};{3};{4};{5}", images=("00000.ppm", "00001.ppm"))
    return read_csv(folder.root / "gt.txt")


def ultralytics(folder):
    for name in ("a", "b"):
        folder.image(f"coco8/images/train/{name}.jpg")
        folder.yolo(f"coco8/labels/train/{name}.txt")
    folder.text(
        "coco8.yaml", "path: coco8\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: traffic light\n"
    )
    return read_yolo(folder.root / "coco8.yaml")


TOOLS = [
    *(label_studio_coco, cvat_coco, cvat_coco_masks),
    *(label_studio_voc, label_studio_yolo, cvat_voc, cvat_yolo_11, cvat_ultralytics, cvat_kitti, roboflow_voc),
    *(roboflow_yolov8, roboflow_csv, labelme2voc, labelimg_voc, labelimg_yolo, makesense_voc, vott_voc, vott_csv),
    *(fiftyone_voc, fiftyone_yolov5, fiftyone_kitti, rectlabel_voc, darknet, keras_retinanet),
    *(makesense_csv, via_coco, labelme2coco, fiftyone_coco, fiftyone_openimages),
    *(keras_retinanet_with_headings, sku110k, gtsdb, ultralytics, roboflow_coco, hugging_face, ultralytics_ndjson),
]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_default_export_of_a_tool_is_read_whole(tmp_path, tool):
    table = tool(Folder(tmp_path))
    assert len(table) == 2
    assert set(CLASSES) <= set(table.class_names)
    assert table.image_hw.tolist() == [[HEIGHT, WIDTH]] * 2
    assert not table.ignore.any()
    for position in range(2):
        rows = table.rows(position)
        np.testing.assert_allclose(table.boxes[rows], list(BOXES.values()), atol=1e-3)
        assert [table.class_names[class_id] for class_id in table.class_ids[rows]] == CLASSES
