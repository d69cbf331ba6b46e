# install, demo, test, lint, bench, torture, accuracy: each does all the set-up that it needs.
PYTHON ?= python3
PIP := -m pip --quiet --disable-pip-version-check
BIN := .venv/bin
TEST := build/test-venv/bin
# Numba's compiled kernels: in a folder of their own, so that none stays behind an uninstalled package
export NUMBA_CACHE_DIR ?= $(CURDIR)/build/numba-cache

.PHONY: install demo test lint bench torture accuracy wheel clean

install: .venv/installed

demo: .venv/installed
	$(BIN)/lightmill demo --out demo $(if $(RELEASE),--release "$(RELEASE)")

# Trains and tests both bundles anew, and prints what was measured; SEEDS="0 1 2" for each of these seeds.
DATA ?= ../shared/data
SEEDS ?= 0
CRTS = $(DATA)/crts_css_labelled.parquet
ZTF = --survey $(DATA)/ztf_000250_zg_c01_q1_dr5.parquet --survey $(DATA)/ztf_dr_bts_epochs.parquet
accuracy: .venv/installed
	rm -rf build/accuracy
	for seed in $(SEEDS); do \
	  $(BIN)/lightmill train --labels $(CRTS) --recipe crts-7 --seed $$seed --out build/accuracy/crts-7-$$seed > /dev/null \
	  && $(BIN)/lightmill train --labels $(CRTS) $(ZTF) --recipe ztf-dr --seed $$seed --out build/accuracy/ztf-dr-$$seed > /dev/null \
	  || exit 1; \
	done
	for bundle in build/accuracy/*; do $(BIN)/lightmill models card $$bundle; done

# The tests and the checks see the built wheel, not the source tree. A module of tests stays in one process, and the
# longest come first; kernels are compiled before, or each process would; benchmarks only have to run: their figures are
# for make bench.
test: wheel
	$(TEST)/lightmill warmup
	$(TEST)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	  --benchmark-disable $(PYTEST_ARGS)

lint: wheel
	$(TEST)/ruff check .
	$(TEST)/ruff format --check .
	$(TEST)/mypy -p lightmill.pipeline -p lightmill.catalogs -p lightmill.models -p lightmill.cluster
	$(TEST)/lint-imports

# The figures alone on stdout: make bench FORMAT=json > bench.json
bench:
	@$(MAKE) --no-print-directory wheel >&2
	@$(TEST)/python tests/bench/table.py --format $(or $(FORMAT),markdown) $(PYTEST_ARGS)

# Three hundred processes killed while a release is classified; KILLS=20 for fewer.
torture: wheel
	$(TEST)/python tests/torture.py --kills $(or $(KILLS),300)

wheel: build/test-venv/installed
	rm -rf build/wheel build/lib build/bdist.*
	$(TEST)/python -m build --wheel --no-isolation --outdir build/wheel . > build/wheel.log
	$(TEST)/python $(PIP) install --force-reinstall --no-deps build/wheel/*.whl

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) install "setuptools>=77" wheel
	$(BIN)/python $(PIP) install -c constraints.txt -e ".[cpu,import,test]" --config-settings editable_mode=strict
	touch $@

build/test-venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv build/test-venv
	$(TEST)/python $(PIP) install "setuptools>=77" wheel
	$(TEST)/python $(PIP) install -c constraints.txt ".[cpu,import,test]"
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .benchmarks .hypothesis
