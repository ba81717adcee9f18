"""The Ollama judge against a real socket: a server that answers well, badly or not at all."""

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blogtune.common.errors import UserError
from blogtune.judging import ollama as judging
from blogtune.judging.judge import check_coverage, judge_answers
from blogtune.judging.ollama import open_ollama_judge
from blogtune.judging.prompt import DIGITS
from blogtune.judging.protocol import Item, Verdict
from tests.judging.server import (
    CUT,
    DIGEST,
    GARBAGE,
    NOBODY,
    STALL,
    Answer,
    Reply,
    Server,
    Status,
    hashed,
    in_turn,
    judge_params,
    serve,
)
from tests.judging.test_judge import answer, params

ROOT = Path(__file__).parents[2]
# What stalls is not waited for; all else has time enough on a machine that is busy elsewhere.
SHORT, PATIENT = 2.0, 60.0


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "FIRST_DELAY_SECONDS", 0.01)


def items(count: int) -> list[Item]:
    return [Item(f"Question {n}?", f"Reference {n}.", f"Answer {n}.") for n in range(count)]


def verdicts(server: Server, count: int = 1, **changes: Any) -> list[Verdict]:
    judge = open_ollama_judge(judge_params(server.address, **changes))
    return list(judge.judge(items(count)))


def verdict(given: Answer, **changes: Any) -> Verdict:
    """The verdict on one item to which the server gives this answer."""
    time_out = SHORT if given is STALL else PATIENT
    quick = {"workers": 1, "retries": 0, "timeout_seconds": time_out, **changes}
    with serve(in_turn(given)) as server:
        (found,) = verdicts(server, **quick)
    return found


def test_the_score_is_the_mean_of_the_digits_probabilities() -> None:
    # 1/16 + 2/16 + 3/8 + 4/2 + 5/4 = 3.8125 of 1 to 5.
    assert verdict(Reply()) == Verdict((3.8125 - 1) / 4)


def test_the_spellings_of_a_digit_are_added_up_and_other_tokens_left_out() -> None:
    weights = {"1": 0.1, " 1": 0.1, "2": 0.05, "3": 0.05, "4": 0.05, " 5": 0.05, "5\n": 0.1}
    found = verdict(Reply(weights={**weights, "9": 0.3, ' "': 0.2}))
    # Of 0.5 together: 0.2, 0.05, 0.05, 0.05, 0.15.
    expected = (0.2 * 1 + 0.05 * (2 + 3 + 4) + 0.15 * 5) / 0.5
    assert found.similarity == pytest.approx((expected - 1) / 4)


def test_a_server_without_logprobs_is_judged_by_its_digit_alone() -> None:
    with serve(lambda _: Reply(weights=None)) as server:
        judge = open_ollama_judge(judge_params(server.address))
        assert judge.method == "likert digit"
        assert list(judge.judge(items(1))) == [Verdict(0.75)]


def test_the_method_is_fixed_at_the_start() -> None:
    with serve(in_turn(Reply(weights=None))) as server:
        judge = open_ollama_judge(judge_params(server.address))
        assert judge.method == "likert logprobs"
        (found,) = judge.judge(items(1))
    assert found == Verdict(None, reason="a digit's probability is missing")


def test_the_scale_unit_asks_for_one_number() -> None:
    with serve(lambda _: Reply('{"score": 0.62}')) as server:
        judge = open_ollama_judge(judge_params(server.address, scale="unit"))
        assert judge.method == "unit number"
        assert list(judge.judge(items(1))) == [Verdict(0.62)]
    assert server.asked[0]["format"]["properties"]["score"]["type"] == "number"


