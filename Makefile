# Each target sets up what it needs. Python 3.10 to 3.13, make and the public package index are enough.
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

# The unit tests that need no torch; the others are reported as skipped.
LIGHT := -m pytest tests/unit -m "not slow" -n $(JOBS) -q -p no:cacheprovider

check: BIN := $(CHECK)/bin
check: $(CHECKED)  ## run lint and the tests that need no torch, in about a minute, in a small environment of its own
	$(LINT)
	$(BIN)/python $(LIGHT)

coverage: $(CHECKED)  ## measure how much of toolchain/ these tests run; fail below the threshold in pyproject.toml
	$(CHECK)/bin/python $(LIGHT) --cov --cov-report=term:skip-covered

test: $(INSTALLED)  ## run every test that can run here; those for a GPU or for Windows are reported as skipped
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

operators: $(INSTALLED)  ## try every operator, compare with eager PyTorch, and write docs/build/operators.md (about twenty minutes)
	$(BIN)/python -m tests.operators table

fuzz: $(INSTALLED)  ## fuzz the readers for half an hour; the tests do it for some seconds
	$(BIN)/python -m tests.fuzz.run --seconds 1800

lint: $(INSTALLED)  ## check formatting, lint, spelling, shell scripts, types, and the import rules
	$(LINT)

docs: $(DOCS)/.installed  ## build the site into .site/, in a small environment of its own
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

matrix: $(INSTALLED)  ## build examples/matrix.toml, verify it on Linux and in a Windows Python, write a report
	BIN=$(abspath $(BIN)) ci/matrix.sh examples/matrix.toml .matrix/examples

zoo: $(VENV)/.zoo  ## build public architectures and write docs/build/zoo.md; some of them: ONLY='convnext*'
	$(BIN)/python -m benchmarks.zoo --jobs $(JOBS) --only '$(or $(ONLY),*)'

zoo-ci: $(VENV)/.zoo  ## build twelve of them, in at most ten minutes
	$(BIN)/python -m benchmarks.zoo --jobs $(JOBS) --fixed

windows-test: $(INSTALLED)  ## test the consumer in a real Windows Python (needs Debian's apt, not root)
	BIN=$(abspath $(BIN)) ci/windows/test.sh || { code=$$?; [ $$code = 77 ] && echo "WINDOWS TESTS WERE NOT RUN"; [ $$code = 77 ]; }

gpu-test: $(INSTALLED)  ## on a GPU host, test artifacts that were built without a GPU
	$(BIN)/python -m pytest tests/gpu tests/compatibility -m gpu

wheel: $(INSTALLED)  ## build dist/trtcross-*.whl, which a Windows machine installs
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
