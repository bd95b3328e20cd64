# Everything needs only Python 3.11 to 3.14 and make; the first call sets up .venv with uv.
SHELL := /bin/bash
UV := .uv/bin/uv
BIN := .venv/bin
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
FIRST := notebooks/07_your_couple_photo.ipynb
APP := notebooks/app/photo.ipynb
BIG := {"websocket_max_message_size": 104857600}
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
FORGET := --MappingKernelManager.cull_idle_timeout=60 --MappingKernelManager.cull_interval=30

# What you chose for your own photographs (workspace.toml) is none of these two's business.
notebooks test: export DCLIB_CHOICES := build/no-choices.toml

# Whoever starts Python is not to compile dclib and the tests anew each time.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup notebooks figures test torture coverage check fix lab app wheel colab lowest upgrade badges clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: .venv/ready ## install everything into .venv (done by the other targets too)

# 03 goes first and 04 and 05 last, as they look at the network that it trains.
notebooks: ORDER = $(filter %03_training.ipynb,$(NOTEBOOKS)) \
	$(filter-out %03_training.ipynb %04_evaluation.ipynb %05_grad_cam.ipynb,$(NOTEBOOKS)) \
	$(filter %04_evaluation.ipynb %05_grad_cam.ipynb,$(NOTEBOOKS))
notebooks: THREADS = $(shell $(BIN)/python -c 'import os; print(max(1, os.cpu_count() // 2))')
notebooks: setup ## run the series, two at a time; results and HTML in build/notebooks, pictures in figures
	rm -rf build/series
	printf '%s\n' $(ORDER) | OMP_NUM_THREADS=$(THREADS) xargs -n 1 -P 2 \
		$(BIN)/jupyter nbconvert --to notebook --execute --output-dir build/notebooks
	$(BIN)/jupyter nbconvert --to html --output-dir build/notebooks build/notebooks/*.ipynb
	$(if $(filter $(FIRST),$(NOTEBOOKS)),cp build/figures/07_prediction.png figures)

figures: notebooks ## the figures are written by the notebooks

test: setup ## unit tests, browser test, and every notebook on small settings
	rm -rf build/test
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) --nbmake --nbmake-timeout=600 tests dclib $(NOTEBOOKS)

torture: setup ## commands that meet, are killed, run out of disk or get odd input; seven minutes
	OMP_NUM_THREADS=1 TORTURE=2 $(BIN)/pytest $(PARALLEL) tests/torture

coverage: setup ## which lines of dclib the unit tests run, by module
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) --cov=dclib --cov-report=term tests dclib

check: setup ## lint, format, spelling, types, stripped notebooks, generated tables
	$(UV) lock --check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/nbstripout --verify --keep-id $(NOTEBOOKS) $(APP)
	$(BIN)/python notebooks/index.py --check

fix: setup ## put right what can be put right by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/nbstripout --keep-id $(NOTEBOOKS) $(APP)
	$(BIN)/python notebooks/index.py

lab: setup ## open the clone in JupyterLab, notebook 07 in front, with uploads up to 100 MB
	$(BIN)/jupyter lab --ServerApp.tornado_settings='$(BIG)' --LabApp.default_url=/lab/tree/$(FIRST)

app: setup ## show it your photos without code, in a browser; what it knew goes with its page
	$(BIN)/voila --Voila.tornado_settings='$(BIG)' $(FORGET) $(APP)

wheel: $(UV) ## dclib as one file in build, to upload beside a notebook in Colab
	$(UV) build --quiet --wheel --out-dir build .

colab: setup ## the series with Colab's versions, from the built wheel; needs Python 3.13 and 3.12
	$(BIN)/python tests/colab/run.py 3.13 3.12

lowest: setup ## the tests on the oldest versions that pyproject.toml allows; needs Python 3.11
	$(UV) venv --quiet --clear --python 3.11 build/lowest
	$(UV) pip install --no-config --quiet --python build/lowest --resolution lowest-direct \
		".[notebooks]" --group dev
	OMP_NUM_THREADS=1 build/lowest/bin/pytest $(PARALLEL) -W default -m "not exact" tests \
		--ignore-glob "*browser*"

upgrade: $(UV) ## the newest versions that pyproject.toml allows into uv.lock; then: make check test
	$(UV) lock --upgrade

badges: setup ## point all Colab links at your copy: make badges REPO=owner/name TAG=v0.1.0
	@[ "$(REPO)$(TAG)" ] || { echo "Say where they lead: make badges REPO=owner/name TAG=v0.1.0"; exit 1; }
	$(BIN)/python notebooks/index.py --repo "$(REPO)" --tag "$(TAG)"

clean: ## remove what can be made again (not data, checkpoints or the state of a training)
	@! find build \( -path build/series -o -path build/test \) -prune -o -name 'state*.pt' -print 2>/dev/null \
		| grep . || { echo "That is the state of a training: move it out of build first."; exit 1; }
	rm -rf build .venv .uv .pytest_cache .ruff_cache .hypothesis

$(UV):
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { echo "Python 3.11 to 3.14 is needed."; exit 1; }
	python3 -m venv .uv || { echo "python3 -m venv failed: install the package python3-venv."; exit 1; }
	.uv/bin/pip install --quiet "uv>=0.9,<1"

.venv/ready: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --all-extras --compile-bytecode
	@touch $@
