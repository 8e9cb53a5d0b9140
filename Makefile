# The handful of commands that people and CI use. `make demo` and `make test` need Python 3.11, make and git only.
PYTHON ?= python3.11
VENV ?= .venv
TORCH := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
bin := $(VENV)/bin
# `python3.11` may be a shim without a version behind it: fall back to python3.
python := $(shell $(PYTHON) -c '' 2>/dev/null && echo $(PYTHON) || echo python3)
pip := $(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-compile
# The demo's base model is trained before its tests: beside them it took twice as long.
# Only what is run is collected: importing every test takes half a minute of each process.
by_themselves = $(shell grep -rlE 'mark\.(alone|soak)' tests --include='test_*.py')
installed := $(VENV)/.installed-$(shell cat requirements/cpu.lock pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: help demo serve test soak lint bench bench-gateway bench-drift bench-train bench-loop dashboards install lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

demo: install ## play a day of a support desk: serve, drift, retrain, promote
	$(bin)/python -m demo

serve: install ## serve what trimtab.yaml says
	$(bin)/trimtab up

test: install ## unit, integration, and the real end-to-end loop
	$(bin)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --ignore tests/acceptance -m "not soak"
	$(bin)/python -m demo.base_model
	$(bin)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone and not soak" tests/acceptance
	$(bin)/python -m pytest -m "alone or soak" $(by_themselves)

soak: install ## overload, hostility and failures in full, with figures (minutes)
	TRIMTAB_SOAK=1 $(bin)/python -m pytest -s -m "long or soak" $(shell grep -rlE 'mark\.(long|soak)' tests --include='test_*.py')

lint: install ## ruff, mypy, import contracts
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

bench: install ## every row of the scorecard
	$(bin)/python -m benchmarks

bench-gateway: install ## the gateway beside LiteLLM, TensorZero and nginx (they are installed on first use)
	$(bin)/python -m benchmarks.gateway

bench-drift: install ## drift: false alarms, delay, estimated accuracy, beside Evidently, river, alibi-detect and NannyML
	$(bin)/python -m benchmarks.drift
	$(bin)/python -m benchmarks.drift --row delays --settled 5000

bench-train: install ## the training recipe beside TRL's trainer: time to a loss, utilisation, padding, memory
	$(bin)/python -m benchmarks.train

bench-loop: install ## the loop: time to recover beside a stitched one, latency meanwhile, flips and rollbacks
	$(bin)/python -m benchmarks.loop

dashboards: install ## generate the Grafana dashboard from Python
	$(bin)/python -m dashboards.build

install: $(installed) ## the environment, versions locked

$(installed): requirements/cpu.lock pyproject.toml
	@$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Trimtab needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(bin)/python || $(python) -m venv $(VENV)
	$(pip) torch==$(TORCH)+cpu || $(pip) torch==$(TORCH)+cpu --extra-index-url $(TORCH_CPU_INDEX)
	$(pip) --no-deps -r requirements/cpu.lock
	$(pip) --no-deps --no-build-isolation -e .
	@$(bin)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true # on all cores; some packages hold what is no Python 3
	@rm -f $(VENV)/.installed-*
	@touch $@

lock: ## resolve the versions again (needs uv)
	uv pip compile pyproject.toml --extra cpu --extra dev --override requirements/overrides.txt --python-version 3.11 \
		--no-header --no-annotate -q | grep -vE '^(torch|setuptools)==' > requirements/cpu.lock
	uv pip compile pyproject.toml -c requirements/cpu.lock --python-version 3.11 --no-header --no-annotate -q > requirements/base.lock

clean: ## remove what the demo and the tests left
	rm -rf .trimtab out
