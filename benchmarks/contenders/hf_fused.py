"""What transformers makes of fused models, in the peers' own environment; no remote code.

`python benchmarks/contenders/hf_fused.py JOBS`: for each job the first choice and the answer
token's log probability at every answer token of the given texts, and greedy answers to their
prompts.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    for job in json.loads(Path(sys.argv[1]).read_text()):
        print(json.dumps(_done(job)), flush=True)


def _done(job):
    tokenizer = AutoTokenizer.from_pretrained(job["model"], trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        job["model"],
        dtype=getattr(torch, job["dtype"]),
        trust_remote_code=False,
        use_safetensors=True,
    ).eval()
    top, log_probabilities, answers = [], [], []
    with torch.inference_mode():
        for text in job["texts"]:
            prompt, answer = text["prompt"], text["answer"]
            logits = model(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
            # As mlx-lm's: in double precision, so that the softmax adds nothing of its own.
            scores = logits.double().log_softmax(dim=-1)
            top.append(scores.argmax(dim=-1).tolist())
            chosen = scores[torch.arange(len(answer)), torch.tensor(answer)]
            log_probabilities.append(chosen.tolist())
            answers.append(_greedy(model, tokenizer, prompt, job))
    return {"top": top, "log_probabilities": log_probabilities, "answers": answers}


def _greedy(model, tokenizer, prompt, job):
    inputs = torch.tensor([prompt])
    row = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=job["tokens"],
        do_sample=False,
        eos_token_id=job["stops"],
        pad_token_id=job["stops"][0],
    )[0, len(prompt) :].tolist()
    return tokenizer.decode(row, skip_special_tokens=True).strip()


if __name__ == "__main__":
    main()
