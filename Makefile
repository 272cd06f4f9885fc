# One pinned environment (about 6 GB) lives outside the clone and is shared by every clone with the same
# requirements.txt; `.venv` in the clone is a thin layer on top of it that holds this project alone.
PYTHON ?= python3.11
ENV_HOME ?= $(HOME)/.cache/antehoc-hf
ENV_HASH := $(shell sha256sum requirements.txt | cut -c1-16)
BASE := $(ENV_HOME)/env-$(ENV_HASH)
PY := .venv/bin/python
OUT ?= outputs

# Threads that wait passively: on few or shared cores spinning costs up to 3x.
export OMP_WAIT_POLICY = passive
export TOKENIZERS_PARALLELISM = false

.PHONY: help install environment demo example docs-site build test test-slow test-real lint types format docs bench sweep floors clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/.installed-$(ENV_HASH) ## virtual environment and pinned install

# No prerequisite: the name holds the hash of requirements.txt, and a fresh clone's file is always newer. Of several
# clones that install at once (where there is flock) one does it and the others wait.
ALONE := $(shell command -v flock >/dev/null 2>&1 && echo flock $(ENV_HOME)/lock)

$(BASE)/.complete:
	@mkdir -p $(ENV_HOME)
	@$(ALONE) $(MAKE) --no-print-directory environment

environment:
	@[ -e $(BASE)/.complete ] || { \
	    echo "Installing the pinned packages into $(BASE) ..." && rm -rf $(BASE) && $(PYTHON) -m venv $(BASE) && \
	    $(BASE)/bin/python -m pip install --quiet --requirement requirements.txt && \
	    find $(ENV_HOME) -maxdepth 1 -name 'env-*' ! -name 'env-$(ENV_HASH)' -exec rm -rf {} + && \
	    touch $(BASE)/.complete; }

.venv/.installed-$(ENV_HASH): $(BASE)/.complete pyproject.toml
	@rm -rf .venv
	@$(PYTHON) -m venv --without-pip .venv
	@echo $(BASE)/lib/python3.*/site-packages > $$(echo .venv/lib/python3.*/site-packages)/shared_environment.pth
	@$(PY) -m pip install --quiet --no-build-isolation --no-deps --editable .
	@for command in accelerate torchrun hf; do \
	    sed '1s|.*|#!$(CURDIR)/$(PY)|' $(BASE)/bin/$$command >.venv/bin/$$command && chmod +x .venv/bin/$$command; done
	@touch $@

# Two trainings at a time with half of the cores each: small networks are no faster with more threads.
demo: export OMP_NUM_THREADS = $(shell expr \( $$(nproc 2>/dev/null || sysctl -n hw.ncpu) + 1 \) / 2)
demo: install ## the three tasks on the built-in data set: train, evaluate, pictures, reload in a new process
	@mkdir -p $(OUT)
	@echo "Landmarks and captions train beside; how far they are: $(OUT)/demo-beside.log"
	@( $(call train_demo,demo-landmarks) && $(call train_demo,demo-captions) ) \
	    >$(OUT)/demo-beside.txt 2>$(OUT)/demo-beside.log & beside=$$!; \
	$(call train_demo,demo) || { pkill -P $$beside; exit 1; }; \
	echo "Waiting for landmarks and captions ..."; \
	wait $$beside || { tail -n 20 $(OUT)/demo-beside.log; exit 1; }; \
	cat $(OUT)/demo-beside.txt
	$(PY) -m benchmarks.reload $(OUT)/demo $(OUT)/demo-landmarks $(OUT)/demo-captions

train_demo = $(PY) -m antehoc_hf train --recipe $(1) --output_dir $(OUT)/$(1) --overwrite_run True

example: install ## the small model and the two images that come with the package
	$(PY) -m antehoc_hf train --recipe demo --map_eval_samples 50 --insertion_deletion_images 0 \
	    --output_dir $(OUT)/example --overwrite_run True
	$(PY) -m benchmarks.make_example $(OUT)/example

