#!/bin/sh
# `make diff`: what the metrics of this tree are against the base model's, or another revision's.
#   BASE=base|<revision> FORMAT=--json|--md|"" commands/diff.sh
set -eu
cd "$(dirname "$0")/.."
against=$BASE
dvc=.venv/bin/dvc
case ${FORMAT:-} in
"" | --json | --md) ;;
*)
    echo "error: FORMAT=$FORMAT: must be --json, --md or empty" >&2
    exit 1
    ;;
esac

fail() {
    echo "error: $*" >&2
    exit 1
}

# The base model's figures are an experiment named base: compare run for the other candidate, on
# this commit, in a copy of this tree. Only `compare` runs there, so nothing is ever trained.
describe_base() {
    test "$(git rev-parse --is-shallow-repository)" = false || git fetch -q --unshallow ||
        fail "this clone is shallow, and dvc cannot make an experiment in it; run \`git fetch --unshallow\`"
    experiment=refs/exps/$(git rev-parse HEAD | sed 's|^..|&/|')/base
    # Not `exp run -f`, which would train again.
    git update-ref -d "$experiment"
    # An experiment is a commit: of a changed tree it needs an identity.
    GIT_AUTHOR_NAME=blogtune GIT_AUTHOR_EMAIL=blogtune@localhost \
        GIT_COMMITTER_NAME=blogtune GIT_COMMITTER_EMAIL=blogtune@localhost \
        $dvc exp run --temp -n base -S compare.candidate=base --single-item compare >/dev/null ||
        fail "the base model's figures could not be made; does \`dvc repro\` finish?"
    git rev-parse -q --verify "$experiment" >/dev/null ||
        fail "dvc made no experiment; is compare.candidate base already?"
    # A branch or tag of that name would be taken for it.
    if git rev-parse -q --verify base >/dev/null; then
        against=$(git rev-parse --short "$experiment")
    fi
}

find_revision() {
    git rev-parse -q --verify "$against^{commit}" >/dev/null ||
        git fetch -q --depth=1 origin "+${against#origin/}:refs/remotes/$against" 2>/dev/null ||
        fail "BASE=$against: no such revision, here or at origin"
}

git rev-parse -q --verify HEAD >/dev/null 2>&1 ||
    fail "nothing to compare with before the first commit; run \`git commit\`"
$dvc status -q || echo "Not up to date: these are the figures of the last 'dvc repro'." >&2
if [ "$against" = base ]; then describe_base; else find_revision; fi
told=$($dvc metrics diff ${FORMAT:-} -- "$against")
printf '%s\n' "${told:-no differences}"
