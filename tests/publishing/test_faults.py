"""A fault at every request of a publication in turn, with the real client.

Each run ends published or with one line that says what to do; the hub never holds a card without
its weights; and once the fault is over, a second run completes and sends nothing twice.
"""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import _http

from blogtune.common.errors import UserError
from blogtune.publishing import upload
from blogtune.publishing.bundle import Entry, made_entry
from blogtune.publishing.receipt import Receipt
from blogtune.publishing.upload import Target, publish
from tests.publishing.hub import PART, TOKEN, Fault, Hub, Request
from tests.publishing.project import REPOSITORY

CARD = b"---\nlicense: mit\n---\n\n# blog\n"
WEIGHTS = {"model.safetensors": bytes(range(256)) * 40, "tokenizer.json": b"{}" * 99}
FILES = {**WEIGHTS, "config.json": b'{"model_type": "llama"}'}
# The client uploads in a way that its own library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REFUSALS = [401, 403, 409]
PASSING = [429, 500, "cut", "lost"]


def entries(**changes: bytes) -> list[Entry]:
    """A card, two large files (one comes in parts) and a small one; an underscore is a dot."""
    files = {"README.md": CARD, **FILES}
    files |= {name.replace("__", "."): content for name, content in changes.items()}
    return [made_entry(path, content) for path, content in files.items()]


@pytest.fixture(autouse=True)
def without_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback hub has no Xet storage behind it; and its bars are not for the test's output."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's waiting, noted and not done."""
    noted: list[float] = []
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=noted.append))
    return noted


def run(
    hub: Hub, previous: Receipt | None = None, *, private: bool = True, **changes: bytes
) -> tuple[Receipt, int]:
    target = Target(HfApi(endpoint=hub.address, token=TOKEN), REPOSITORY, private, previous)
    return publish(target, entries(**changes), source_commit="5f0c", dvc_lock="9f0e")


def requests_of(hub: Hub) -> list[Request]:
    hub.reset()
    run(hub)
    return list(hub.state.requests)


def check_whole(hub: Hub) -> int:
    """Every commit with a card has all the weights, byte for byte; return how many have a card."""
    cards = 0
    for repository in hub.state.repositories.values():
        for _, files in repository.commits:
            if "README.md" in files:
                cards += 1
                assert {name: files[name] for name in FILES} == FILES
    return cards


def test_a_clean_run_makes_every_kind_of_request(hub: Hub) -> None:
    asked = [(method, path.split(REPOSITORY)[-1]) for method, path, _ in requests_of(hub)]
    assert {"/api/repos/create", "/api/validate-yaml", "/preupload/main"} <= {p for _, p in asked}
    parts = -(-len(WEIGHTS["model.safetensors"]) // PART)
    assert parts == 3
    assert len(hub.sent()) == parts + 1
    assert ("POST", ".git/info/lfs/objects/batch") in asked
    assert asked.count(("POST", ".git/info/lfs/verify")) == 2
    assert ("POST", "/commit/main") in asked


@pytest.mark.slow
@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("kind", [*REFUSALS, *PASSING], ids=str)
def test_a_fault_at_any_request_ends_published_or_with_one_line(
    hub: Hub, kind: int | str, lasting: bool
) -> None:
    every = requests_of(hub)
    assert len(every) >= 15
    ended = {"published": 0, "failed": 0}
    for request in every:
        hub.reset(Fault(request, kind, lasting))
        try:
            run(hub)
            assert check_whole(hub) == 1
            ended["published"] += 1
        except UserError as error:
            said = str(error)
            assert said.startswith(f"{REPOSITORY}: ")
            assert "\n" not in said
            assert TOKEN not in said
            assert "5ecre7" not in said
            assert "`" in said, said  # what to do about it
            check_whole(hub)
            ended["failed"] += 1
        hub.fault = None
        arrived = set(hub.state.blobs)
        before = len(hub.sent())
        receipt, _ = run(hub)
        assert receipt.commit == hub.state.repositories[REPOSITORY].head
        assert check_whole(hub) == 1
        assert not [path for path in hub.sent()[before:] if path.split("/")[2] in arrived]
    assert sum(ended.values()) == len(every)
    assert ended["failed"] > 0
    # What may pass is tried again by the client where that can do no harm.
    assert (ended["published"] > 0) == (kind in PASSING and not lasting)
    print(kind, "lasting" if lasting else "once", ended)


def test_a_repository_that_the_token_may_not_see_is_not_made(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hub with https, which this one is not, the client takes 401 for "not found"."""
    monkeypatch.setattr(_http, "REPO_API_REGEX", re.compile("/api/models/"))
    hub.reset(Fault(requests_of(hub)[0], 401))
    with pytest.raises(UserError, match=r"\(401\)"):
        run(hub)
    assert len(hub.state.requests) == 1