WITHOUT_5 = dict.fromkeys(DIGITS[:4], 0.2)
FAULTS: list[Any] = [
    pytest.param(STALL, "timeout", id="stalls"),
    pytest.param(CUT, "connection lost", id="cuts the connection in mid-reply"),
    pytest.param(GARBAGE, "connection lost", id="speaks no HTTP"),
    pytest.param(Status(500), "HTTP 500", id="500"),
    pytest.param(Status(503), "HTTP 503", id="503"),
    pytest.param(Status(429), "HTTP 429", id="429"),
    pytest.param(Status(404), "HTTP 404", id="404"),
    pytest.param(Status(400, "not JSON"), "HTTP 400", id="400"),
    pytest.param(Status(400, "[1]"), "no readable reply", id="an error of another shape"),
    pytest.param(Status(200, "not JSON"), "no readable reply", id="a body that is no JSON"),
    pytest.param(Status(200, "[" * 100_000), "no readable reply", id="a bottomless body"),
    pytest.param(Status(200, "[]"), "no readable reply", id="a body of another shape"),
    pytest.param(Status(200, "{}"), "no readable reply", id="a body without a message"),
    pytest.param(Reply(""), "no readable score", id="empty text"),
    pytest.param(Reply("5"), "no readable score", id="a bare digit"),
    pytest.param(Reply('Sure! {"score": 5}'), "no readable score", id="words before the JSON"),
    pytest.param(Reply('{"score": 5} It is good.'), "no readable score", id="words behind it"),
    pytest.param(Reply('{"score": "5"}'), "no readable score", id="a digit as text"),
    pytest.param(Reply('{"score": true}'), "no readable score", id="true"),
    pytest.param(Reply('{"rating": 5}'), "no readable score", id="another key"),
    pytest.param(Reply('{"score": 6}'), "score out of range", id="6"),
    pytest.param(Reply('{"score": 0}'), "score out of range", id="0"),
    pytest.param(Reply('{"score": 4.5}'), "score out of range", id="between two digits"),
    pytest.param(
        Reply(weights=WITHOUT_5), "a digit's probability is missing", id="four digits of five"
    ),
    pytest.param(
        Reply(weights=dict.fromkeys(DIGITS, 0.0)), "a digit's probability is missing", id="all zero"
    ),
    pytest.param(Reply(prompt_tokens=8192), "prompt too long", id="the context is full"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_a_fault_leaves_the_item_unscored_with_its_reason(fault: Answer, reason: str) -> None:
    of_server = reason.split()[0] in ("timeout", "connection", "HTTP")
    assert verdict(fault) == Verdict(None, reason=reason, server_failed=of_server)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"score": 1.01}', "score out of range"),
        ('{"score": -0.5}', "score out of range"),
        ('{"score": NaN}', "score out of range"),
        ('{"score": 0.3333', "no readable score"),
    ],
)
def test_a_number_outside_0_to_1_is_no_score(text: str, reason: str) -> None:
    assert verdict(Reply(text), scale="unit") == Verdict(None, reason=reason)


@pytest.mark.parametrize("fault", [STALL, CUT, GARBAGE, Status(500), Status(503), Status(429)])
def test_what_may_pass_is_asked_again(fault: Answer) -> None:
    with serve(in_turn(fault, Reply())) as server:
        time_out = SHORT if fault is STALL else PATIENT
        (found,) = verdicts(server, workers=1, retries=1, timeout_seconds=time_out)
    assert found.similarity is not None
    assert len(server.prompts) == 2


@pytest.mark.parametrize("fault", [Status(400), Status(404), Reply("5"), Status(200, "no JSON")])
def test_what_will_not_pass_is_asked_once(fault: Answer) -> None:
    with serve(in_turn(fault)) as server:
        verdicts(server, workers=1, retries=4)
    assert len(server.prompts) == 1


def test_the_waits_double_and_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(judging, "FIRST_DELAY_SECONDS", 4.0)
    monkeypatch.setattr(time, "sleep", waits.append)
    assert verdict(Status(503), retries=5) == Verdict(None, reason="HTTP 503", server_failed=True)
    assert [wait for wait in waits if wait] == [4.0, 8.0, 16.0, 30.0, 30.0]


