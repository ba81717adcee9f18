"""Greedy answers of Hugging Face transformers on the CPU, in the peers' own environment.

`python benchmarks/contenders/hf_answers.py ASKED`
"""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    tokenizer = AutoTokenizer.from_pretrained(given["model"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    dtype = getattr(torch, given["dtype"])
    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=dtype).eval()
    stops = [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in given["questions"]
    ]
    prompts.sort(key=len)
    start, count = time.perf_counter(), 0
    for first in range(0, len(prompts), given["batch"]):
        asked = prompts[first : first + given["batch"]]
        inputs = tokenizer(asked, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            rows = model.generate(
                **inputs,
                max_new_tokens=given["tokens"],
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=tokenizer.pad_token_id,
            )
        for row in rows[:, inputs["input_ids"].shape[1] :].tolist():
            ended = [place for place, token in enumerate(row) if token in stops]
            count += ended[0] + 1 if ended else len(row)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "tokens": count}))


if __name__ == "__main__":
    main()
