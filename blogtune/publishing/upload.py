"""Brings the files into a repository of the hub: everything, card and weights, in one commit.

The hub takes a commit as a whole or not at all, so a card never stands there without its weights.
What has arrived of a broken upload is not sent again, and what is there already makes no commit.
The commit names the one it follows, so that nothing done there meanwhile is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile

from blogtune.common.errors import UserError
from blogtune.common.output import without_password
from blogtune.publishing.bundle import CARD, Entry
from blogtune.publishing.hub_errors import hub_errors
from blogtune.publishing.receipt import PublishedFile, Receipt


@dataclass(frozen=True)
class Target:
    """A repository of the hub, and what is known to have been put there."""

    api: HfApi
    repository: str
    private: bool
    previous: Receipt | None

    @property
    def url(self) -> str:
        return without_password(f"{self.api.endpoint}/{self.repository}")


def publish(
    target: Target, entries: Sequence[Entry], *, source_commit: str, dvc_lock: str
) -> tuple[Receipt, int]:
    """Make the repository hold these files; return the receipt and how many had changed.

    Raises UserError for a repository that is not ours to overwrite or not as private as it should
    be, for what the hub refuses, and when the hub then lists other content than was sent.
    """
    with hub_errors(target.api, f"{target.repository}: looking it up"):
        head = _open(target)
        before = _listed(target, entries, head)
    _check_card(target, entries, before)
    changed = [entry for entry in entries if not _same(entry, before.get(entry.path))]
    gone = sorted(before.keys() - {entry.path for entry in entries})
    commit = head
    if changed or gone:
        with hub_errors(target.api, f"{target.repository}: uploading"):
            commit = _commit(target, changed, gone, head)
        with hub_errors(target.api, f"{target.repository}: looking at what arrived"):
            after = _listed(target, entries, commit)
        for entry in entries:
            if not _same(entry, after.get(entry.path)):
                raise UserError(
                    f"{entry.path} did not arrive as it was sent",
                    where=target.repository,
                    remedy="run `make publish` again",
                )
    receipt = Receipt(
        repository=target.repository,
        url=target.url,
        commit=commit,
        commit_url=f"{target.url}/tree/{commit}",
        source_commit=source_commit,
        dvc_lock=dvc_lock,
        card=next(entry.git_name() for entry in entries if entry.path == CARD),
        files={e.path: PublishedFile(size=e.size, sha256=e.sha256) for e in entries},
    )
    return receipt, len(changed) + len(gone)


def _open(target: Target) -> str:
    """The commit that the repository is at; a new one where there is none."""
    try:
        info = target.api.model_info(target.repository)
    except RepositoryNotFoundError as error:
        # The hub also says so of a repository that the token may not see.
        if error.response.status_code != 404:
            raise
        target.api.create_repo(target.repository, private=target.private, exist_ok=True)
        info = target.api.model_info(target.repository)
    if bool(info.private) != target.private:
        is_, wanted = ("private", "public") if info.private else ("public", "private")
        raise UserError(
            f"is {is_}, but publish.private asks for {wanted}",
            where=target.repository,
            remedy=f"change one of them ({target.url}/settings)",
        )
    if info.sha is None:
        raise UserError("the hub names no commit", where=target.repository)
    return info.sha


def _listed(target: Target, entries: Sequence[Entry], commit: str) -> dict[str, RepoFile]:
    """What the repository has, at a commit, of these files and of those published earlier."""
    paths = {entry.path for entry in entries}
    if target.previous:
        paths |= target.previous.files.keys()
    found = target.api.get_paths_info(target.repository, sorted(paths), revision=commit)
    return {file.path: file for file in found if isinstance(file, RepoFile)}


def _same(entry: Entry, there: RepoFile | None) -> bool:
    if there is None or there.size != entry.size:
        return False
    if there.lfs:
        return there.lfs.sha256 == entry.sha256
    return there.blob_id == entry.git_name()


def _check_card(target: Target, entries: Sequence[Entry], before: dict[str, RepoFile]) -> None:
    """A card that someone else wrote, or edited on the hub, is not overwritten."""
    there = before.get(CARD)
    ours = {entry.git_name() for entry in entries if entry.path == CARD}
    if target.previous:
        ours.add(target.previous.card)
    if there is not None and there.blob_id not in ours:
        raise UserError(
            f"its {CARD} is not the one last published from here",
            where=target.repository,
            remedy="save what you need of it and delete it there, or name another repository",
        )


def _commit(target: Target, changed: list[Entry], gone: list[str], head: str) -> str:
    # As text: the client opens a Path as one, but declares str.
    adds = [
        CommitOperationAdd(e.path, e.content if isinstance(e.content, bytes) else str(e.content))
        for e in changed
    ]
    deletes = [CommitOperationDelete(path) for path in gone]
    return target.api.create_commit(
        target.repository,
        [*adds, *deletes],
        commit_message="Publish the model with its card",
        parent_commit=head,
    ).oid
