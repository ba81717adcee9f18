"""How to use the model, as the card says it."""

from blogtune.publishing.params import PublishParams

UNNAMED = "owner/name"


def usage(params: PublishParams, max_tokens: int) -> str:
    """Commands for mlx-lm, transformers and Ollama; greedy, as the model was measured."""
    repository = params.repository or UNNAMED
    name = repository.split("/")[-1]
    return "\n".join(
        [
            "## Use",
            "",
            "With [mlx-lm](https://github.com/ml-explore/mlx-lm), greedy, as it was measured:",
            "",
            "```sh",
            f"mlx_lm.generate --model {repository} --max-tokens {max_tokens} --temp 0 \\",
            '  --prompt "Your question?"',
            "```",
            "",
            "With [transformers](https://github.com/huggingface/transformers):",
            "",
            "```python",
            "from transformers import pipeline",
            "",
            f'generate = pipeline("text-generation", model="{repository}")',
            'question = [{"role": "user", "content": "Your question?"}]',
            f"reply = generate(question, max_new_tokens={max_tokens}, do_sample=False)",
            'print(reply[0]["generated_text"][-1]["content"])',
            "```",
            "",
            "With [Ollama](https://ollama.com):",
            "",
            "```sh",
            *(_ollama_gguf(repository) if params.gguf else _ollama_folder(repository, name)),
            "```",
            *(_adapter() if params.adapter else ()),
        ]
    )


def _ollama_gguf(repository: str) -> tuple[str, ...]:
    return (f"ollama run hf.co/{repository}",)


def _ollama_folder(repository: str, name: str) -> tuple[str, ...]:
    return (
        f"hf download {repository} --local-dir {name}",
        f"printf 'FROM ./{name}\\nPARAMETER temperature 0\\n' > Modelfile",
        f"ollama create {name.lower()} -f Modelfile",
        f'ollama run {name.lower()} "Your question?"',
    )


def _adapter() -> tuple[str, ...]:
    return ("", "`adapter/` holds the adapter by itself, in mlx-lm's format, for the base model.")
