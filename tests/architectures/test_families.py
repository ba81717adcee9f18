"""Seven families through training, answering, fusing and parity, and what is peculiar to each."""

from datetime import date
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from scipy.special import log_softmax

from blogtune.answering.generate import answer_questions
from blogtune.answering.params import AnswerParams
from blogtune.cpu.patches import patched
from blogtune.models.chat import open_chat
from blogtune.models.head import open_head
from blogtune.models.loading import LoadedModel, load_model
from blogtune.training.examples import make_batch, make_examples
from blogtune.training.lora import target_keys
from blogtune.training.step import ReferenceStep
from tests import tiny
from tests.architectures.conftest import PAIRS, Trained, train_params
from tests.architectures.families import FAMILIES, save
from tests.fusing.conftest import fuse_params, measure
from tests.training.architectures import adapted, assert_same, computed

# Known questions and others, of unlike lengths.
QUESTIONS = [*PAIRS[:4], *(tiny.pair(f"n{n}", "Tell " + "again " * n, "-") for n in (1, 4))]
TOKENS = 16


def arrays(file: Path) -> dict[str, Any]:
    return dict(mx.load(str(file)).items())


def test_query_key_and_value_are_found_fused_or_not(family: Trained) -> None:
    assert target_keys(family.load().network, train_params().lora) == list(family.family.keys)
    assert family.result.keys == list(family.family.keys)


def test_as_many_parameters_are_trained_as_the_shapes_say(family: Trained) -> None:
    # Rank 4 in two blocks: each layer reads 64 numbers, and together they write so many.
    expected = 4 * 2 * (64 * len(family.family.keys) + family.family.outputs)
    assert family.result.trainable == expected
    adapter = arrays(family.adapter / "adapters.safetensors")
    assert sum(array.size for array in adapter.values()) == expected
    names = {name.rpartition(".")[0] for name in adapter}
    assert names == {f"model.layers.{n}.{key}" for n in (2, 3) for key in family.family.keys}


def test_training_went_down_and_moved_every_adapter(family: Trained) -> None:
    assert family.result.best is not None
    assert family.result.best.validation_loss < family.result.base_validation_loss
    for name, array in arrays(family.adapter / "adapters.safetensors").items():
        assert float(mx.abs(array).max()) > 0, name


def test_cached_activations_change_neither_loss_nor_gradients(family: Trained) -> None:
    model = family.load()
    examples, _ = make_examples(PAIRS, open_chat(model.tokenizer), 128)
    lora = train_params().lora
    made = adapted(model.network, **lora.model_dump())
    batch = make_batch(examples[::-1])
    expected = computed(made.reference(), batch)
    for step in (made.reference(made.cache(examples)), made.fast(made.cache(examples))):
        assert_same(computed(step, batch), expected, 1e-4)


def test_the_loss_is_that_of_the_whole_text_at_once(family: Trained) -> None:
    model = family.load()
    examples, _ = make_examples(PAIRS, open_chat(model.tokenizer), 128)
    batch = make_batch(examples)
    logits = np.asarray(model.network(mx.array(batch.inputs)), np.float64)
    rows = logits.reshape(-1, logits.shape[-1])[batch.rows]
    expected = -log_softmax(rows, axis=1)[np.arange(len(rows)), batch.targets].sum()
    step = ReferenceStep(model.network, open_head(model.network))
    for cpu in (False, True):
        with patched(cross_entropy=cpu):
            assert float(step.validation_loss(batch)) == pytest.approx(expected, rel=1e-5)


def test_the_prompt_is_the_templates_the_same_every_day(family: Trained) -> None:
    chat = open_chat(family.load().tokenizer)
    assert chat.tokenizer.decode(chat.prompt("Why?")) == family.family.prompt


def test_an_answer_ends_with_the_templates_own_end(family: Trained) -> None:
    chat = open_chat(family.load().tokenizer)
    names = chat.tokenizer.convert_ids_to_tokens
    assert names([chat.end]) == [family.family.end]
    assert set(names(chat.stops)) == family.family.stops
    assert chat.tokenizer.decode(chat.answer("Because.")) == f"Because.{family.family.end}"


def test_a_system_message_reaches_the_model_whatever_the_template_knows(family: Trained) -> None:
    chat = open_chat(family.load().tokenizer)
    rules = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    text = chat.tokenizer.decode(chat.opening(rules))
    assert text.count("Be brief.") == text.count("Why?") == 1
    assert ("Be brief.\n\nWhy?" in text) == (not family.family.has_system_role)


def one_by_one(model: LoadedModel, question: str) -> tuple[str, str, int]:
    """Answer, stop and tokens, every token from the whole text."""
    chat = open_chat(model.tokenizer)
    prompt, answer = chat.prompt(question), list[int]()
    while len(answer) < TOKENS:
        token = int(model.network(mx.array([[*prompt, *answer]]))[0, -1].argmax())
        if token in chat.stops:
            return chat.decode(answer), "end", len(answer)
        answer.append(token)
    return chat.decode(answer), "length", len(answer)


