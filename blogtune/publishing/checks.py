"""What keeps a model from being published, looked for before any request."""

from collections.abc import Iterator
from pathlib import Path

from blogtune.common.errors import Problem
from blogtune.exporting.weights import FUSED, weights_of
from blogtune.project import lock
from blogtune.publishing.bundle import Entry, dvc_name, folders
from blogtune.publishing.facts import GGUF, Facts, git
from blogtune.publishing.receipt import RECEIPT

SHOWN = 3


def obstacles(
    facts: Facts, entries: dict[Path, list[Entry]], *, even_if_worse: bool
) -> Iterator[Problem]:
    """Each reason against publishing, with its remedy, in one line."""
    yield from of_the_run(facts, even_if_worse=even_if_worse)
    yield from _changes_in_git()
    yield from _changes_in_dvc()
    yield from _other_weights(facts, entries)


def of_the_run(facts: Facts, *, even_if_worse: bool = False) -> Iterator[Problem]:
    """Those that lie in the settings and in what was measured."""
    params = facts.settings.publish
    if params.repository is None:
        yield Problem("not set", "publish.repository", "set it to <owner>/<name>")
    yield from _no_parity(facts)
    if facts.outcome == "worse" and not even_if_worse:
        anyway = "`make publish EVEN_IF_WORSE=1` publishes it anyway, and the card says so"
        yield Problem(facts.verdict, remedy=anyway)
    if not facts.outcome:
        where = "metrics/comparison.json"
        yield Problem("no verdict on the fused model", where, "run `make repro`")
    yield from _licenses(facts)
    if params.gguf:
        yield from _no_gguf()


def _changes_in_git() -> Iterator[Problem]:
    """The receipt may have changed: it is committed after it was written."""
    status = git("status", "--porcelain", "--", ".", f":(exclude){RECEIPT}").splitlines()
    if status:
        names = _some([line[3:] for line in status])
        yield Problem(f"not committed: {names}", "git", "commit the changes, or undo them")


def _changes_in_dvc() -> Iterator[Problem]:
    changed = lock.changes()
    if changed:
        what = f"not what dvc.lock describes: {_some(changed)}"
        yield Problem(what, "dvc status", "run `make repro`, look at the result and commit it")


def _other_weights(facts: Facts, entries: dict[Path, list[Entry]]) -> Iterator[Problem]:
    """The very bytes that would be sent: dvc trusts a file's time and size."""
    outs = lock.outputs()
    for folder, inside in folders(facts.settings.publish).items():
        if not entries.get(folder):
            yield Problem("not there", str(folder), "run `make repro`")
        elif dvc_name(entries[folder], inside) != outs.get(str(folder)):
            what = "not the files that dvc.lock names, so the metrics are not theirs"
            yield Problem(what, str(folder), "run `make repro`")


def _no_parity(facts: Facts) -> Iterator[Problem]:
    limits, fusion = facts.settings.fuse, facts.fusion
    divergence = fusion["mean_kl_micronats"] / 1e6
    # Put so that a figure which is no number does not pass.
    near = divergence <= limits.max_kl and fusion["top1_agreement"] >= limits.min_top1_agreement
    if not near:
        yield Problem(
            f"departs from the adapted model: mean KL {divergence:.1e} (fuse.max_kl "
            f"{limits.max_kl:.0e}), top-1 agreement {fusion['top1_agreement']:.4f} "
            f"(fuse.min_top1_agreement {limits.min_top1_agreement})",
            "metrics/fusion.json",
            "do not ship it",
        )


def _licenses(facts: Facts) -> Iterator[Problem]:
    params, stated = facts.settings.publish, facts.base.get("license")
    if facts.license is None:
        what = f"{facts.base.get('source')} states no license, which the result would inherit"
        yield Problem(what, "models/base/source.json", "set publish.license")
    elif params.license is not None and stated is not None and params.license != stated:
        what = f"{params.license}, but the base states {stated}, which the result inherits"
        yield Problem(what, "publish.license", "set it to null")
    yield from _data_license(facts)


def _data_license(facts: Facts) -> Iterator[Problem]:
    said, stated = facts.settings.publish.data_license, facts.fetched.get("license")
    if facts.data_license is None:
        where = f"{facts.settings.data.path} has no README.md with a section License"
        if facts.fetched:
            where = f"the hub states none of {facts.fetched['source']}"
        yield Problem(f"not set, and {where}", "publish.data_license", "set it")
    elif stated is not None and said not in (None, stated):
        what = f"{said}, but {facts.fetched['source']} states {stated}"
        yield Problem(what, "publish.data_license", "set it to null")


def _no_gguf() -> Iterator[Problem]:
    if not GGUF.is_file():
        yield Problem(f"{GGUF} is not there", "publish.gguf", "run `make export`")
    elif weights_of(GGUF.parent) != lock.outputs().get(str(FUSED)):
        what = f"{GGUF} was not made from the present models/fused"
        yield Problem(what, "publish.gguf", "run `make export`")


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
