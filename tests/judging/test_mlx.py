"""The judge in process, on tiny real networks: a batch gives what each item alone gives."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from blogtune.common.errors import UserError
from blogtune.common.sources import JudgeModelParams
from blogtune.fetching.fetch import fetch
from blogtune.judging.cache import CachedJudge, digest
from blogtune.judging.judge import identity, open_judge
from blogtune.judging.mlx import REPLY, MlxJudge
from blogtune.judging.prompt import DIGITS, messages
from blogtune.judging.protocol import Item, Verdict
from blogtune.models.head import open_head
from blogtune.runtime.device import device
from tests import tiny
from tests.judging.server import judge_params
from tests.training.architectures import NAMES, build

LONG = 16_384


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fetched tiny model that reads long prompts. Not to be written to."""
    given = tmp_path_factory.mktemp("given")
    tiny.save_model(given)
    tiny.write_weights(given, tiny.network(), max_position_embeddings=LONG)
    target = tmp_path_factory.mktemp("models") / "judge"
    fetch(JudgeModelParams(source=f"path:{given}", revision=None), target)
    return target


def mlx_params(**changes: Any) -> Any:
    model = {"source": "path:given", "revision": None}
    return judge_params(**{"kind": "mlx", "model": model, "batch_items": 3, **changes})


@pytest.fixture
def judge(folder: Path) -> MlxJudge:
    return MlxJudge(mlx_params(), folder)


def items(count: int = 7) -> list[Item]:
    """Of unlike lengths, so that batches pad and the order inside differs from that outside; some
    of one answer with several references, some not."""
    return [
        Item(f"Why {n // 4}?", "Because. " * (count - n), "So. " * (n % 2)) for n in range(count)
    ]


def alone(judge: MlxJudge, item: Item) -> float:
    """The mean score from a plain pass over this item's whole prompt."""
    tokens = judge.chat.opening(messages(item, "likert"), REPLY)
    ends = [judge.chat.opening(messages(item, "likert"), REPLY + digit)[-1] for digit in DIGITS]
    rows = np.array([len(tokens) - 1], np.int32)
    hidden = judge.head.hidden(np.array([tokens], np.int32), rows)
    logits = np.asarray(judge.head.project(hidden)[0])
    weights = np.exp(logits[ends].astype(np.float64))
    return float((weights @ np.arange(1, 6) / weights.sum() - 1) / 4)


def scores(verdicts: Sequence[Verdict]) -> list[float]:
    found = [verdict.similarity for verdict in verdicts]
    assert None not in found
    return [each for each in found if each is not None]


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_batch_gives_what_each_item_alone_gives(judge: MlxJudge, batch: int) -> None:
    judge.batch_items = batch
    expected = [alone(judge, item) for item in items()]
    assert len({round(each, 4) for each in expected}) > 3
    assert scores(list(judge.judge(items()))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_judges_in_batches_as_alone(judge: MlxJudge, name: str) -> None:
    """Also those with windows, whose keys cannot be shared."""
    size = len(judge.chat.tokenizer.get_vocab())
    lengths = {"max_position_embeddings": LONG, "n_positions": LONG, "n_ctx": LONG}
    judge.network = build(name, vocab_size=size, **lengths)
    judge.network.eval()
    judge.head = open_head(judge.network)
    expected = [alone(judge, item) for item in items(4)]
    assert scores(list(judge.judge(items(4)))) == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def read(judge: MlxJudge, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each forward pass of the judge reads, rows and padding together."""
    sizes: list[int] = []
    hidden = judge.head.hidden

    def counting(inputs: Any, rows: Any, cache: Any = None) -> Any:
        sizes.append(inputs.size)
        return hidden(inputs, rows, cache)

    monkeypatch.setattr(judge.head, "hidden", counting)
    return sizes


def length(judge: MlxJudge, item: Item) -> int:
    return len(judge.chat.opening(messages(item, "likert"), REPLY))


def test_what_all_prompts_begin_with_is_computed_once(judge: MlxJudge, read: list[int]) -> None:
    given = [Item(f"{n}?", "r", "a") for n in range(6)]
    list(judge.judge(given))
    shared, *batches = read
    rest = length(judge, given[0]) - shared
    assert batches == [3 * rest, 3 * rest]
    assert shared > 5 * rest


def test_what_the_prompts_of_one_answer_begin_with_is_computed_once_too(
    judge: MlxJudge, read: list[int]
) -> None:
    given = [Item(f"{q}?", f"{n}{q}", "A long answer. " * 20) for q in range(2) for n in range(3)]
    list(judge.judge(given))
    shared, first, three, second, other_three = read
    assert first == second > 100
    assert three == other_three == 3 * (length(judge, given[0]) - shared - first)
    assert three < first


def test_one_item_and_identical_items_have_a_prompt_left_to_read(judge: MlxJudge) -> None:
    (one,) = judge.judge(items(1))
    four = list(judge.judge(items(1) * 4))
    # A GPU multiplies a batch in another order.
    apart = 0.0 if device().is_cpu else 1e-6
    assert scores(four) == pytest.approx(scores([one]) * 4, rel=0.0, abs=apart)
    assert [replace(each, similarity=None) for each in [one, *four]] == [Verdict(None)] * 5
    assert list(judge.judge([])) == []


def test_an_item_longer_than_the_model_reads_is_unscored(judge: MlxJudge) -> None:
    given = items()
    lengths = [length(judge, item) for item in given]
    judge.limit = sorted(lengths)[3]
    for verdict, tokens in zip(judge.judge(given), lengths, strict=True):
        too_long = tokens > judge.limit
        assert verdict.reason == ("prompt too long" if too_long else None)


def test_a_model_whose_tokenizer_knows_no_digits_cannot_judge(folder: Path, tmp_path: Path) -> None:
    fetch(JudgeModelParams(source=f"path:{folder}", revision=None), tmp_path / "judge")
    words = Tokenizer(models.WordLevel({"<unk>": 0, "score": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "judge/tokenizer.json"))
    with pytest.raises(UserError, match="the judge's tokenizer has no token for each digit"):
        MlxJudge(mlx_params(), tmp_path / "judge")


def test_the_judge_is_its_files_and_its_prompt(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    judge = open_judge(mlx_params(), folder)
    assert isinstance(judge, CachedJudge)
    assert judge.method == "likert logits"
    assert judge.inner.identity == identity(mlx_params(batch_items=99), folder)
    other = tmp_path / "other"
    fetch(JudgeModelParams(source=f"path:{folder}", revision=None), other)
    receipt = json.loads((other / "source.json").read_text())
    receipt["files"]["model.safetensors"] = "0" * 64
    (other / "source.json").write_text(json.dumps(receipt))
    changed = identity(mlx_params(), other)
    assert changed is not None
    assert digest(changed) != digest(judge.inner.identity)
