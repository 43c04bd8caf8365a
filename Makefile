# Everything a person types here. `make` alone prints this list.
.DEFAULT_GOAL := help
PYTHON ?= python3
export UV_PYTHON_DOWNLOADS := never
export PYTHONDONTWRITEBYTECODE := 1
BIN := $(if $(filter Windows_NT,$(OS)),.venv/Scripts,.venv/bin)

.PHONY: help setup report test fuzz check audit lab notebooks signatures bench lock demo clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The lock is installed with hashes, then this package alone: by uv, and by plain pip where uv is not to be had or fails.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
.venv/ready: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install uv || echo "no uv here"
	@{ test -x $(BIN)/uv && \
	   $(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock && \
	   $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e . ; } || \
	 { echo "installing with plain pip instead (slower)" && \
	   $(PIP) install --require-hashes -r requirements.lock && $(PIP) install --no-deps -e . ; }
	@touch $@

setup: .venv/ready  ## make .venv from requirements.lock

report: .venv/ready  ## report of the demo fleet and of the incident -> report/
	@# exit code 1 means "done, and some files could not be read": the demo fleet has such files on purpose
	$(BIN)/psod report data/demo-fleet --inventory data/inventory.csv -o report/demo-fleet || [ $$? -eq 1 ]
	$(BIN)/psod report data/incident-2014-05-31 -o report/incident || [ $$? -eq 1 ]

test: .venv/ready  ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

fuzz: .venv/ready  ## the property tests at random, N=20 times as many examples; the store, long
	PSOD_FUZZ=$(or $(N),20) $(BIN)/python -m pytest -n 2 -m hypothesis
	PSOD_LONG=1 PSOD_KILLS=150 PSOD_EVERY_STEP=1 $(BIN)/python -m pytest -n 2 tests/store tests/test_workers.py

check: .venv/ready  ## ruff (format and rules) and mypy strict
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

audit: .venv/ready  ## known holes in what requirements.lock names, by pip-audit; says why where no database can be had
	@rm -f .venv/audit.out; $(BIN)/uv tool run --quiet pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
	  -r requirements.lock -f columns -o .venv/audit.out 2> .venv/audit.err; found=$$?; \
	if test -e .venv/audit.out; then cat .venv/audit.out .venv/audit.err; exit $$found; fi; \
	echo "audit skipped: $$(tail -n 1 .venv/audit.err)"

lab: .venv/ready  ## JupyterLab on a working copy of the notebooks
	$(BIN)/psod lab

notebooks: .venv/ready  ## run the committed notebooks on the demo data, outputs in place
	$(BIN)/python -m psodlib.views.notebooks notebooks

signatures: .venv/ready  ## signatures that moved against tests/golden/signatures.txt (RENEW=1 writes it)
	$(BIN)/python benchmarks/triage_signatures.py $(if $(RENEW),--renew)

bench: .venv/ready  ## the benchmark scripts; each prints a table
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

lock: .venv/ready  ## solve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --all-extras --no-emit-index-url -o requirements.lock pyproject.toml

clean:  ## remove what was made here
	rm -rf .venv report .pytest_cache .mypy_cache .ruff_cache
