"""Training steps of PEFT with torch on the CPU, in the peers' own environment.

`python benchmarks/contenders/peft_lora.py BATCHES`
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

IGNORED = -100


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    params, lora = given["params"], given["params"]["lora"]
    torch.manual_seed(params["seed"])
    dtype = getattr(torch, given["dtype"])
    model = AutoModelForCausalLM.from_pretrained(given["model"], dtype=dtype)
    blocks = model.config.num_hidden_layers
    config = LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["scale"] * lora["rank"],
        lora_dropout=lora["dropout"],
        target_modules=["q_proj", "k_proj", "v_proj"],
        layers_to_transform=list(range(blocks - lora["layers"], blocks)),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    model.train()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=params["learning_rate"])
    seconds, losses = [], []
    for rows in given["batches"]:
        tokens = [row["prompt"] + row["answer"] for row in rows]
        width = max(map(len, tokens))
        inputs = torch.tensor([each + [0] * (width - len(each)) for each in tokens])
        mask = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in tokens])
        labels = torch.tensor(
            [
                [IGNORED] * len(row["prompt"])
                + row["answer"]
                + [IGNORED] * (width - len(row["prompt"]) - len(row["answer"]))
                for row in rows
            ]
        )
        start = time.perf_counter()
        loss = model(input_ids=inputs, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "losses": losses, "peak": peak}))


if __name__ == "__main__":
    main()
