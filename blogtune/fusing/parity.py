"""Is the fused model the adapted one? Compared on the same text, token by token.

Teacher-forced: both models read question and reference answer, one model after the other, so that
memory holds one, and their distributions are compared at every answer token.
KL(adapted || fused) = sum p log(p / q) in nats; top-1 agreement is the share of positions at which
both would choose the same token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from blogtune.common.errors import UserError
from blogtune.common.progress import progress
from blogtune.common.records import Pair
from blogtune.fusing.params import FuseParams
from blogtune.models.chat import open_chat
from blogtune.models.loading import LoadedModel, is_quantized, load_model
from blogtune.models.reading import read_answers
from blogtune.runtime.device import device

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """How far the fused model departs from the adapted one, over `positions` answer tokens.

    `quantized` tells that the fused weights are, which means: again, with the adapter in them.
    """

    positions: int
    top1_agreement: float
    mean_kl: float
    max_kl: float
    quantized: bool = False

    def metrics(self) -> dict[str, float]:
        """For metrics/fusion.json; KL in millionths, because DVC shows five digits only."""
        return {
            "positions": self.positions,
            "top1_agreement": round(self.top1_agreement, 6),
            "mean_kl_micronats": round(self.mean_kl * 1e6, 3),
            "max_kl_micronats": round(self.max_kl * 1e6, 3),
        }

    def check(self, params: FuseParams, dtype: str = "") -> None:
        """Raise UserError when the fused model departs beyond the limits.

        `dtype` is the float type that its weights are stored in, where that may be why.
        """
        # Put so that a divergence which is no number does not pass.
        near = self.mean_kl <= params.max_kl
        if not near or self.top1_agreement < params.min_top1_agreement:
            raise UserError(
                f"the fused model departs from the adapted one: mean KL {self.mean_kl:.2e} "
                f"(fuse.max_kl {params.max_kl:.0e}), top-1 agreement {self.top1_agreement:.4f} "
                f"(fuse.min_top1_agreement {params.min_top1_agreement})",
                remedy=self._remedy(dtype),
            )

    def _remedy(self, dtype: str) -> str:
        if self.quantized:
            return "quantizing again caused it; set fuse.dequantize: true, or raise the limits"
        if dtype == "bfloat16":
            kept = "bfloat16 keeps 8 bits of a merged weight"
            return f"{kept}; set fuse.dtype: float16 or float32, or raise the limits"
        return "do not ship it"


def load(folder: Path, adapter: Path | None = None) -> LoadedModel:
    """A model whose distributions are to be compared.

    In float32: what a half type rounds at every sum is more than what merging rounds.
    """
    model = load_model(folder, device().dtype, adapter)
    compute_in_float32(model.network)
    return model


def compute_in_float32(network: nn.Module) -> None:
    """Let what runs through the network be float32, whatever type its weights are stored in.

    A product of two types is computed in the wider one, so what the embedding gives decides.
    """
    for _, module in network.named_modules():
        if isinstance(module, (nn.Embedding, nn.QuantizedEmbedding)):
            module.set_dtype(mx.float32)


def expected(
    model: LoadedModel, pairs: Sequence[Pair], params: FuseParams
) -> Iterator[tuple[int, Logits]]:
    """Yield (place, the model's logits at every answer token) of the first `params.parity_pairs`.

    They have the shape (answer tokens, vocabulary), and come in any order.
    """
    chat = open_chat(model.tokenizer)
    chosen = pairs[: params.parity_pairs]
    prompts = [chat.prompt(pair.question, pair.context) for pair in chosen]
    answers = [chat.answer(pair.answer)[:-1] for pair in chosen]
    read = read_answers(model.network, prompts, answers)
    for place, logits in progress(read, desc="parity", unit="pairs", total=len(chosen)):
        yield place, np.asarray(logits)


def compare(
    adapted: Mapping[int, Logits], fused: LoadedModel, pairs: Sequence[Pair], params: FuseParams
) -> Parity:
    """Compare what the adapted model expected of the pairs, by place, with what `fused` expects.

    `fused` is the model as it ships, loaded from its own folder: rounded, and perhaps quantized.
    """
    divergences: list[npt.NDArray[np.float64]] = []
    agreements: list[npt.NDArray[np.bool_]] = []
    for place, theirs in expected(fused, pairs, params):
        both = adapted[place], theirs
        p, q = (log_softmax(logits.astype(np.float64), axis=1) for logits in both)
        divergences.append(np.sum(np.exp(p) * (p - q), axis=1))
        agreements.append(p.argmax(axis=1) == q.argmax(axis=1))
    divergence = np.concatenate(divergences)
    return Parity(
        positions=len(divergence),
        top1_agreement=float(np.concatenate(agreements).mean()),
        mean_kl=float(divergence.mean()),
        max_kl=float(divergence.max()),
        quantized=is_quantized(fused.network),
    )
