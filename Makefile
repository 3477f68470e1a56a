# Two commands do everything: `make demo` shows what Regard does, `make test` proves that it does.
# TORCH names the build of torch, for instance: make demo TORCH=torch==2.13.0+cu130

PYTHON ?= python3
TORCH ?= torch==2.13.0
# processes that share the tests, each of which computes on one thread
WORKERS ?= 2
# a version of transformers to test with; by default the newest
TRANSFORMERS ?=
VENV := .venv
BIN := $(VENV)/bin
PAGE := src/regard/view/page

.PHONY: setup setup-dev demo site test test-transformers check coverage docs notebooks dist bench clean

setup: $(VENV)/installed
setup-dev: $(VENV)/installed-dev

$(VENV)/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON); install Python 3.11 or newer, or name yours: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old; Regard needs 3.11 or newer: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv or no pip; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary=:all: --constraint constraints.txt "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,all]'
	@touch $@

demo: setup
	$(BIN)/regard demo --out demo-$$(date +%Y%m%d-%H%M%S)

# docs/live/index.html; weights that are missing from docs/live/weights/ are trained first
site: setup
	$(BIN)/python docs/live/build.py

test: setup-dev
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
	# settings of wrong types, which test_decoding.py gives on purpose, never come past the shapes' own checks; while a
	# step is traced to be compiled sizes are symbols, which they do not know; and numba compiles no function they wrap
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal \
		--jaxtyping-packages=regard,beartype.beartype tests/attention tests/kernels tests/models tests/generation \
		--ignore tests/generation/test_decoding.py --ignore tests/models/test_compiled.py \
		--ignore tests/kernels/test_softmax.py

# in an environment of its own, where transformers alone, and what it needs, is another than the one in constraints.txt
test-transformers: OTHER = .venv-transformers-$(or $(TRANSFORMERS),newest)
test-transformers:
	$(MAKE) setup-dev VENV=$(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary=:all: --upgrade 'transformers$(TRANSFORMERS:%===%)'
	@$(OTHER)/bin/python -c 'import torch, transformers; print(f"transformers {transformers.__version__}, torch {torch.__version__}")'
	# DeBERTa, as older versions write it, warns when it is imported, and other models of theirs when they run
	$(OTHER)/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal \
		-W 'ignore:`torch.jit.script` is deprecated:DeprecationWarning' \
		-W 'ignore:`input_embeds` is deprecated:FutureWarning' tests/reading

check: setup-dev
	$(BIN)/ruff format --check src tests benchmarks examples docs/site
	$(BIN)/ruff check src tests benchmarks examples docs/site
	$(BIN)/pyright
	@if [ -x $(PAGE)/node_modules/.bin/eslint ]; then npm run --silent --prefix $(PAGE) lint; \
	else echo "make: the page is not checked, eslint is missing: npm install --no-package-lock --prefix $(PAGE)"; fi

# of the whole suite: longer than make test
coverage: setup-dev
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal --cov=regard --cov-report=term:skip-covered

# the wheel is built from the sdist, so that both are whole, and tried in an environment that holds nothing else
dist: setup-dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	.ci/try-wheel $(PYTHON) "$(TORCH)" $(BIN)/pyright dist/*.whl

# every dead link and every other warning of Sphinx is an error
docs: setup-dev
	$(BIN)/python docs/site/build.py build/site
	@echo "make: open build/site/index.html"

# Jupyter is installed now, not by setup-dev: the tests run the notebooks without it
notebooks: setup-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[notebooks]'
	$(BIN)/jupyter lab notebooks

bench: setup-dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venv-transformers-* build dist src/*.egg-info
