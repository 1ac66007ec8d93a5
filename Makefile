# make setup | demo | test | test-cluster | lint | docs | bench      see CONTRIBUTING.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# which of the extras gives FAISS: cpu or gpu
FAISS ?= cpu
# processes of tests, a file in one of them
IN_TWO := --numprocesses 2 --dist loadfile

.PHONY: setup demo test compiled test-plain test-ray test-cluster lint format docs bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make setup PYTHON=python3.12"; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
		test -x $(BIN)/python || uv venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); \
		uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(FAISS),dev]'; \
	else \
		test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(FAISS),dev]'; \
	fi
	@touch $@

demo: setup
	$(BIN)/ldsaug demo

# All three at once: those with Ray, which share a session, wait more than they compute, so they go first (Ray's workers are nice
# of themselves). Of the others two processes, a file's tests in one of them, with a thread each: more would wait for one another
# at every small operation
test: setup
	$(MAKE) --jobs 3 lint test-plain test-ray

compiled: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/compile_loops.py

# tests/cluster, which both leave out, imports servers
test-plain: compiled
	OMP_NUM_THREADS=1 nice -n 5 $(BIN)/python -m pytest -m "not ray and not cluster" --ignore tests/cluster $(IN_TWO)

test-ray: compiled
	OMP_NUM_THREADS=1 RAY_worker_niceness=0 $(BIN)/python -m pytest -m "ray and not cluster" \
		$$(grep -rlE "mark\.ray|ray_local" --include "test_*.py" --exclude-dir cluster tests)

test-cluster: setup
	OMP_NUM_THREADS=1 RAY_worker_niceness=0 $(BIN)/python -m pytest -m cluster $(IN_TWO)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/mkdocs build --strict

bench: setup
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/density.py
	$(BIN)/python benchmarks/density.py --curves
	$(BIN)/python benchmarks/score.py
	$(BIN)/python benchmarks/starting.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/neighbour.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/approximate.py
	$(BIN)/python benchmarks/search.py

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
