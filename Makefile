# make setup | demo | test | test-cluster | lint | docs | bench      see CONTRIBUTING.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# which of the extras gives FAISS: cpu or gpu
FAISS ?= cpu

.PHONY: setup demo test test-cluster lint format docs bench clean

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

# Without Ray on two processes, a file's tests in one of them; those that share a Ray session in one process. Two
# processes of two threads each would wait for one another at every small operation. tests/cluster imports servers
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not ray and not cluster" --numprocesses 2 --dist loadfile --ignore tests/cluster
	$(BIN)/python -m pytest -m "ray and not cluster" --ignore tests/cluster

test-cluster: setup
	$(BIN)/python -m pytest -m cluster

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
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/neighbour.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/approximate.py
	$(BIN)/python benchmarks/search.py

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
