# Each target installs what it uses into $(VENV), and needs only Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := install --quiet --disable-pip-version-check --constraint constraints.txt
export TF_CPP_MIN_LOG_LEVEL ?= 3
export NO_ALBUMENTATIONS_UPDATE ?= 1

# The smallest anchors fit the shapes, on images of 96 x 128. 1500 images once, not 500 three times: with those, the
# share of objects found among 100 proposals varies from 0.80 to 0.88 between runs.
DEMO := --shapes-dir runs/demo/shapes --shapes 1500 --anchor-sizes 8 16 32 64 128 --batch-size 4

# 64 RoIs an image, not 512: the head would take most of the time then.
DETECTOR_DEMO := --shapes-dir runs/demo_detector/shapes --shapes 1500 --anchor-sizes 8 16 32 64 128 --batch-size 4 \
	--epochs 3 --learning-rate 4e-4 --batch-norm-momentum 0.97 --roi-samples 64 --train-proposals 300 --proposals 100 \
	--validate-every 3

.PHONY: help demo demo-detector test lint docs wheel bench detectors clean
help:
	@echo "make demo   draw the built-in data set, train the RPN on it, score it, write pictures"
	@echo "make demo-detector   the same with Faster R-CNN, and find objects in pictures"
	@echo "make test   run the tests"
	@echo "make lint   check format, style and types"
	@echo "make docs   build the manual, with warnings as errors"
	@echo "make wheel  build sdist and wheel, and try the wheel in an empty environment"
	@echo "make bench  run the benchmarks"
	@echo "make detectors  train the detectors of docs/detectors.md, on each backend"
	@echo "make clean  remove everything that these targets made"

$(VENV)/runtime: pyproject.toml constraints.txt | detfeed/models
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"detfeed needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: name another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip $(INSTALL) --editable '.[train]'
	@touch $@

$(VENV)/dev: $(VENV)/runtime
	$(BIN)/python -m pip $(INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/docs: $(VENV)/runtime
	$(BIN)/python -m pip $(INSTALL) --editable '.[docs]'
	@touch $@

# The link is in git, but not in an sdist.
detfeed/models:
	ln -s ../models $@

demo: $(VENV)/runtime
	rm -rf runs/demo
	$(BIN)/python scripts/visualize_anchors.py $(DEMO) --images-per-sheet 6 --out runs/demo
	$(BIN)/python scripts/train_rpn.py $(DEMO) --epochs 1 --learning-rate 1e-3 \
		--warmup-steps 50 --batch-norm-momentum 0.97 --out runs/demo/rpn
	@echo "look at runs/demo/anchors_epoch0_0.png and runs/demo/rpn/proposals.png"

demo-detector: $(VENV)/runtime
	rm -rf runs/demo_detector
	$(BIN)/python scripts/train_faster_rcnn.py $(DETECTOR_DEMO) --out runs/demo_detector/run
	$(BIN)/python scripts/predict.py runs/demo_detector/run runs/demo_detector/shapes/val/images \
		--json runs/demo_detector/found.json --draw runs/demo_detector/found
	@echo "look at runs/demo_detector/run/detections.png and runs/demo_detector/found"

# Two processes: one runs the Keras tests of one worker while the other does the rest. Measuring coverage on Python 3.11
# takes 80 % more CPU time in tests of targets, 45 % in those of batches, none where other processes do the work.
test: $(VENV)/dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# All pages each time, in 25 s: Sphinx repeats no warning about a page that has not changed.
docs: $(VENV)/docs
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --fresh-env --quiet docs runs/docs
	@echo "open runs/docs/index.html"

# The wheel is built from the sdist, and must equal the one built from the clone. Without pip in the empty environment and
# without compiling modules that nothing imports, this takes half the time.
wheel: $(VENV)/dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m build --no-isolation --outdir dist/clone --wheel .
	cmp dist/*.whl dist/clone/*.whl
	$(PYTHON) -m venv --without-pip dist/venv
	$(BIN)/python -m pip --python dist/venv/bin/python $(INSTALL) --no-compile "$$(echo dist/*.whl)[tensorflow]"
	dist/venv/bin/python -I tests/readme.py
	rm -rf dist/venv dist/clone

# BENCH_COCO=instances.json BENCH_IMAGES=folder times targets on the boxes of a COCO file as well, and the feed on its
# images instead of drawn ones. Reading is timed on a file of COCO's size, 420 MB, and on 100,000
# small files of each format that has one for each image.
bench: $(VENV)/dev
	$(BIN)/python scripts/bench_targets.py $(if $(BENCH_COCO),--coco $(BENCH_COCO) --images $(BENCH_IMAGES))
	$(BIN)/python scripts/bench_anchors.py
	$(BIN)/python scripts/bench_images.py
	$(BIN)/python scripts/bench_boxes.py
	$(BIN)/python scripts/bench_reading.py --repeats 3
	$(BIN)/python scripts/bench_small_files.py --repeats 3
	$(BIN)/python scripts/bench_faster_rcnn.py
	$(BIN)/python scripts/bench_feed.py $(if $(BENCH_COCO),--coco $(BENCH_COCO) --images $(BENCH_IMAGES))

# Detectors of other packages, on each backend. No part of `make test`: they install 5 GB, and warn of their own.
detectors: $(VENV)/dev
	$(BIN)/python -m pip $(INSTALL) --editable '.[detectors,torch]' transformers
	KERAS_BACKEND=jax $(BIN)/python -m pytest -W default docs/detectors.md README.md
	KERAS_BACKEND=tensorflow $(BIN)/python -m pytest -W default docs/detectors.md
	KERAS_BACKEND=torch $(BIN)/python -m pytest -W default docs/detectors.md

clean:
	rm -rf $(VENV) docs/reference runs dist .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
