# make demo and make test need nothing but Python 3.11 or newer; each sets up what it uses.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 3
export NO_ALBUMENTATIONS_UPDATE ?= 1

# Anchors as small as the shapes, on images of 96 x 128; each image once, since 500 three times end at anything from 0.80
# to 0.88 of the objects found among 100 proposals.
DEMO := --shapes-dir runs/demo/shapes --shapes 1500 --anchor-sizes 8 16 32 64 128 --batch-size 4

.PHONY: help demo test lint bench clean
help:
	@echo "make demo   draw the built-in data set, train the RPN on it, score it, write pictures"
	@echo "make test   run the tests"
	@echo "make lint   check format, style and types"
	@echo "make bench  run the benchmarks"
	@echo "make clean  remove what these made"

$(VENV)/runtime: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"detfeed needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: give another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev: $(VENV)/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/runtime
	rm -rf runs/demo
	$(BIN)/python scripts/visualize_anchors.py $(DEMO) --images-per-sheet 6 --out runs/demo
	$(BIN)/python scripts/train_rpn.py $(DEMO) --epochs 1 --learning-rate 1e-3 \
		--warmup-steps 50 --batch-norm-momentum 0.97 --out runs/demo/rpn
	@echo "look at runs/demo/anchors_epoch0_0.png and runs/demo/rpn/proposals.png"

# Two processes: one runs the Keras tests of one worker while the other does the rest.
test: $(VENV)/dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# BENCH_COCO=instances.json BENCH_IMAGES=folder times targets on the boxes of a COCO file as well, and the feed on its
# images instead of drawn ones. Reading is timed on a file of COCO's size, 420 MB. A quarter of an hour in all.
bench: $(VENV)/dev
	$(BIN)/python scripts/bench_targets.py $(if $(BENCH_COCO),--coco $(BENCH_COCO) --images $(BENCH_IMAGES))
	$(BIN)/python scripts/bench_images.py
	$(BIN)/python scripts/bench_reading.py --repeats 3
	$(BIN)/python scripts/bench_feed.py $(if $(BENCH_COCO),--coco $(BENCH_COCO) --images $(BENCH_IMAGES))

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