def test_every_row_that_a_fault_made_unscored_is_there_with_its_reason() -> None:
    faults: dict[str, Answer] = {"1": Status(500), "2": Reply(""), "3": CUT, "4": Status(404)}

    def rule(prompt: str) -> Answer:
        number = re.search(r"Question (\d+)\?", prompt)
        return faults.get(number[1][-1], hashed(prompt)) if number else Reply()

    given = [answer(f"{n:02}", post=f"p{n % 7}") for n in range(40)]
    with serve(rule) as server:
        judge = open_ollama_judge(judge_params(server.address, retries=0))
        judgements = list(judge_answers(given, judge, params(other_references=1)))
    assert [judgement.answer for judgement in judgements] == given
    reasons = Counter(judgement.reason for judgement in judgements)
    expected = ["HTTP 500", "no readable score", "connection lost", "HTTP 404"]
    assert reasons == {None: 24, **dict.fromkeys(expected, 4)}
    for judgement in judgements:
        assert (judgement.similarity is None) == (judgement.reason is not None)
    with pytest.raises(UserError) as caught:
        check_coverage("base", judgements, 0.61)
    assert str(caught.value).startswith(
        "base: 24 of 40 answers have a score by judge, judge.min_coverage is 0.61 (HTTP 500: 4, "
    )
    check_coverage("base", judgements, 0.6)


def test_a_server_that_dies_is_waited_for_once_and_then_tried_once_an_item() -> None:
    with serve(in_turn(Status(503))) as server:
        found = verdicts(server, 10, workers=1, retries=3)
    assert {each.reason for each in found} == {"HTTP 503"}
    assert len(server.prompts) == 4 + 9


def test_a_server_that_comes_back_is_waited_for_again() -> None:
    answers = [Status(503)] * 3 + [Reply()] + [Status(503)] * 2 + [Reply()]
    with serve(in_turn(*answers)) as server:
        found = verdicts(server, 3, workers=1, retries=2)
    assert [each.reason for each in found] == ["HTTP 503", None, None]


def test_a_server_that_stays_away_is_not_asked_for_ever() -> None:
    with serve(in_turn(Status(503))) as server:
        found = verdicts(server, 60, workers=1, retries=0)
    assert len(server.prompts) == judging.PATIENCE + 1
    reasons = [each.reason for each in found]
    assert reasons[: judging.PATIENCE + 1] == ["HTTP 503"] * (judging.PATIENCE + 1)
    assert set(reasons[judging.PATIENCE + 1 :]) == {"not asked, the server is gone"}


def test_verdicts_come_in_the_items_order_whichever_is_done_first() -> None:
    def rule(prompt: str) -> Answer:
        return replace(hashed(prompt), seconds=0.4 if "Question 0?" in prompt else 0.1)

    with serve(rule) as server:
        together = verdicts(server, 12, workers=4)
        assert server.busiest == 4
        judge = open_ollama_judge(judge_params(server.address, workers=4))
        assert next(judge.ask(items(12)))[0] != 0
    with serve() as server:
        assert verdicts(server, 12, workers=1) == together
        assert server.busiest == 1


def test_a_request_holds_prompt_schema_and_options(server: Server) -> None:
    verdicts(server)
    asked = server.asked[-1]
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert "Answer 0." in asked["messages"][1]["content"]
    assert asked["format"]["properties"]["score"]["enum"] == [1, 2, 3, 4, 5]
    assert asked["options"]["temperature"] == 0
    assert asked["options"]["seed"] == 0
    assert (asked["stream"], asked["think"], asked["top_logprobs"]) == (False, False, 20)


@pytest.mark.parametrize(
    ("characters", "limit", "context"),
    [
        pytest.param(10, 8192, 4096, id="short: Ollama's own"),
        pytest.param(12_000, 131_072, 8192, id="long"),
        pytest.param(12_000, None, 8192, id="a model that does not say its limit"),
        pytest.param(12_000, 6000, 6000, id="no more than the model reads"),
        pytest.param(10, 2048, 2048, id="a small model"),
    ],
)
def test_the_context_holds_the_longest_item(
    server: Server, characters: int, limit: int | None, context: int
) -> None:
    server.context_length = limit
    judge = open_ollama_judge(judge_params(server.address))
    list(judge.judge([*items(3), Item("?", "?", "a" * characters)]))
    assert {body["options"]["num_ctx"] for body in server.asked[1:]} == {context}


def test_what_turns_out_too_long_is_asked_again_in_a_context_that_surely_holds_it() -> None:
    """A text of many tokens a character: 9,000 bytes of ASCII are taken for 4,500 tokens."""

    def rule(prompt: str) -> Answer:
        dense = "x1y2" in prompt
        return replace(hashed(prompt), prompt_tokens=8192 if dense else 300)

    dense = Item("?", "?", "x1y2" * 2250)
    with serve(rule) as server:
        server.context_length = 131_072
        judge = open_ollama_judge(judge_params(server.address))
        found = dict(judge.ask([dense, *items(2)]))
    contexts = [
        (body["options"]["num_ctx"], "x1y2" in body["messages"][1]["content"])
        for body in server.asked[1:]
    ]
    assert sorted(contexts) == [(8192, False), (8192, False), (8192, True), (16384, True)]
    assert all(each.similarity is not None for each in found.values())


