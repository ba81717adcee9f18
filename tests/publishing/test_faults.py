"""A fault at every request of a publication in turn, with the real client.

Each run ends published or with one line that says what to do; the hub never holds a card without
its weights; and once the fault is over, a second run completes and sends nothing twice.
"""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import _http

from blogtune.errors import UserError
from blogtune.publishing.bundle import Entry, made_entry
from blogtune.publishing.receipt import Receipt
from blogtune.publishing.upload import Target, publish
from tests.publishing.hub import PART, TOKEN, Fault, Hub, Request, serve
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


@pytest.fixture(scope="module")
def faulty() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


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


def test_a_clean_run_makes_every_kind_of_request(faulty: Hub) -> None:
    asked = [(method, path.split(REPOSITORY)[-1]) for method, path, _ in requests_of(faulty)]
    assert {"/api/repos/create", "/api/validate-yaml", "/preupload/main"} <= {p for _, p in asked}
    parts = -(-len(WEIGHTS["model.safetensors"]) // PART)
    assert parts == 3
    assert len(faulty.sent()) == parts + 1
    assert ("POST", ".git/info/lfs/objects/batch") in asked
    assert asked.count(("POST", ".git/info/lfs/verify")) == 2
    assert ("POST", "/commit/main") in asked


@pytest.mark.slow
@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("kind", [*REFUSALS, *PASSING], ids=str)
def test_a_fault_at_any_request_ends_published_or_with_one_line(
    faulty: Hub, kind: int | str, lasting: bool
) -> None:
    every = requests_of(faulty)
    assert len(every) >= 15
    ended = {"published": 0, "failed": 0}
    for request in every:
        faulty.reset(Fault(request, kind, lasting))
        try:
            run(faulty)
            assert check_whole(faulty) == 1
            ended["published"] += 1
        except UserError as error:
            said = str(error)
            assert said.startswith(f"{REPOSITORY}: ")
            assert "\n" not in said
            assert TOKEN not in said
            assert "5ecre7" not in said
            assert "`" in said, said  # what to do about it
            check_whole(faulty)
            ended["failed"] += 1
        faulty.fault = None
        arrived = set(faulty.state.blobs)
        before = len(faulty.sent())
        receipt, _ = run(faulty)
        assert receipt.commit == faulty.state.repositories[REPOSITORY].head
        assert check_whole(faulty) == 1
        assert not [path for path in faulty.sent()[before:] if path.split("/")[2] in arrived]
    assert sum(ended.values()) == len(every)
    assert ended["failed"] > 0
    # What may pass is tried again by the client where that can do no harm.
    assert (ended["published"] > 0) == (kind in PASSING and not lasting)
    print(kind, "lasting" if lasting else "once", ended)


def commit_request(hub: Hub) -> Request:
    return next(each for each in requests_of(hub) if "/commit/" in each[1])


def test_a_commit_whose_answer_was_lost_is_not_made_twice(faulty: Hub) -> None:
    faulty.reset(Fault(commit_request(faulty), "lost"))
    with pytest.raises(UserError, match="run `make publish` again"):
        run(faulty)
    faulty.fault = None
    receipt, changes = run(faulty)
    assert changes == 0
    assert len(faulty.state.repositories[REPOSITORY].commits) == 2
    assert receipt.commit == faulty.state.repositories[REPOSITORY].head


def test_the_client_waits_as_long_as_the_hub_asks(faulty: Hub, waits: list[float]) -> None:
    batch = next(each for each in requests_of(faulty) if each[1].endswith("batch"))
    faulty.reset(Fault(batch, 429))
    run(faulty)
    assert waits == [8.0]  # Retry-After, and a second for rounding


def test_who_must_wait_before_trying_again_is_told_how_long(faulty: Hub) -> None:
    faulty.reset(Fault(commit_request(faulty), 429))
    with pytest.raises(UserError, match=r"too many requests \(429\); wait 7 s, then run"):
        run(faulty)


def test_what_did_not_change_is_not_sent_and_makes_no_commit(faulty: Hub) -> None:
    faulty.reset()
    first, _ = run(faulty)
    asked, sent = len(faulty.state.requests), len(faulty.sent())
    second, changes = run(faulty, first)
    assert (changes, second) == (0, first)
    assert len(faulty.sent()) == sent
    assert [path.split(REPOSITORY)[-1] for _, path, _ in faulty.state.requests[asked:]] == [
        "",
        f"/paths-info/{first.commit}",
    ]


def test_a_new_run_replaces_what_changed_and_takes_away_what_is_gone(faulty: Hub) -> None:
    faulty.reset()
    first, _ = run(faulty, model__gguf=b"GGUF")
    faulty.state.repositories[REPOSITORY].files["picture.png"] = b"someone's"
    second, changes = run(faulty, first, README__md=CARD + b"better\n", config__json=b"{}")
    assert changes == 3
    files = faulty.state.repositories[REPOSITORY].files
    assert (files["README.md"], files["config.json"]) == (CARD + b"better\n", b"{}")
    assert "model.gguf" not in files
    assert "model.gguf" not in second.files
    assert files["picture.png"] == b"someone's"


def test_a_card_that_someone_edited_on_the_hub_is_left_alone(faulty: Hub) -> None:
    faulty.reset()
    first, _ = run(faulty)
    repository = faulty.state.repositories[REPOSITORY]
    repository.add({**repository.files, "README.md": b"my words"})
    with pytest.raises(UserError, match=r"its README.md is not the one last published from here"):
        run(faulty, first, config__json=b"{}")
    assert repository.files["README.md"] == b"my words"
    assert len(repository.commits) == 3


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_is_not_more_public_than_wanted_nor_less(faulty: Hub, private: bool) -> None:
    faulty.reset()
    run(faulty, private=not private)
    asked = len(faulty.state.requests)
    with pytest.raises(UserError, match=r"publish\.private wants it"):
        run(faulty, private=private, config__json=b"{}")
    assert len(faulty.state.requests) == asked + 1


def test_a_file_that_did_not_arrive_is_noticed(faulty: Hub) -> None:
    faulty.reset()
    faulty.state.ignored.add("tokenizer.json")
    with pytest.raises(UserError, match=r"tokenizer.json did not arrive as it was sent"):
        run(faulty)


def test_what_the_hub_says_of_the_metadata_is_passed_on(faulty: Hub) -> None:
    faulty.reset()
    with pytest.raises(UserError, match='"license" is missing'):
        run(faulty, README__md=b"---\ntags: []\n---\n")
    assert faulty.sent() == []
