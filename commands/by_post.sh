#!/bin/sh
# `make by-post`: run this commit's pipeline with whole posts held out, in a copy of this tree, and keep its
# comparison for the documentation. An experiment of that name is replaced.
set -eu
cd "$(dirname "$0")/.."
experiment=refs/exps/$(git rev-parse HEAD | sed 's|^..|&/|')/by-post
git update-ref -d "$experiment"
GIT_AUTHOR_NAME=blogtune GIT_AUTHOR_EMAIL=blogtune@localhost \
    GIT_COMMITTER_NAME=blogtune GIT_COMMITTER_EMAIL=blogtune@localhost \
    .venv/bin/dvc exp run --temp -n by-post -S data.split.by=post
git show "$experiment:metrics/comparison.json" >metrics/by_post.json.new
mv metrics/by_post.json.new metrics/by_post.json
.venv/bin/python -m commands.readme