# Two processes side by side: the tests use one core each.
FIRST_HALF = tests/training tests/shapes tests/commands tests/hub tests/baselines tests/evaluation

test: install ## the fast tests, offline
	@mkdir -p build
	@OMP_NUM_THREADS=1 $(PY) -m pytest --durations=20 $(FIRST_HALF) >build/tests.log 2>&1 & first=$$!; \
	OMP_NUM_THREADS=1 $(PY) -m pytest --durations=20 $(addprefix --ignore=,$(FIRST_HALF)); second=$$?; \
	wait $$first; first=$$?; cat build/tests.log; exit $$((first + second))

test-slow: install ## the slow tests
	$(PY) -m pytest -m "slow and not real_data"

test-real: install ## the tests on real data (../shared/data, or ANTEHOC_DATA)
	$(PY) -m pytest -m real_data

floors: ## the tests of models, explainers and the Hub with the lowest versions that pyproject.toml allows, in build/floors
	$(PYTHON) -m venv build/floors
	build/floors/bin/pip install --quiet uv
	build/floors/bin/uv pip install --quiet --python build/floors --resolution lowest-direct -r pyproject.toml \
	    --extra captions --extra concepts --extra explainers --extra onnx
	build/floors/bin/uv pip install --quiet --python build/floors pytest pytest-timeout setuptools
	build/floors/bin/uv pip install --quiet --python build/floors --no-deps --editable . torchcam
	build/floors/bin/uv pip freeze --python build/floors --exclude-editable
	build/floors/bin/python -m pytest -o filterwarnings=ignore tests/modeling tests/explainers
	build/floors/bin/python -m pytest -o filterwarnings=ignore tests/hub

lint: install ## ruff
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: install ## ruff, repairing
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# mypy and mkdocstrings follow folders, so they are shown the tree as it is installed.
.PHONY: build/package
build/package:
	@rm -rf $@ && mkdir -p $@/antehoc_hf
	@for item in antehoc_hf/* modeling training model_cards; do \
		ln -s $(CURDIR)/$$item $@/antehoc_hf/$$(basename $$item); done

# What mypy knows of the installed packages is kept beside them, for every clone.
types: install build/package ## mypy
	cd build/package && $(CURDIR)/$(PY) -m mypy --cache-dir $(BASE)/mypy --config-file $(CURDIR)/pyproject.toml -p antehoc_hf
	$(PY) -m mypy --cache-dir $(BASE)/mypy-benchmarks benchmarks docs/*.py

docs: install ## the reference, from the docstrings
	$(PY) docs/make_reference.py

docs-site: install build/package ## the site, in build/site
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

# OWNER is where the repository lives on GitHub: on the index a README needs whole addresses.
build: install ## wheel and sdist in dist/, from what is committed: make build OWNER=name
	@test -n "$(OWNER)" || { echo "Say whose repository the package links to: make build OWNER=name"; exit 2; }
	@rm -rf build/release dist && mkdir -p build/release
	git archive HEAD | tar -x -C build/release
	@sed -i 's#github.com/OWNER#github.com/$(OWNER)#' build/release/pyproject.toml
	@sed -E -i -e "s#install -e \\.\$$#install antehoc-hf#" -e "s#install -e '\\.\[#install 'antehoc-hf[#" \
	    -e 's#(!\[[^]]*\]\()([^):]+\))#\1https://github.com/$(OWNER)/antehoc_hf/raw/main/\2#g' \
	    -e 's#(\]\()([^):]+\))#\1https://github.com/$(OWNER)/antehoc_hf/blob/main/\2#g' build/release/README.md
	$(PY) -m build --no-isolation --outdir dist build/release

bench: install ## what the map costs, each figure beside its target: make bench, or make bench QUICK=--quick
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.bench $(QUICK) --output $(OUT)/bench

sweep: install ## which of timm's architectures explain themselves
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.sweep --output $(OUT)/sweep/backbones.md

clean: ## what was made here, except the shared environment
	rm -rf .venv build dist outputs *.egg-info
