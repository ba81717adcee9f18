"""Chat templates of the most used model families, written from what their documentation says of
the text that a conversation becomes; the words are ours, the tokens theirs.

Those whose replies cannot be taught from plain answers are named with what refuses them.
"""

# DeepSeek writes its tokens with other bars and blanks.
# ruff: noqa: RUF001

from dataclasses import dataclass

_ROLE = "{% for m in messages %}"
_END = "{% endfor %}"
_REPLY = "{% if add_generation_prompt %}"
_SYSTEM = (
    "{% if messages[0].role == 'system' %}{% set told = messages[0].content %}"
    "{% set turns = messages[1:] %}{% else %}{% set told = '' %}{% set turns = messages %}"
    "{% endif %}"
)


@dataclass(frozen=True)
class Template:
    """A family's template, the tokens that it writes, and what is said where it is refused."""

    text: str
    specials: tuple[str, ...]
    end: str
    eos: str
    refused: str | None = None


def _chatml(*, default: str = "", finished: str = "", opened: str = "") -> str:
    """`finished` stands before the words of the last reply, `opened` ends the prompt."""
    first = (
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\n"
        + default
        + "<|im_end|>\n' }}{% endif %}"
        if default
        else ""
    )
    return (
        first
        + "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        + "{% if m.role == 'assistant' and loop.last %}{{ '"
        + finished
        + "' }}{% endif %}"
        + "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        + _REPLY
        + "{{ '<|im_start|>assistant\n"
        + opened
        + "' }}{% endif %}"
    )


_IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_THOUGHT = "<think>\n\n</think>\n\n"
_LLAMA = "<|start_header_id|>{}<|end_header_id|>\n\n"
_GRANITE = "<|start_of_role|>{}<|end_of_role|>"

FAMILIES = {
    "ChatML": Template(_chatml(), _IM, "<|im_end|>", "<|im_end|>"),
    "Llama 3.x": Template(
        "{{ '<|begin_of_text|>' }}" + _SYSTEM + "{{ '" + _LLAMA.format("system") + "' }}"
        "{{ 'Today Date: ' + (date_string or strftime_now('%d %b %Y')) + '\n\n' + told }}"
        "{{ '<|eot_id|>' }}{% for m in turns %}{{ '<|start_header_id|>' + m.role + "
        "'<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
        + _REPLY
        + "{{ '"
        + _LLAMA.format("assistant")
        + "' }}{% endif %}",
        (
            "<|end_of_text|>",
            "<|begin_of_text|>",
            "<|eot_id|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
        ),
        "<|eot_id|>",
        "<|eot_id|>",
    ),
    "Qwen2.5": Template(_chatml(default="You help."), _IM, "<|im_end|>", "<|im_end|>"),
    "Qwen3": Template(
        _chatml(finished=_THOUGHT, opened="{OPENED}").replace(
            "{OPENED}' }}",
            "' }}{% if enable_thinking is false %}{{ '" + _THOUGHT + "' }}{% endif %}",
        ),
        _IM,
        "<|im_end|>",
        "<|im_end|>",
    ),
    "Qwen3, thinking only": Template(
        _chatml(opened="<think>\n"), _IM, "<|im_end|>", "<|im_end|>", "opens a reply with '<think>"
    ),
    "Phi-3": Template(
        _ROLE
        + "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}"
        + _END
        + _REPLY
        + "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        "<|end|>",
        "<|endoftext|>",
    ),
    "Phi-4": Template(
        _ROLE
        + "{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}"
        + _END
        + _REPLY
        + "{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
        (*_IM, "<|im_sep|>"),
        "<|im_end|>",
        "<|endoftext|>",
    ),
    "Mistral v0.3": Template(
        "{{ '<s>' }}" + _SYSTEM + "{% for m in turns %}{% if m.role == 'user' %}"
        "{{ '[INST] ' + (told + '\n\n' if loop.last and told else '') + m.content + '[/INST]' }}"
        "{% else %}{{ ' ' + m.content | trim + '</s>' }}{% endif %}{% endfor %}",
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        "</s>",
        "</s>",
    ),
    "Mistral Small": Template(
        "{{ '<s>[SYSTEM_PROMPT]Today is ' + strftime_now('%Y-%m-%d') + '[/SYSTEM_PROMPT]' }}"
        "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ m.content + '</s>' }}{% endif %}{% endfor %}",
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        "</s>",
        "</s>",
    ),
    "Gemma 2 and 3": Template(
        "{{ '<bos>' }}{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}"
        "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else "
        "m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
        + _REPLY
        + "{{ '<start_of_turn>model\n' }}{% endif %}",
        ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        "<eos>",
    ),
    "SmolLM2": Template(_chatml(default="You are SmolLM."), _IM, "<|im_end|>", "<|im_end|>"),
    "SmolLM3": Template(
        "{{ '<|im_start|>system\nToday: ' + strftime_now('%d %B %Y') + '\n<|im_end|>\n' }}"
        + _chatml(finished="<think>\n\n</think>\n", opened="<think>\n\n</think>\n"),
        _IM,
        "<|im_end|>",
        "<|im_end|>",
    ),
    "DeepSeek V3": Template(
        "{{ '<｜begin▁of▁sentence｜>' }}" + _SYSTEM + "{{ told }}{% for m in turns %}"
        "{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% else %}"
        "{{ '<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
        + _REPLY
        + "{{ '<｜Assistant｜>' }}{% endif %}",
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        "<｜end▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
    ),
    "DeepSeek R1": Template(
        "{{ '<｜begin▁of▁sentence｜>' }}{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '<｜User｜>' + m.content }}{% elif m.role == 'assistant' %}{{ '<｜Assistant｜>' + "
        "m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
        + _REPLY
        + "{{ '<｜Assistant｜><think>\n' }}{% endif %}",
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        "<｜end▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "opens a reply with '<think>",
    ),
    "gpt-oss (harmony)": Template(
        "{{ '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}"
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
        "{{ '<|return|>' if loop.last else '<|end|>' }}{% else %}"
        "{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
        + _REPLY
        + "{{ '<|start|>assistant' }}{% endif %}",
        ("<|endoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"),
        "<|return|>",
        "<|return|>",
    ),
    "OLMo 2": Template(
        "{{ eos_token }}" + _ROLE + "{{ '<|' + m.role + '|>\n' + m.content }}"
        "{{ (eos_token if loop.last else eos_token + '\n') if m.role == 'assistant' else '\n' }}"
        + _END
        + _REPLY
        + "{{ '<|assistant|>\n' }}{% endif %}",
        ("<|endoftext|>",),
        "<|endoftext|>",
        "<|endoftext|>",
    ),
    "Granite 3": Template(
        "{{ '" + _GRANITE.format("system") + "Today is ' + strftime_now('%B %d, %Y') + "
        "'.<|end_of_text|>\n' }}" + _ROLE + "{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + "
        "m.content + '<|end_of_text|>\n' }}"
        + _END
        + _REPLY
        + "{{ '"
        + _GRANITE.format("assistant")
        + "' }}{% endif %}",
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        "<|end_of_text|>",
        "<|end_of_text|>",
    ),
    "content as parts": Template(
        _ROLE + "{{ '<|im_start|>' + m.role + '\n' }}{% for part in m.content %}{{ part.text }}"
        "{% endfor %}{{ '<|im_end|>\n' }}"
        + _END
        + _REPLY
        + "{{ '<|im_start|>assistant\n' }}{% endif %}",
        _IM,
        "<|im_end|>",
        "<|im_end|>",
        "leaves the question out of the prompt",
    ),
}
