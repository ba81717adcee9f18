"""Greedy answers of this project, batched: `python -m benchmarks.contenders.ours_answers ASKED`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx

from blogtune.answering.generate import answer_questions
from blogtune.answering.params import AnswerParams
from blogtune.common.records import Pair
from blogtune.models.loading import load_model
from blogtune.runtime.params import RuntimeParams
from blogtune.runtime.workers import together


def main() -> None:
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    base, questions = Path(given["model"]), given["questions"]
    params = AnswerParams(split="test", max_tokens=given["tokens"], batch_questions=given["batch"])
    pairs = [
        Pair(id=str(number), post=None, question=question, answer="")
        for number, question in enumerate(questions)
    ]
    runtime = RuntimeParams(dtype="float32", processes=given["processes"])
    with together(runtime, base, ["benchmarks.contenders.ours_answers", *sys.argv[1:]]) as group:
        model = load_model(base, mx.float32)
        start = time.perf_counter()
        answers = answer_questions(model, "base", pairs, params, group)
        seconds = time.perf_counter() - start
    if group.rank() == 0:
        tokens = sum(answer.tokens + (answer.stop == "end") for answer in answers)
        texts = [answer.answer for answer in answers]
        print(json.dumps({"seconds": seconds, "tokens": tokens, "answers": texts}))


if __name__ == "__main__":
    main()