def commit_request(hub: Hub) -> Request:
    return next(each for each in requests_of(hub) if "/commit/" in each[1])


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub: Hub) -> None:
    hub.reset(Fault(commit_request(hub), "lost"))
    with pytest.raises(UserError, match="run `make publish` again"):
        run(hub)
    hub.fault = None
    receipt, changes = run(hub)
    assert changes == 0
    assert len(hub.state.repositories[REPOSITORY].commits) == 2
    assert receipt.commit == hub.state.repositories[REPOSITORY].head


def test_the_client_waits_as_long_as_the_hub_asks(hub: Hub, waits: list[float]) -> None:
    batch = next(each for each in requests_of(hub) if each[1].endswith("batch"))
    hub.reset(Fault(batch, 429))
    run(hub)
    assert waits == [8.0]  # Retry-After, and a second for rounding


def test_who_must_wait_before_trying_again_is_told_how_long(hub: Hub) -> None:
    hub.reset(Fault(commit_request(hub), 429))
    with pytest.raises(UserError, match=r"too many requests \(429\); wait 7 s, then run"):
        run(hub)


def test_what_did_not_change_is_not_sent_and_makes_no_commit(hub: Hub) -> None:
    first, _ = run(hub)
    asked, sent = len(hub.state.requests), len(hub.sent())
    second, changes = run(hub, first)
    assert (changes, second) == (0, first)
    assert len(hub.sent()) == sent
    assert [path.split(REPOSITORY)[-1] for _, path, _ in hub.state.requests[asked:]] == [
        "",
        f"/paths-info/{first.commit}",
    ]


def test_a_new_run_replaces_what_changed_and_takes_away_what_is_gone(hub: Hub) -> None:
    first, _ = run(hub, model__gguf=b"GGUF")
    hub.state.repositories[REPOSITORY].files["picture.png"] = b"someone's"
    second, changes = run(hub, first, README__md=CARD + b"better\n", config__json=b"{}")
    assert changes == 3
    files = hub.state.repositories[REPOSITORY].files
    assert (files["README.md"], files["config.json"]) == (CARD + b"better\n", b"{}")
    assert "model.gguf" not in files
    assert "model.gguf" not in second.files
    assert files["picture.png"] == b"someone's"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"], ids=["large", "small"])
def test_other_content_of_the_same_size_is_sent(hub: Hub, name: str) -> None:
    first, _ = run(hub)
    other = FILES[name][::-1]
    _, changes = run(hub, first, **{name.replace(".", "__"): other})
    assert changes == 1
    assert hub.state.repositories[REPOSITORY].files[name] == other


def test_what_someone_does_there_meanwhile_is_not_lost(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = run(hub)
    repository = hub.state.repositories[REPOSITORY]
    check = upload._check_card

    def meanwhile(*given: Any) -> None:
        check(*given)
        repository.add({**repository.files, "config.json": b"theirs"})

    monkeypatch.setattr(upload, "_check_card", meanwhile)
    with pytest.raises(UserError, match="run `make publish` again"):
        run(hub, first, config__json=b"ours")
    assert repository.files["config.json"] == b"theirs"


def test_a_card_that_someone_edited_on_the_hub_is_left_alone(hub: Hub) -> None:
    first, _ = run(hub)
    repository = hub.state.repositories[REPOSITORY]
    repository.add({**repository.files, "README.md": b"my words"})
    with pytest.raises(UserError, match=r"its README.md is not the one last published from here"):
        run(hub, first, config__json=b"{}")
    assert repository.files["README.md"] == b"my words"
    assert len(repository.commits) == 3


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_is_not_more_public_than_wanted_nor_less(hub: Hub, private: bool) -> None:
    run(hub, private=not private)
    asked = len(hub.state.requests)
    with pytest.raises(UserError, match=r"but publish\.private asks for"):
        run(hub, private=private, config__json=b"{}")
    assert len(hub.state.requests) == asked + 1


def test_a_file_that_did_not_arrive_is_noticed(hub: Hub) -> None:
    hub.state.ignored.add("tokenizer.json")
    with pytest.raises(UserError, match=r"tokenizer.json did not arrive as it was sent"):
        run(hub)


def test_what_the_hub_says_of_the_metadata_is_passed_on(hub: Hub) -> None:
    with pytest.raises(UserError, match='"license" is missing'):
        run(hub, README__md=b"---\ntags: []\n---\n")
    assert hub.sent() == []
