"""Which files of a model's folder are the model: named ones, and nothing that lies beside them.

What is copied from folder to folder ends on a hub or at an Ollama server; notes and lists of one's
own in such a folder (`*.txt`, `*.json`) are nobody's business there.
"""

from fnmatch import fnmatchcase
from pathlib import Path

from blogtune.common.errors import UserError

# Weights come under the names that mlx-lm and transformers load; others are the same weights again
# (consolidated.safetensors, model.fp16.safetensors).
SINGLE, SHARD = "model.safetensors", "model*-of-*.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tekken.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("chat_template.jinja", "chat_template.json"),
)
CONFIG = ("config.json", "generation_config.json", "hf_quant_config.json")
# An encoder's, as sentence-transformers names them.
ENCODER = (
    *("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
    *("1_Pooling/config.json", "data_config.json"),
)
OF_VISION = ("preprocessor_config.json", "processor_config.json")
TERMS = ("LICENSE.txt", "NOTICE.txt", "USE_POLICY.txt")
BESIDE_WEIGHTS = frozenset((*TOKENIZER, *CONFIG, *ENCODER, *OF_VISION, *TERMS))


def is_of_model(path: str) -> bool:
    """Whether a path in a model's folder is one that the model is loaded from."""
    weights = path in (SINGLE, INDEX) or ("/" not in path and fnmatchcase(path, SHARD))
    return weights or path in BESIDE_WEIGHTS


def check_stays(file: Path, folder: Path) -> None:
    """Raise UserError for a link that leads out of the folder, to a file that nobody meant.

    The hub's own cache is kept so: snapshots/<commit>/ leads to blobs/ beside it.
    """
    target, root = file.resolve(), folder.resolve()
    blobs = root.parent.parent / "blobs"
    if not target.is_relative_to(root) and target.parent != blobs:
        raise UserError(
            "a link that leads out of the model's folder",
            where=file,
            remedy="put the file itself there",
        )
