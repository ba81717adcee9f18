"""Chat templates of the families that are known, written in their models' manner."""

from pathlib import Path

from mlx_lm.utils import load_tokenizer

from blogtune.models.chat import Chat, open_chat
from tests import tiny

_CHATML_TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
)
_PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>NL' + m.content + '<|end|>NL' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>NL' }}{% else %}"
    "{{ '<|endoftext|>' }}{% endif %}"
)
_SYSTEM_FIRST = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
)
TEMPLATES = {
    "ChatML": tiny.CHATML,
    "ChatML with a default": (
        "{% if messages[0].role != 'system' %}"
        "{{ '<|im_start|>system\nYou are {{helpful}}.<|im_end|>\n' }}{% endif %}"
        f"{_CHATML_TURNS}{{% endif %}}"
    ),
    "ChatML without thinking": (
        f"{_CHATML_TURNS}{{% if enable_thinking is false %}}"
        "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
    ),
    "Llama 3": (
        "{{ '<|begin_of_text|>' }}"
        + _SYSTEM_FIRST
        + "{{ '<|start_header_id|>system<|end_header_id|>"
        "\n\nToday: ' + date_string + '\n\n' + system + '<|eot_id|>' }}"
        "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' "
        "+ m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "Phi-3": _PHI.replace("NL", "\n"),
    "Phi-4-mini": _PHI.replace("NL", ""),
    "Gemma": (
        "{{ '<bos>' }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}{% for m in messages %}{{ '<start_of_turn>' + ('model' if "
        "m.role == 'assistant' else m.role) + '\n' + m.content + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "Mistral": (
        "{{ '<s>' }}" + _SYSTEM_FIRST + "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[INST] ' + (system + '\n\n' if loop.first and system else '') + m.content "
        "+ ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}"
    ),
    "Mistral 7B v0.3": (
        "{{ '<s>' }}{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '[INST] ' + m.content + '[/INST]' }}"
        "{% elif m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}"
    ),
}
UNKNOWN = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"


def open_template(folder: Path, template: str) -> Chat:
    """A chat of the toy tokenizer with this template."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_tokenizer(folder, template)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return open_chat(load_tokenizer(folder))
