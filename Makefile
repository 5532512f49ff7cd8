# make demo: restore a photo.  make test: run the tests.  Both install everything they need.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/installed

.PHONY: install demo test test-full test-sanitize test-tensorrt test-runtimes test-app test-docs docs \
	test-oldest test-integrations wheels gpu-check mutate \
	fuzz lint bench bench-tables clean

install: $(STAMP)

# Compiled files are kept, for the many processes that tests start and for the next run.
unexport PYTHONDONTWRITEBYTECODE

# Where PyTorch comes from: an index, a folder of wheels, or empty for pip's own choice, which on
# Linux is the CUDA build. An index that does not answer is left out.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_SOURCE = $(PYTHON) build_tools/torch_source.py "$(TORCH_INDEX)"

# The constraints are versions known to work together.
$(STAMP): pyproject.toml setup.py constraints.txt $(wildcard build_tools/*.py zoo/ops/scan/csrc/*)
	$(PYTHON) -m venv $(VENV)
	source=$$($(TORCH_SOURCE)) && $(BIN)/pip install --quiet --disable-pip-version-check \
		-c constraints.txt $$source -e ".[dev]"
	touch $@

demo: install
	$(BIN)/python examples/demo.py demo

# WORKERS: processes that share the tests, each with one thread.
WORKERS ?= 2
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not gpu and not docs"

test-full: install
	$(BIN)/python -m pytest -m "not gpu"

# Tests the C++ kernel with the address and undefined-behaviour sanitizers: minutes, GCC only.
test-sanitize: install
	$(BIN)/python tests/sanitize.py

# Tests engines of TensorRT-RTX, which needs no GPU, in a separate environment. This needs 100 MB
# more, nvcc for the plugin, and half an hour, mostly for the full models.
# SELECT="-k 'not full'" skips the full models.
SELECT ?=
TENSORRT_VENV = .venv-trt
test-tensorrt: $(TENSORRT_VENV)/installed
	$(TENSORRT_VENV)/bin/python -m pytest -m "not gpu" tests/trt $(SELECT)

$(TENSORRT_VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TENSORRT_VENV)
	$(TENSORRT_VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e ".[dev,trt-rtx]"
	touch $@

# Runs small files in OpenVINO, onnxruntime-node and onnxruntime-web, each in an environment of its
# own in .runtimes (900 MB; needs npm): minutes. benchmarks/onnx_runtimes.py prints the whole table.
test-runtimes: install
	$(BIN)/python -m pytest -m "not gpu" tests/export/test_runtimes.py tests/test_web_page.py

# Tests the page of `zoo app` in headless Chromium (Debian: apt install chromium chromium-driver), in
# an environment of its own: two minutes.
APP_VENV = .venv-app
test-app: $(APP_VENV)/installed
	command -v chromium && command -v chromedriver
	OMP_NUM_THREADS=1 $(APP_VENV)/bin/python -m pytest tests/app

$(APP_VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(APP_VENV)
	grep -v '^pillow==' constraints.txt > $(APP_VENV)/constraints.txt  # gradio 6.31 refuses Pillow 13
	source=$$($(TORCH_SOURCE)) && $(APP_VENV)/bin/pip install --quiet --disable-pip-version-check \
		-c $(APP_VENV)/constraints.txt $$source -e ".[dev,app]"
	touch $@

# Loads our networks in the libraries of other tools, in an environment of its own: 6 GB, because
# they need torchvision, which fits PyTorch's ordinary build only; then minutes. COMFYUI=FOLDER also
# runs our nodes in the ComfyUI there, with the packages that it requires. VapourSynth with vs-mlrt
# gets an environment inside it, of the first of these Pythons that is 3.12 or later; without one, or
# with VAPOURSYNTH_PYTHON= , its test is skipped.
VAPOURSYNTH_PYTHON ?= $(PYTHON) python3.14 python3.13 python3.12
INTEGRATIONS_VENV = .venv-integrations
test-integrations: $(INTEGRATIONS_VENV)/installed
	TEST_INTEGRATIONS=1 OMP_NUM_THREADS=1 $(INTEGRATIONS_VENV)/bin/python -m pytest tests/integrations

$(INTEGRATIONS_VENV)/installed: pyproject.toml tests/integrations/versions.txt
	$(PYTHON) -m venv $(INTEGRATIONS_VENV)
	$(INTEGRATIONS_VENV)/bin/pip install --quiet --disable-pip-version-check \
		-c tests/integrations/versions.txt torch torchvision
	$(INTEGRATIONS_VENV)/bin/pip install --quiet --disable-pip-version-check \
		-c tests/integrations/versions.txt spandrel_extra_arches -e ".[dev,hub,spandrel,timm]"
	for python in $(VAPOURSYNTH_PYTHON); do \
		if $$python -c "import ensurepip, sys; sys.exit(sys.version_info < (3, 12))" 2>&-; then \
			$$python -m venv $(INTEGRATIONS_VENV)/vapoursynth && \
			$(INTEGRATIONS_VENV)/vapoursynth/bin/pip install --quiet --disable-pip-version-check \
				-c tests/integrations/versions.txt vapoursynth-mlrt-ort numpy || exit 1; \
			break; \
		fi; \
	done
	touch $@

# Runs the code blocks of README and docs, and the notebook: some minutes.
test-docs: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m docs

# Builds the documentation site in build/site/html, in an environment of its own: two minutes. A
# warning, a broken link and a cell of the notebook that fails are errors.
DOCS_VENV = .venv-docs
docs: $(DOCS_VENV)/installed
	OMP_NUM_THREADS=1 $(DOCS_VENV)/bin/python -m build_tools.site

$(DOCS_VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	source=$$($(TORCH_SOURCE)) && $(DOCS_VENV)/bin/pip install --quiet --disable-pip-version-check \
		-c constraints.txt $$source -e ".[dev,docs]"
	touch $@

# A smoke test with the oldest versions that are promised, in an environment of its own.
#   OLDEST_PYTHON=python3.10
OLDEST_PYTHON ?= $(PYTHON)
OLDEST_VENV = .venv-oldest
test-oldest: $(OLDEST_VENV)/installed
	$(OLDEST_VENV)/bin/python tests/smoke.py

$(OLDEST_VENV)/installed: pyproject.toml tests/oldest.txt
	$(OLDEST_PYTHON) -m venv $(OLDEST_VENV)
	source=$$($(TORCH_SOURCE)) && $(OLDEST_VENV)/bin/pip install --quiet \
		--disable-pip-version-check -c tests/oldest.txt $$source .
	touch $@

# Wheels for all platforms, a wheel without the kernel for the rest, and an sdist, in dist/: a few
# minutes. Zig, which compiles for the other platforms, and the checkers have an environment of their
# own. Kernels are run where qemu-user and wine can run them (tests/kernel/test_wheels.py).
WHEELS_VENV = .venv-wheels
wheels: install $(WHEELS_VENV)/installed
	$(WHEELS_VENV)/bin/python -m build_tools.wheels dist
	ZIG="$(WHEELS_VENV)/bin/python -m ziglang" $(BIN)/python -m pytest -s --wheels dist \
		tests/kernel/test_wheels.py

$(WHEELS_VENV)/installed: constraints.txt
	$(PYTHON) -m venv $(WHEELS_VENV)
	$(WHEELS_VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt \
		auditwheel check-wheel-contents setuptools twine ziglang
	touch $@

# Everything that needs an NVIDIA GPU, in a separate environment with the CUDA build of PyTorch and
# TensorRT (TENSORRT=trt-rtx for TensorRT-RTX): tests kernels and plugin, compares engines with
# PyTorch, and restores a photo.
TENSORRT ?= trt
GPU_VENV = .venv-gpu
GPU_PYTHON = $(GPU_VENV)/bin/python
gpu-check: $(GPU_VENV)/installed
	$(GPU_PYTHON) -c "import torch; assert torch.cuda.is_available(), 'PyTorch finds no GPU'"
	$(GPU_PYTHON) -m pytest -m gpu tests/gpu
	mkdir -p build
	for precision in fp32 fp16; do \
		$(GPU_PYTHON) -m export.trt -n mambair_tiny_x2 --precision $$precision --verify \
			-o build/gpu-check-$$precision.engine || exit 1; \
	done
	$(GPU_PYTHON) -m export.trt -n mambair_tiny_x2 --plugin-free --max 128x128 --verify \
		-o build/gpu-check-plugin-free.engine
	$(GPU_PYTHON) -m zoo restore $(PHOTO) -o build/gpu-check.png --overwrite \
		--engine build/gpu-check-fp32.engine
PHOTO ?= docs/images/qmambabsr_tiny.png

$(GPU_VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/pip install --quiet --disable-pip-version-check -e ".[dev,$(TENSORRT)]"
	touch $@

# Faults planted one at a time, which tests should notice; what is done is kept in .mutants and not
# done again. The first run measures which tests run which lines: twice as long as the tests.
#   AREA=heads,training  COUNT=60  SEED=0  BASE=origin/main (only files changed since)
#   JOBS=2 (mutants at a time)  LIMIT=120 (seconds of tests a mutant)  LIST=1 (only show them)
mutate: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(if $(AREA),--area $(AREA)) \
		$(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(if $(BASE),--base $(BASE)) \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(LIMIT),--limit $(LIMIT)) $(if $(LIST),--list)

# Hostile and damaged input for everything that reads what users give: minutes. What finds a fault
# is kept in .fuzz.   AREA="recipes bursts"  SEED=7 (default: random)  COUNT=500 (cases an area)
fuzz: install
	$(BIN)/python -m tests.fuzz $(AREA) $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy zoo recipes export trt_plugins benchmarks examples build_tools
	$(BIN)/lint-imports --no-cache --no-logo

# Prints one table of ratios, in about half an hour.   BEFORE=folder: a checkout of an earlier version,
# built, to compare with
bench: install
	$(BIN)/python benchmarks/cpu.py $(if $(BEFORE),--before $(BEFORE))

# Prints the other tables of docs/benchmarks.md on a CPU: about half an hour, mostly for the authors'
# path.
bench-tables: install
	$(BIN)/python benchmarks/operator_cpu.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/networks.py
	$(BIN)/python benchmarks/network_limits.py

clean:
	rm -rf $(VENV) $(TENSORRT_VENV) $(GPU_VENV) $(WHEELS_VENV) $(OLDEST_VENV) $(APP_VENV) \
		$(INTEGRATIONS_VENV) $(DOCS_VENV) .runtimes demo build dist *.egg-info
