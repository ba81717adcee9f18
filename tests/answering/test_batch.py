"""How many questions are answered at once, and what is said of their memory."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.phi3 import Model, ModelArgs

from blogtune.answering import batch
from blogtune.answering.batch import MOST, SHARE, questions_at_once, step_bytes
from blogtune.answering.caches import cache_bytes
from blogtune.answering.decode import decode
from blogtune.answering.params import AnswerParams
from blogtune.answering.writing import Writing
from blogtune.common.errors import UserError

WIDTH, BLOCKS, WORDS = 384, 4, 8016
# Of a key and a value in float32, for 256 tokens.
STEP = 2 * 4 * 256 * WIDTH * BLOCKS


def phi3() -> Any:
    """Phi-3 Mini's shape, an eighth as wide and deep."""
    mx.random.seed(1)
    network = Model(
        ModelArgs(
            model_type="phi3",
            hidden_size=WIDTH,
            num_hidden_layers=BLOCKS,
            intermediate_size=1024,
            num_attention_heads=4,
            num_key_value_heads=4,
            rms_norm_eps=1e-5,
            vocab_size=WORDS,
            max_position_embeddings=4096,
        )
    )
    mx.eval(network.parameters())
    return network


def asked(batch_questions: Any, max_tokens: int = 200) -> AnswerParams:
    return AnswerParams(split="test", max_tokens=max_tokens, batch_questions=batch_questions)


def test_a_step_of_the_caches_is_keys_and_values_of_all_blocks() -> None:
    assert step_bytes(phi3()) == STEP


@pytest.mark.parametrize(("count", "more"), [(8, 60), (8, 200), (32, 60), (8, 460)])
def test_the_caches_take_what_is_said(count: int, more: int) -> None:
    """Where no answer stops before the limit. When the old caches go is a matter of threads."""
    network, random = phi3(), np.random.default_rng(0)
    prompts = [
        random.integers(5, WORDS, length).tolist() for length in random.integers(12, 61, count)
    ]
    expected = cache_bytes(step_bytes(network), count, 60, more)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    decode(network, [Writing(prompt, more) for prompt in prompts], [-1], count, lambda _: None)
    assert 0.6 * expected <= mx.get_peak_memory() - before <= 1.15 * expected


def test_auto_takes_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    network = phi3()
    for count in (1, 5, MOST):
        needed = cache_bytes(STEP, count, 60, 200) / SHARE
        for processes in (1, 2):
            free = int(processes * (needed + 1))
            monkeypatch.setattr(batch, "free_memory", lambda free=free: free)
            assert questions_at_once(network, asked("auto"), 60, processes) == count
    monkeypatch.setattr(batch, "free_memory", lambda: 10**15)
    assert questions_at_once(network, asked("auto"), 60, 1) == MOST


def test_a_number_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "free_memory", lambda: 0)
    assert questions_at_once(phi3(), asked(500), 60, 1) == 500


def test_where_not_one_answer_fits_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "free_memory", lambda: STEP)
    with pytest.raises(UserError) as caught:
        questions_at_once(phi3(), asked("auto"), 60, 1)
    assert str(caught.value) == (
        "answer.max_tokens: one answer of 200 tokens may take 8.39 MB of memory, of 3.15 MB that "
        "are free; lower it, or close other programs"
    )
