"""A family's tiny model with a SentencePiece vocabulary, as Phi-3 and Gemma really have one.

Two files tell the same vocabulary: tokenizer.json to transformers and mlx-lm, tokenizer.model, with
added_tokens.json, to Ollama.
"""

import io
import json
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from tests import tiny
from tests.architectures.families import Family, save, teach

SPACE = "\u2581"


def save_pieces(folder: Path, family: Family, *, prefix: bool, swallow: set[str]) -> Path:
    """Write the taught model; return its folder.

    `prefix`: a space stands before each text, as with Phi-3 and not with Gemma. `swallow`: special
    tokens that take the white space behind them, as most of Phi-3's.
    """
    pieces = _train(prefix=prefix)
    tokenizer = _tokenizer(pieces, prefix=prefix)
    # Those that SentencePiece knows itself keep their numbers.
    added = [AddedToken(t, normalized=False, rstrip=t in swallow) for t in family.specials]
    tokenizer.add_special_tokens(added)
    numbers = {token: tokenizer.token_to_id(token) for token in family.specials}
    ends = {"bos_token_id": numbers[str(family.bos)], "eos_token_id": numbers[family.eos]}
    save(folder, family, vocab_size=tokenizer.get_vocab_size(), **ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer.model").write_bytes(pieces.serialized_model_proto())
    own = {t: n for t, n in numbers.items() if n >= pieces.get_piece_size()}
    (folder / "added_tokens.json").write_text(json.dumps(own))
    teach(folder)
    return folder


def _train(*, prefix: bool) -> Any:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([*tiny.FACTS, *tiny.FACTS.values()]),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=prefix,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return SentencePieceProcessor(model_proto=model.getvalue())


def _tokenizer(pieces: Any, *, prefix: bool) -> Tokenizer:
    """The same vocabulary as transformers has it: merges in the order of the pieces' scores."""
    vocabulary = {pieces.id_to_piece(n): n for n in range(pieces.get_piece_size())}
    merges = [
        (-pieces.get_score(number), vocabulary[piece[:cut]], piece[:cut], piece[cut:])
        for piece, number in vocabulary.items()
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    pairs = [(left, right) for _, _, left, right in sorted(merges)]
    model = models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    before = [normalizers.Prepend(SPACE)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", SPACE)])
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    after = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([*steps, *after])
    return tokenizer
