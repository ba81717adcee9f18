# `make` lists the targets.
# For what a line starts in its turn. Apple's make looks for a line's own program elsewhere, so each
# is named by its path; and what a person sets (PROFILE, BASE, ...) reaches it as it is, by the
# environment, never through a shell's line.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
BASE ?= base
# As it was given: make would run a $(shell ...) in it.
override BASE := $(value BASE)
override FORMAT := $(value FORMAT)
override PROFILE := $(value PROFILE)
override MODELS := $(value MODELS)
override Q := $(value Q)
export BASE FORMAT MODELS PROFILE Q
# Two at a time, those that share a file or the finished pipeline in one of them.
TESTS := .venv/bin/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder
LOCKS := requirements/run.txt requirements/models.txt

.DEFAULT_GOAL := help
.PHONY: help setup repro test test-sample test-all check fix chat ask show diff verdict judge readme use pin export publish \
  judge-cache doctor lock bench by-post reference docs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s%s\n", $$1, $$2}' Makefile

setup: .venv/.ready ## create the environment (the other targets do it when needed)

.venv/.ready: $(LOCKS) blogtune/common/blas.py
	@commands/setup.sh

repro: .venv/.ready ## run the whole pipeline and show the result
	@.venv/bin/python -m commands.preflight
	.venv/bin/dvc repro
	@.venv/bin/python -m commands.summary

test: .venv/.ready ## the tests, in minutes
	$(TESTS) --slow=none tests

test-sample: .venv/.ready ## and the first case of each slow test
	$(TESTS) --slow=sample tests

test-all: .venv/.ready ## all slow tests, with long campaigns (over an hour)
	$(TESTS) tests

chat: .venv/.ready ## talk to base and fine-tuned model, or to MODELS="fused"
	@.venv/bin/python -m commands.chat

ask: .venv/.ready ## one question to them: make ask Q="..."
	@.venv/bin/python -m commands.chat --once

show: .venv/.ready ## the best and the worst changes, with their answers
	@.venv/bin/python -m commands.show

diff: .venv/.ready ## base against fine-tuned, or BASE=<revision> against this tree
	@commands/diff.sh

verdict: .venv/.ready ## the table and the verdict as Markdown
	@.venv/bin/python -m commands.summary --markdown

judge: .venv/.ready ## the judge's test: which answers it can tell apart
	@.venv/bin/python -m commands.show_judge

by-post: .venv/.ready ## the same with whole posts held out, as an experiment
	@commands/by_post.sh

readme: .venv/.ready ## write the last run's figures into README.md and docs/explanation/
	@.venv/bin/python -m commands.readme

reference: .venv/.ready ## write docs/reference/ and the schema of params.yaml from the code
	@.venv/bin/python -m commands.reference

docs: .venv/.ready-dev ## the documentation as a site, in site/
	.venv/bin/properdocs build --strict --quiet

use: .venv/.ready ## write a profile into params.yaml: make use PROFILE=phi3-mini
	@.venv/bin/python -m commands.use

publish: .venv/.ready ## the fused model to the Hugging Face hub; DRY_RUN=1 shows card and files
	@.venv/bin/python -m commands.publish $(if $(DRY_RUN),--dry-run) $(if $(EVEN_IF_WORSE),--even-if-worse)

pin: .venv/.ready ## look hub commits and Ollama digests up and write them into params.yaml
	@.venv/bin/python -m commands.pin

export: .venv/.ready ## the fused model on an Ollama server, and what serving costs
	@.venv/bin/python -m commands.export

judge-cache: .venv/.ready ## what is kept of the judges' verdicts; PRUNE=1 drops what no judge here made
	@.venv/bin/python -m commands.judge_cache $(if $(PRUNE),--prune)

bench: .venv/.ready .venv-peers/.ready ## side by side with mlx-lm, PEFT and transformers (1.5 hours)
	.venv/bin/dvc repro fetch prepare
	.venv/bin/python -m benchmarks.training --exact --rate 1e-4 --steps 20
	.venv/bin/python -m benchmarks.training
	.venv/bin/python -m benchmarks.whole
	.venv/bin/python -m benchmarks.answers
	.venv/bin/dvc repro fuse
	.venv/bin/python -m benchmarks.fused

.venv-peers/.ready: requirements/peers.txt .venv/.ready
	@echo "installing PEFT, torch and transformers into .venv-peers (several GB)"
	@test -x .venv-peers/bin/python || .venv/bin/python -m venv .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check --no-input install -q --require-hashes -r requirements/peers.txt
	@touch .venv-peers/.ready

doctor: .venv/.ready ## what this machine has, and what the settings need
	@.venv/bin/python -m commands.doctor

check: .venv/.ready-dev ## lint, types and contracts; writes nothing
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright
	.venv/bin/python -m pytest -q -n 2 tests/contracts

fix: .venv/.ready-dev ## what ruff can mend
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

.venv/.ready-dev: requirements/dev.txt .venv/.ready
	@echo "installing the developers' tools into .venv"
	@.venv/bin/python -m pip --disable-pip-version-check --no-input install -q --require-hashes -r requirements/dev.txt
	@touch .venv/.ready-dev

lock: .venv/.ready-dev ## renew the lock files, and check that every platform has wheels
	.venv/bin/python requirements/lock.py
