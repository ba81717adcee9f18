"""The model card: valid for the hub's own reader, true to the metrics, and nobody's Markdown."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import ValidationError

from blogtune.project.comparison_table import markdown_parts, plain
from blogtune.project.judge_table import markdown_judge_parts
from blogtune.project.settings import read_settings
from blogtune.publishing.card import escaped, model_card
from blogtune.publishing.facts import Facts, read_facts
from blogtune.publishing.params import PublishParams

HOSTILE = "a|b</td><script>x()</script> **bold** [l](https://e.example) ![i](u) `c` &lt; $x$\n# h"
READER = MarkdownIt("gfm-like", {"linkify": False})


@pytest.fixture(scope="module")
def facts(committed: Path) -> Facts:
    before = Path.cwd()
    os.chdir(committed)
    try:
        return read_facts(read_settings())
    finally:
        os.chdir(before)


def with_settings(facts: Facts, section: str, **changes: Any) -> Facts:
    old = getattr(facts.settings, section)
    settings = facts.settings.model_copy(update={section: old.model_copy(update=changes)})
    return dataclasses.replace(facts, settings=settings)


def test_the_hubs_reader_finds_license_and_the_measured_figures(facts: Facts) -> None:
    data = ModelCard(model_card(facts)).data
    assert (data.license, data.library_name) == ("apache-2.0", "mlx")
    assert (data.model_name, data.base_model) == ("blog", None)
    metrics = {each.metric_name: each.metric_value for each in data.eval_results}
    fused = facts.comparison["fused"]
    assert metrics["mean similarity (cosine)"] == fused["mean"]
    ends = {
        end: f"difference to base in similarity, 95% interval, {end} (cosine)"
        for end in ("low", "high")
    }
    assert {end: metrics[name] for end, name in ends.items()} == {
        end: fused["difference"][end] for end in ends
    }
    assert {(r.dataset_name, r.dataset_split) for r in data.eval_results} == {
        ("The bundled blog", "test")
    }


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ("test", "the test part, which training never saw"),
        ("valid", "the valid part, by whose loss the checkpoint was chosen"),
    ],
)
def test_the_card_says_what_training_had_of_the_questions(
    facts: Facts, split: str, told: str
) -> None:
    assert told in " ".join(model_card(with_settings(facts, "answer", split=split)).split())


# "no" is Norwegian: what reads YAML 1.1 takes it for false, unless it is quoted.
@pytest.mark.parametrize("language", ["en", "no", None])
def test_the_hubs_reader_finds_the_language_of_the_data(facts: Facts, language: str | None) -> None:
    card = model_card(with_settings(facts, "publish", language=language))
    assert ModelCard(card).data.language == language
    assert ("language:" in card) == (language is not None)


@pytest.mark.parametrize("language", ["English", "EN", ""])
def test_what_is_no_code_of_a_language_is_refused(facts: Facts, language: str) -> None:
    values = facts.settings.publish.model_dump() | {"language": language}
    with pytest.raises(ValidationError, match="language"):
        PublishParams.model_validate(values)


def test_the_bundled_blog_is_in_english(facts: Facts) -> None:
    assert ModelCard(model_card(facts)).data.language == "en"


def test_the_card_says_what_make_verdict_and_make_judge_say(facts: Facts) -> None:
    text = shown(model_card(facts))
    for table, *notes in (markdown_parts(facts.comparison), markdown_judge_parts(facts.fitness)):
        assert table in model_card(facts)
        for note in notes:
            assert note in text
    assert "dequantized from Q4_1" in text
    assert "Their license: Apache-2.0, like the project." in text
    assert facts.commit in text
    assert facts.lock in text
    assert "A search that returns the nearest training answer scores 0.494" in text
    assert "Known blind spots of the judge: echo, negation, numbers." in text
    assert "1,302,528" in text


@pytest.mark.parametrize("word", ["no evidence (contains 0)", "no verdict: unfit", "worse"])
def test_the_verdict_stands_on_top_whatever_it_is(facts: Facts, word: str) -> None:
    fused = {**facts.comparison["fused"], "verdict": f"this adapter, fused: {word}; 9 questions"}
    card = model_card(dataclasses.replace(facts, comparison={**facts.comparison, "fused": fused}))
    quote = ModelCard(card).text.split("\n\n")[1]
    assert shown(quote) == f"this adapter, fused: {word}; 9 questions"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("package:llm/model.Q4_1.gguf", "dequantized from Q4_1"),
        ("path:/home/me/phi-3-mini-IQ2_XXS.gguf", "dequantized from IQ2_XXS"),
        ("path:/home/me/phi-3-mini-f16.gguf", ""),
        ("hub:someone/base", ""),
    ],
)
def test_a_quantized_base_is_told(facts: Facts, source: str, said: str) -> None:
    text = shown(model_card(dataclasses.replace(facts, base={**facts.base, "source": source})))
    assert said in text
    assert ("dequantized" in text) == bool(said)
    assert "/home/me" not in text


def test_a_base_of_few_bits_that_was_fused_to_floats_is_told(facts: Facts) -> None:
    base = {**facts.base, "source": "hub:someone/base-4bit"}
    config = {**facts.base_config, "quantization": {"bits": 4, "group_size": 64}}
    few = dataclasses.replace(facts, base=base, base_config=config)
    assert "dequantized from 4 bits" in shown(model_card(few))


def test_a_hub_base_is_linked_and_its_license_kept(facts: Facts) -> None:
    base = {
        "source": "hub:meta/llama",
        "origin": "meta/llama",
        "revision": "5f0c",
        "license": "llama3.2",
    }
    linked = dataclasses.replace(with_settings(facts, "model", source="hub:meta/llama"), base=base)
    data = ModelCard(model_card(linked)).data
    assert (data.base_model, data.license) == ("meta/llama", "llama3.2")


def test_data_of_the_hub_are_linked_with_their_commit_and_license(facts: Facts) -> None:
    fetched = {"source": "hub:someone/posts", "origin": "someone/posts", "revision": "5f0c"}
    linked = dataclasses.replace(facts, fetched={**fetched, "license": "cc-by-4.0"}, datasheet="")
    card = ModelCard(model_card(linked))
    assert card.data.datasets == "someone/posts"
    named = {(each.dataset_type, each.dataset_name) for each in card.data.eval_results}
    assert named == {("someone/posts", "someone/posts")}
    text = shown(card.text)
    assert "Data: hub:someone/posts (revision 5f0c), 1540 pairs" in text.replace("**", "")
    assert "Their license: cc-by-4.0." in text
    assert ModelCard(model_card(facts)).data.datasets is None


def test_a_license_that_the_hub_does_not_know_is_other_with_its_name(facts: Facts) -> None:
    base = {**facts.base, "license": "The Blog License 1"}
    data = ModelCard(model_card(dataclasses.replace(facts, base=base))).data
    assert (data.license, data.license_name) == ("other", "The Blog License 1")


def test_what_people_and_models_wrote_has_no_meaning_in_the_card(facts: Facts) -> None:
    base = {
        "source": f"package:{HOSTILE}",
        "origin": HOSTILE,
        "revision": HOSTILE,
        "license": HOSTILE,
    }
    comparison = json.loads(json.dumps(facts.comparison))
    comparison["fused"]["verdict"] = f"this adapter, fused: no verdict: {HOSTILE}"
    fitness = facts.fitness.model_copy(update={"blind_spots": HOSTILE, "method": HOSTILE})
    hostile = dataclasses.replace(
        facts, base=base, comparison=comparison, fitness=fitness, datasheet=f"# {HOSTILE}"
    )
    hostile = with_settings(hostile, "publish", data_license=HOSTILE)
    card = ModelCard(model_card(hostile))
    kinds = {(t.type, t.content) for t in tokens(card.text) if t.type.startswith("html")}
    assert kinds == set()
    before = [t.tag for t in READER.parse(ModelCard(model_card(facts)).text) if t.tag]
    assert [t.tag for t in READER.parse(card.text) if t.tag] == before
    links = [t.attrs["href"] for t in tokens(card.text) if t.type == "link_open"]
    assert all(not str(link).startswith("https://e.example") for link in links)


@settings(max_examples=60)
@given(st.text())
@example(HOSTILE)
@example("1. item")
@example("- item")
@example("=")
@example("www.example.org https://e.example mailto:a@b.c")
def test_an_escaped_text_is_shown_as_it_is(text: str) -> None:
    line = " ".join(plain(text).split())
    (open_, inline, close) = READER.parse(f"{escaped(text)}") if line else ("", None, "")
    if inline is None:
        return
    assert (open_.type, close.type) == ("paragraph_open", "paragraph_close")
    assert {child.type for child in inline.children} <= {"text", "text_special"}
    assert "".join(child.content for child in inline.children) == line


def tokens(text: str) -> list[Any]:
    """All tokens of a Markdown text, those within a line too."""
    return [t for block in READER.parse(text) for t in (block, *(block.children or ()))]


def shown(text: str) -> str:
    """What a reader sees of a Markdown text, a line a block."""
    return "\n".join(
        "".join(child.content for child in block.children or ()) or block.content
        for block in READER.parse(text)
        if block.type in ("inline", "fence")
    )