def test_batched_answers_are_those_of_one_by_one(family: Trained) -> None:
    model = family.load(adapted=True)
    expected = [one_by_one(model, pair.question) for pair in QUESTIONS]
    # Two at once leave rows of unlike lengths beside one another again and again.
    for batch in (2, len(QUESTIONS)):
        params = AnswerParams(split="test", max_tokens=TOKENS, batch_questions=batch)
        answers = answer_questions(model, "finetuned", QUESTIONS, params, tiny.ALONE)
        got = [(each.answer, each.stop, each.tokens) for each in answers]
        assert got == expected
    assert "end" in {stop for _, stop, _ in got}
    # Drafts that agree, that break off, and that are another question's.
    texts = [answer for answer, *_ in expected]
    drafted = [*texts[:2], texts[2][:5], texts[0], *texts[4:]]
    drafts = {pair.id: text for pair, text in zip(QUESTIONS, drafted, strict=True)}
    answers = answer_questions(model, "fused", QUESTIONS, params, tiny.ALONE, drafts)
    assert [(each.answer, each.stop, each.tokens) for each in answers] == expected


def test_the_fused_model_is_the_adapted_one_and_not_the_base(family: Trained) -> None:
    adapted, fused = family.load(adapted=True), load_model(family.fused, mx.float32)
    parity = measure(adapted, fused, PAIRS, fuse_params(parity_pairs=6))
    parity.check(fuse_params())
    assert parity.top1_agreement == 1.0
    other = measure(adapted, family.load(), PAIRS, fuse_params(parity_pairs=6))
    assert other.mean_kl > 100 * parity.mean_kl


def test_qwen3s_prompt_is_no_beginning_of_the_finished_text(tmp_path: Path) -> None:
    family = FAMILIES["qwen3"]
    tokenizer = load_model(save(tmp_path / "base", family), None).tokenizer
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False)
    assert not whole.startswith(family.prompt)
    # So the answer is not what is left when the prompt's length is cut off the finished text.
    pair = tiny.pair("a", "Why?", "Because.")
    (example,), _ = make_examples([pair], open_chat(tokenizer), 128)
    assert tokenizer.decode(example.prompt) == family.prompt
    assert tokenizer.decode(example.answer) == "Because.<|im_end|>"


def test_llamas_template_asks_the_clock_of_those_who_pin_nothing(tmp_path: Path) -> None:
    tokenizer = load_model(save(tmp_path / "base", FAMILIES["llama"]), None).tokenizer
    turns = [{"role": "user", "content": "Why?"}]
    told = tokenizer.apply_chat_template(turns, tokenize=False)
    assert f"Today Date: {date.today():%d %b %Y}" in told
    assert "1 January 2026" in FAMILIES["llama"].prompt


def test_gemma2s_softcaps_are_in_the_loss(tmp_path: Path) -> None:
    folder = save(tmp_path / "base", FAMILIES["gemma2"])
    model = load_model(folder, mx.float32)
    examples, _ = make_examples(PAIRS, open_chat(model.tokenizer), 128)
    batch = make_batch(examples)
    network = model.network
    # What leaves the norm, times the embedding, is what the cap is put on.
    hidden = np.asarray(network.model(mx.array(batch.inputs)), np.float64)
    embedding = np.asarray(network.model.embed_tokens.weight, np.float64)
    raw = hidden.reshape(-1, hidden.shape[-1])[batch.rows] @ embedding.T
    losses = [
        -log_softmax(logits, axis=1)[np.arange(len(raw)), batch.targets].sum()
        for logits in (5.0 * np.tanh(raw / 5.0), raw)
    ]
    got = float(ReferenceStep(network, open_head(network)).validation_loss(batch))
    assert got == pytest.approx(losses[0], rel=1e-5)
    assert got != pytest.approx(losses[1], rel=1e-2)


def test_phi4_mini_turns_three_quarters_of_each_head(tmp_path: Path) -> None:
    tokens = mx.array([[3, 9, 40, 41, 42, 9, 7]])
    logits = []
    for name, factor in (("part", 0.75), ("whole", 1.0)):
        changes = {"partial_rotary_factor": factor, "rope_scaling": None}
        folder = save(tmp_path / name, FAMILIES["phi4-mini"], **changes)
        logits.append(load_model(folder, mx.float32).network(tokens))
    # Of 16 numbers a head.
    assert load_model(tmp_path / "part", None).network.layers[0].self_attn.rope.dims == 12
    assert float(mx.abs(logits[0] - logits[1]).max()) > 1e-3


@pytest.mark.parametrize(("length", "set_used"), [(64, "short"), (65, "long")])
def test_a_long_text_has_other_frequencies_than_a_short_one(
    tmp_path: Path, length: int, set_used: str
) -> None:
    config = FAMILIES["phi4-mini"].config
    tokens = mx.arange(10, 10 + length)[None]
    got = load_model(save(tmp_path / "both", FAMILIES["phi4-mini"]), mx.float32).network(tokens)
    for name in ("short", "long"):
        only = config["rope_scaling"][f"{name}_factor"]
        scaling = {"type": "longrope", "short_factor": only, "long_factor": only}
        folder = save(tmp_path / name, FAMILIES["phi4-mini"], rope_scaling=scaling)
        same = mx.array_equal(load_model(folder, mx.float32).network(tokens), got)
        assert same == (name == set_used)
