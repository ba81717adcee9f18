"""What keeps a model from being published, looked for before any request."""

from collections.abc import Iterator
from pathlib import Path

from blogtune.exporting.weights import FUSED, weights_of
from blogtune.project import lock
from blogtune.publishing.bundle import Entry, dvc_name, folders
from blogtune.publishing.facts import GGUF, Facts, git
from blogtune.publishing.receipt import RECEIPT

SHOWN = 3


def obstacles(
    facts: Facts, entries: dict[Path, list[Entry]], *, even_if_worse: bool
) -> Iterator[str]:
    """Each reason against publishing, with its remedy, in one line."""
    yield from of_the_run(facts, even_if_worse=even_if_worse)
    yield from _changes_in_git()
    yield from _changes_in_dvc()
    yield from _other_weights(facts, entries)


def of_the_run(facts: Facts, *, even_if_worse: bool = False) -> Iterator[str]:
    """Those that lie in the settings and in what was measured."""
    params = facts.settings.publish
    if params.repository is None:
        yield "publish.repository: null; set it to <owner>/<name>"
    yield from _no_parity(facts)
    if facts.outcome == "worse" and not even_if_worse:
        yield (
            f"{facts.verdict}; `make publish EVEN_IF_WORSE=1` publishes it all the same, "
            "the card says so"
        )
    if not facts.outcome:
        yield "metrics/comparison.json: no verdict on the fused model; run `make repro`"
    yield from _licenses(facts)
    if params.gguf:
        yield from _no_gguf()


def _changes_in_git() -> Iterator[str]:
    """The receipt may have changed: it is committed after it was written."""
    status = git("status", "--porcelain", "--", ".", f":(exclude){RECEIPT}").splitlines()
    if status:
        yield f"git: not committed: {_some([line[3:] for line in status])}; commit or remove it"


def _changes_in_dvc() -> Iterator[str]:
    changed = lock.changes()
    if changed:
        yield (
            f"dvc status: not what dvc.lock describes: {_some(changed)}; "
            "run `make repro`, look at the result and commit it"
        )


def _other_weights(facts: Facts, entries: dict[Path, list[Entry]]) -> Iterator[str]:
    """The very bytes that would be sent: dvc trusts a file's time and size."""
    outs = lock.outputs()
    for folder, inside in folders(facts.settings.publish).items():
        if not entries.get(folder):
            yield f"{folder}: not there; run `make repro`"
        elif dvc_name(entries[folder], inside) != outs.get(str(folder)):
            yield (
                f"{folder}: not the files that dvc.lock names, so the metrics are not theirs; "
                "run `make repro`"
            )


def _no_parity(facts: Facts) -> Iterator[str]:
    limits, fusion = facts.settings.fuse, facts.fusion
    divergence = fusion["mean_kl_micronats"] / 1e6
    # Put so that a figure which is no number does not pass.
    near = divergence <= limits.max_kl and fusion["top1_agreement"] >= limits.min_top1_agreement
    if not near:
        yield (
            f"metrics/fusion.json: not the adapted model: mean KL {divergence:.1e} "
            f"(fuse.max_kl {limits.max_kl:.0e}), top-1 agreement {fusion['top1_agreement']:.4f} "
            f"(fuse.min_top1_agreement {limits.min_top1_agreement}); it must not ship"
        )


def _licenses(facts: Facts) -> Iterator[str]:
    params, stated = facts.settings.publish, facts.base.get("license")
    if facts.license is None:
        yield (
            f"models/base/source.json: {facts.base.get('source')} states no license, and it is "
            "the result's; set publish.license"
        )
    elif params.license is not None and stated is not None and params.license != stated:
        yield (
            f"publish.license: {params.license}, but the base states {stated}, which is the "
            "result's; set it to null"
        )
    yield from _data_license(facts)


def _data_license(facts: Facts) -> Iterator[str]:
    said, stated = facts.settings.publish.data_license, facts.fetched.get("license")
    if facts.data_license is None:
        where = f"{facts.settings.data.path} has no README.md with a section License"
        if facts.fetched:
            where = f"the hub states none of {facts.fetched['source']}"
        yield f"publish.data_license: null, and {where}; set it"
    elif stated is not None and said not in (None, stated):
        yield (
            f"publish.data_license: {said}, but {facts.fetched['source']} states {stated}; "
            "set it to null"
        )


def _no_gguf() -> Iterator[str]:
    if not GGUF.is_file():
        yield f"publish.gguf: {GGUF} is not there; run `make export`"
    elif weights_of(GGUF.parent) != lock.outputs().get(str(FUSED)):
        yield f"publish.gguf: {GGUF} is not of these models/fused; run `make export`"


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
