"""Greedy answers of stock mlx-lm, one by one, with the fast BLAS.

`python -m benchmarks.contenders.mlx_lm_answers ASKED`
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm import stream_generate
from mlx_lm.utils import load

from blogtune.models.chat import open_chat


def main() -> None:
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    network, tokenizer, *_ = load(given["model"])
    network.set_dtype(mx.float32)
    chat = open_chat(tokenizer)
    start, texts, count = time.perf_counter(), [], 0
    for question in given["questions"]:
        asked = {"prompt": chat.prompt(question), "max_tokens": given["tokens"]}
        tokens = [step.token for step in stream_generate(network, tokenizer, **asked)]
        count += len(tokens)
        texts.append(chat.decode([token for token in tokens if token not in chat.stops]))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "tokens": count, "answers": texts}))


if __name__ == "__main__":
    main()
