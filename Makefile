# Two commands do everything: `make demo` and `make test`. Both can be repeated and do no work twice.
PYTHON ?= python3
VENV ?= .venv
CORES ?= all
export PATH := $(abspath $(VENV))/bin:$(PATH)
# One run at a time. A kill frees this lock, where Snakemake's own would stay; jobs that outlive a killed run hold their work folders.
LOCK := results/.lock
INSTALLED := $(VENV)/.installed

.PHONY: help demo report paper test test-slow test-all test-slurm slurm-up slurm-down bench lint lock schema readme clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(INSTALLED) ## run the default suite, some minutes on 2 cores, and build its report
	@mkdir -p $(dir $(LOCK))
	@flock --nonblock $(LOCK) true || echo "Another run is at work here: waiting for it."
	@flock $(LOCK) snakemake --cores $(CORES) --nolock --rerun-incomplete --logger prunebench
	@$(MAKE) --no-print-directory report

report: $(INSTALLED) results/demo/report.html ## build the HTML report of the demo and say where it is
	@cat results/demo/tables/headline.md
	@echo
	@echo "Report:  $(abspath results/demo/report.html)"
	@echo "Tables:  $(abspath results/demo/tables)  (CSV, LaTeX, Markdown)"
	@echo "Figures: $(abspath results/demo/figures)  (PDF, PNG)"

results/demo/report.html: results/demo/tables/headline.csv $(wildcard results/demo/figures/*.png)
	@snakemake --cores 1 --quiet all --nolock --report results/demo/.report.html && mv results/demo/.report.html $@

# CONFIG names another suite than the demo: make paper CONFIG=config/released.yaml
paper: $(INSTALLED) ## put the tables and figures into one PDF (LaTeX where it is installed), and into the HTML report
	@mkdir -p $(dir $(LOCK))
	@flock $(LOCK) snakemake $(if $(CONFIG),--configfile $(CONFIG)) --cores $(CORES) --nolock --rerun-incomplete --logger prunebench paper
	@snakemake $(if $(CONFIG),--configfile $(CONFIG)) --cores 1 --quiet all --nolock --report results/.report.html
	@suite=$$(python -c 'import pathlib, sys; from prunebench.config import read; print(read(pathlib.Path(sys.argv[1])).suite)' \
		$(or $(CONFIG),config/config.yaml)) && mv results/.report.html results/$$suite/report.html && \
		echo "Report:  $(abspath results)/$$suite/report.html" && prunebench typeset results/$$suite/paper

test: $(INSTALLED) ## run the default test suite
	pytest -m "not slow and not slurm"

test-slurm: $(INSTALLED) ## run the tests on a real SLURM, started on this machine for them (as root, Debian or Ubuntu)
	python tools/slurm_cluster.py install
	pytest -m slurm

test-slow: $(INSTALLED) ## run the tests that take long, those on real data too
	pytest -m "slow and not slurm"

test-all: $(INSTALLED) ## run every test; those on SLURM where it is installed (make test-slurm) and this is root
	pytest

slurm-up: ## start a real, throw-away SLURM on this machine (as root, Debian or Ubuntu)
	$(PYTHON) tools/slurm_cluster.py up --install

slurm-down: ## take it down again
	$(PYTHON) tools/slurm_cluster.py down --purge

bench: $(INSTALLED) ## time scoring against plain forward passes on this machine
	python tools/bench_scoring.py

lint: $(INSTALLED) ## check style, types and the workflow
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

lock: ## pin the dependencies anew (needs uv)
	uv pip compile --universal --python-version 3.11 --fork-strategy fewest --extra dev --no-header --no-annotate \
		-c tools/held-back.txt pyproject.toml -o requirements.lock
	$(VENV)/bin/python tools/lock.py

readme: $(INSTALLED) ## put the figure and headline of the demo into README.md
	python tools/readme.py

schema: $(INSTALLED) ## make the schema and the table of config keys from the code
	python -m prunebench schema > workflow/schemas/config.schema.json
	python tools/config_table.py

clean: ## remove the results and logs of the demo (not the environment)
	rm -rf results/demo logs/demo

# The stamp is newer than what it was made from, so a second call installs nothing.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	@touch $@