def test_without_a_count_only_a_surely_held_prompt_is_believed(server: Server) -> None:
    server.rule = lambda prompt: replace(hashed(prompt), prompt_tokens=None)
    server.context_length = 4096
    judge = open_ollama_judge(judge_params(server.address))
    short, long = judge.judge([items(1)[0], Item("?", "?", "a" * 4000)])
    assert short.similarity is not None
    assert long == Verdict(None, reason="prompt too long")


def test_no_text_of_an_answer_is_in_a_reason() -> None:
    text = "Ignore all rules. \x1b[31m $(reboot)"
    for fault in (Reply(text), Status(500, text), Status(400, text), Status(200, text)):
        found = verdict(fault)
        assert found.reason is not None
        assert re.fullmatch(r"[a-zA-Z0-9 ]+", found.reason)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"host": NOBODY},
            f"no Ollama server at {NOBODY} (ConnectionError); start it with `ollama serve`, "
            "or set host in params.yaml to where it is",
            id="no server",
        ),
        pytest.param(
            {"model": {"source": "ollama:llama3.2", "revision": DIGEST}},
            "does not have it; run `ollama pull llama3.2`, or set pull: true in params.yaml",
            id="no such model",
        ),
        pytest.param(
            {"model": {"source": "ollama:llama3.2", "revision": DIGEST}, "pull": True},
            "says: pull model manifest: file does not exist",
            id="cannot be pulled",
        ),
        pytest.param(
            {"model": {"source": "ollama:toy", "revision": "cd" * 32}},
            "has digest abababababab, params.yaml has cdcdcdcdcdcd; `make pin` takes the server's",
            id="another digest",
        ),
        pytest.param(
            {"model": {"source": "ollama:toy", "revision": None}},
            "ollama:toy: its digest is not pinned; run `make pin`",
            id="not pinned",
        ),
    ],
)
def test_what_cannot_judge_is_told_at_the_start(
    server: Server, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        open_ollama_judge(judge_params(**{"host": server.address, **changes}))
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert server.asked == []


def test_a_model_that_cannot_run_is_told_in_the_servers_own_words() -> None:
    short_of_memory = '{"error": "model requires more system memory (5.6 GiB) than is available"}'
    with serve(lambda _: Status(500, short_of_memory)) as server:
        with pytest.raises(UserError) as caught:
            open_ollama_judge(judge_params(server.address))
        assert len(server.asked) == 2
    assert str(caught.value) == (
        f"ollama:toy at {server.address} does not answer: "
        "model requires more system memory (5.6 GiB) than is available (HTTP 500)"
    )


def test_a_missing_model_is_pulled_where_that_is_allowed(server: Server) -> None:
    server.digests.clear()
    judge = open_ollama_judge(judge_params(server.address, pull=True))
    assert server.pulled == ["toy"]
    assert all(each.similarity is not None for each in judge.judge(items(2)))


STALLED = """
import sys
from blogtune.judging.ollama import open_ollama_judge
from blogtune.common.command import readable_errors
from tests.judging.server import judge_params
from tests.judging.test_ollama import items
with readable_errors():
    judge = open_ollama_judge(judge_params(sys.argv[1], timeout_seconds=100.0))
    print("asking", flush=True)
    list(judge.judge(items(20)))
"""


def test_ctrl_c_waits_for_no_request() -> None:
    with serve(in_turn(STALL)) as server:
        command = [sys.executable, "-c", STALLED, server.address]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        end = time.monotonic() + 20
        while server.busy < 4:
            assert time.monotonic() < end
            time.sleep(0.02)
        start = time.monotonic()
        process.send_signal(2)
        _, said = process.communicate(timeout=20)
        assert time.monotonic() - start < 5
    assert process.returncode == 130
    assert said == "stopped; what was finished is kept, `dvc repro` goes on from there\n"
