# Each target does all the set-up that it needs: Python 3.10 or newer, make and the public package index are enough.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CHECK := .venv-check
CHECKED := $(CHECK)/.installed
DOCS ?= .venv-docs
JOBS ?= 2
export HF_HUB_OFFLINE = 1

.PHONY: demo check coverage test operators fuzz lint docs matrix zoo zoo-ci windows-test gpu-test wheel clean

demo: $(INSTALLED)  ## build two trained models for Windows, inspect and check them
	$(BIN)/python ci/demo.py .demo

define LINT
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/shellcheck -S warning .ci/run $$(git ls-files '*.sh')
	$(BIN)/mypy
	$(BIN)/lint-imports
endef

# Those that need no torch: of the rest, each says that it was skipped.
LIGHT := -m pytest tests/unit -m "not slow" -n $(JOBS) -q -p no:cacheprovider

check: BIN := $(CHECK)/bin
check: $(CHECKED)  ## lint and the tests that need no torch, in about a minute; its own environment is small
	$(LINT)
	$(BIN)/python $(LIGHT)

coverage: $(CHECKED)  ## how much of toolchain/ these tests run; below the threshold in pyproject.toml it fails
	$(CHECK)/bin/python $(LIGHT) --cov --cov-report=term:skip-covered

test: $(INSTALLED)  ## every test that runs here; those for a GPU or for Windows say that they were skipped
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

operators: $(INSTALLED)  ## try every operator, compare with eager PyTorch, and write docs/build/operators.md (about twenty minutes)
	$(BIN)/python -m tests.operators table

fuzz: $(INSTALLED)  ## half an hour of it; the tests have some seconds
	$(BIN)/python -m tests.fuzz.run --seconds 1800

lint: $(INSTALLED)  ## formatting, lint, spelling, shell, types, and who may import whom
	$(LINT)

docs: $(DOCS)/.installed  ## the site, into .site/; it has a small environment of its own
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

matrix: $(INSTALLED)  ## build examples/matrix.toml, verify it on Linux and in a Windows Python, write a report
	BIN=$(abspath $(BIN)) ci/matrix.sh examples/matrix.toml .matrix/examples

zoo: $(VENV)/.zoo  ## build the models that people have, and write docs/build/zoo.md; some of them: ONLY='convnext*'
	$(BIN)/python -m benchmarks.zoo --jobs $(JOBS) --only '$(or $(ONLY),*)'

zoo-ci: $(VENV)/.zoo  ## twelve of them, in at most ten minutes
	$(BIN)/python -m benchmarks.zoo --jobs $(JOBS) --fixed

windows-test: $(INSTALLED)  ## the consumer in a real Windows Python (Debian's apt; root is not needed)
	BIN=$(abspath $(BIN)) ci/windows/test.sh || { code=$$?; [ $$code = 77 ] && echo "WINDOWS TESTS WERE NOT RUN"; [ $$code = 77 ]; }

gpu-test: $(INSTALLED)  ## on a GPU host: artifacts that were built without one
	$(BIN)/python -m pytest tests/gpu tests/compatibility -m gpu

wheel: $(INSTALLED)  ## dist/trtcross-*.whl, which a Windows machine installs
	$(BIN)/python -m build --wheel

$(INSTALLED): pyproject.toml
	@echo "setting up $(VENV): torch with CUDA and TensorRT-RTX are about 6 GB, some minutes"
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), "Python 3.10 or newer is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e ".[producer,consumer,sign,cluster,dev,models]"
	@touch $@

$(DOCS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -e ".[docs]"
	@touch $@

$(CHECKED): pyproject.toml
	@echo "setting up $(CHECK): 280 MB, about a minute"
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), "Python 3.10 or newer is needed"'
	$(PYTHON) -m venv $(CHECK)
	$(CHECK)/bin/python -m pip install -q -e ".[check]"
	@touch $@

$(VENV)/.zoo: $(INSTALLED)
	$(BIN)/python -m pip install -e ".[zoo]"
	@touch $@

clean:
	rm -rf $(VENV) $(CHECK) $(DOCS) .site .demo .zoo dist build
