# make demo: restore a real photo.  make test: run the tests.  Both set everything up themselves.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/installed

.PHONY: install demo test test-full test-sanitize lint bench clean

install: $(STAMP)

# The constraints hold a set of versions known to work on a CPU; plain "torch" would bring CUDA.
$(STAMP): pyproject.toml setup.py constraints.txt $(wildcard zoo/ops/scan/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: install
	$(BIN)/python examples/demo.py demo

test: install
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-full: install
	$(BIN)/python -m pytest -m "not gpu"

# The C++ kernel under the address and undefined-behaviour sanitizers: some minutes, GCC only.
test-sanitize: install
	$(BIN)/python tests/sanitize.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy zoo recipes export trt_plugins benchmarks examples

# Tables of docs/benchmarks.md: about half an hour, most of it the authors' path.
bench: install
	$(BIN)/python benchmarks/operator_cpu.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/networks.py

clean:
	rm -rf $(VENV) demo build *.egg-info
