"""Control tokens that stand in the data are text: no question opens a turn, no answer ends early.

A tokenizer reads "<|im_end|>" as one token wherever it stands. So those in the data are taken out
before the template is rendered and put back behind it; and the whole is read by a tokenizer that
knows the template's control tokens under other names, for which what is in the data is text.
"""

import json
import re
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from blogtune.common.errors import UserError

# Private characters: around the number of what was taken out, and around a control token's.
OPEN, CLOSE = "\ue000", "\ue001"
NAME, END = "\ue002", "\ue003"
TAKEN_OUT = re.compile(f"{OPEN}(\\d+){CLOSE}")


class Ordinary:
    """Encodes a template's text, with words of the data in it that are never control tokens.

    `frame` is what the template writes: added tokens in it are control tokens, as all special are.
    """

    def __init__(self, tokenizer: Any, frame: str) -> None:
        self.tokenizer = tokenizer
        self.control: dict[str, int] = {
            added.content: number
            for number, added in tokenizer.added_tokens_decoder.items()
            if added.content.strip()
            and (added.special or number in tokenizer.all_special_ids or added.content in frame)
        }
        # With the character itself among them, what is taken out can be told from the data.
        self._names = [OPEN, *sorted(self.control, key=len, reverse=True)]
        self._any = re.compile("|".join(map(re.escape, self._names)))

    def take_out(self, text: str) -> str:
        """The text with a stand-in for each control token."""
        return self._any.sub(lambda found: f"{OPEN}{self._names.index(found[0])}{CLOSE}", text)

    def encode(self, text: str) -> list[int]:
        """The tokens; stand-ins are read as the text that they stand for."""
        if OPEN not in text:
            # It would warn of long texts, of which only a part may be read later.
            return list(self.tokenizer.encode(text, add_special_tokens=False, verbose=False))
        named = self._any.sub(self._alias, text.replace(NAME, "\N{REPLACEMENT CHARACTER}"))
        whole = TAKEN_OUT.sub(lambda found: self._names[int(found[1])], named)
        tokens = list(self._reader.encode(whole, add_special_tokens=False).ids)
        own = [token for token in tokens if token in self._numbers]
        if len(own) > len(re.findall(NAME, named)):
            raise self._unable(whole)
        return tokens

    def _alias(self, found: re.Match[str]) -> str:
        return found[0] if found[0] == OPEN else f"{NAME}{self.control[found[0]]}{END}"

    @cached_property
    def _numbers(self) -> frozenset[int]:
        return frozenset(self.control.values())

    @cached_property
    def _reader(self) -> Tokenizer:
        """The same tokenizer, in which a control token has its alias for a name."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise self._unable(", ".join(self._names[1:4]))
        state = json.loads(backend.to_str())
        vocabulary = state["model"]["vocab"]
        for added in state["added_tokens"]:
            number, content = added["id"], added["content"]
            if content in self.control:
                added["content"] = f"{NAME}{number}{END}"
            if isinstance(vocabulary, dict):
                # Found there, it keeps its number.
                vocabulary[added["content"]] = number
            elif number < len(vocabulary):
                vocabulary[number][0] = added["content"]
        reader = Tokenizer.from_str(json.dumps(state))
        reader.no_padding()
        reader.no_truncation()
        return reader

    def _unable(self, text: str) -> UserError:
        return UserError(
            f"the model's tokenizer cannot read its control tokens as text: {text[:80]!r}",
            remedy="choose a model with a tokenizer.json, or take them out of the data",
        )
