"""The model card: what the model is, how to use it, what was measured, and what was not.

All figures come from the run's committed metrics, and the verdict stands on top. What a person or
a model wrote (names, licenses, a judge's reasons) is escaped.
"""

import re
from collections.abc import Iterator

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from blogtune.project.comparison_table import markdown_parts, plain
from blogtune.project.judge_table import markdown_judge_parts
from blogtune.project.layout import markdown_table
from blogtune.publishing.facts import Facts
from blogtune.publishing.usage import UNNAMED, usage

# Licenses that the hub knows by the same name in lower case.
COMMON = {
    *("apache-2.0", "mit", "isc", "zlib", "unlicense", "bsd-2-clause", "bsd-3-clause", "mpl-2.0"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0"),
}


def model_card(facts: Facts) -> str:
    """The text of README.md, metadata first; valid for the hub's own reader."""
    sections = [
        _head(facts),
        usage(facts.settings.publish, facts.settings.answer.max_tokens),
        _training(facts),
        _measured(facts),
        _limits(facts),
        _origin(facts),
    ]
    card = ModelCard(f"---\n{_metadata(facts).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")
    return str(card)


def escaped(text: str) -> str:
    """The text on one line, without a meaning in Markdown; what is invisible is spelled out."""
    line = " ".join(plain(str(text)).split())
    line = re.sub(r"([\\`*_\[\]<>|~&$@!#])", r"\\\1", line)
    line = re.sub(r"(?i)\b(www)\.", r"\1\\.", line)
    line = re.sub(r":(?=//)|:(?=\S)(?<=mailto:)|:(?<=xmpp:)", r"\:", line)
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", line)


def name(facts: Facts) -> str:
    """The model's name: the repository's, without its owner."""
    return (facts.settings.publish.repository or UNNAMED).split("/")[-1]


def _metadata(facts: Facts) -> ModelCardData:
    said = facts.license or "unknown"
    from_hub = facts.settings.model.scheme == "hub"
    known = from_hub or said.lower() in {*COMMON, "unknown", "other"}
    return ModelCardData(
        language=facts.settings.publish.language,
        license=said.lower() if known else "other",
        license_name=None if known else said,
        base_model=facts.settings.model.name if from_hub else None,
        datasets=facts.data_name if facts.fetched else None,
        library_name="mlx",
        pipeline_tag="text-generation",
        tags=["mlx", "lora", "blogtune"],
        model_name=name(facts),
        eval_results=_results(facts) or None,
    )


def _results(facts: Facts) -> list[EvalResult]:
    """The fused model's figures; an interval's ends are metrics too, a value being one number."""
    fused = facts.comparison["fused"]
    values = {
        "mean similarity": fused.get("mean"),
        "mean partial similarity": fused.get("partial_similarity"),
    }
    for key, title in (
        ("difference", "difference to base in similarity"),
        ("partial_similarity_difference", "difference to base in partial similarity"),
    ):
        interval = fused.get(key, {})
        confidence = f"{facts.comparison['confidence']:.0%} interval"
        values[title] = interval.get("mean")
        values[f"{title}, {confidence}, low"] = interval.get("low")
        values[f"{title}, {confidence}, high"] = interval.get("high")
    return [
        EvalResult(
            task_type="text-generation",
            task_name="question answering",
            dataset_type=facts.data_name if facts.fetched else "custom",
            dataset_name=facts.data_name,
            dataset_split=facts.settings.answer.split,
            metric_type="similarity",
            metric_name=f"{title} ({facts.fitness.method})",
            metric_value=value,
        )
        for title, value in values.items()
        if value is not None
    ]


def _head(facts: Facts) -> str:
    data = facts.data
    return "\n".join(
        [
            f"# {name(facts)}",
            "",
            f"> {escaped(facts.verdict)}",
            "",
            f"{escaped(_base_name(facts))}, fine-tuned with LoRA on the questions and answers of "
            f"{escaped(facts.data_name)} and merged with its adapter. It was trained and measured "
            "by blogtune, which wrote this card from the run's own figures.",
            "",
            f"- **Base model:** {escaped(_base_source(facts))}.{_dequantized(facts)}",
            f"- **License:** {escaped(facts.license or 'not stated')}, the base model's; it is "
            "this model's too.",
            f"- **Data:** {escaped(_data_source(facts))}, {data['pairs']} pairs of question and "
            f"answer from {data['posts']} posts: {data['train']} for training, "
            f"{data['validation']} for validation, {data['test']} for the test. Their license: "
            f"{escaped(facts.data_license or 'not stated')}.",
        ]
    )


def _base_name(facts: Facts) -> str:
    """What stands last in the source, such as SmolLM2-135M-Instruct.Q4_1.gguf."""
    return str(facts.base["source"]).partition(":")[2].rstrip("/").rpartition("/")[2]


def _base_source(facts: Facts) -> str:
    """Where the base came from; of a path its last name only, the rest is nobody's business."""
    source, origin, revision = (facts.base[key] for key in ("source", "origin", "revision"))
    if source.startswith("path:"):
        return _base_name(facts)
    return f"{source} ({origin}{f', revision {revision}' if revision else ''})"


def _data_source(facts: Facts) -> str:
    """The data's name; of a data set of the hub its commit too."""
    if not facts.fetched:
        return facts.data_name
    return f"{facts.fetched['source']} (revision {facts.fetched['revision']})"


def _dequantized(facts: Facts) -> str:
    if not facts.dequantized:
        return ""
    return (
        f" These weights were dequantized from {escaped(facts.dequantized)}: they are floats "
        "again, but what the quantization lost is lost."
    )


def _training(facts: Facts) -> str:
    train, lora, figures = facts.settings.train, facts.settings.train.lora, facts.training
    targets = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
    rows = [
        ("setting", "value"),
        ("method", {"lora": "LoRA", "dora": "DoRA"}[lora.kind]),
        ("adapted blocks, from the top", str(lora.layers)),
        (
            "adapted layers",
            escaped({"all": "all linear", "qkv": "query, key, value"}.get(targets, targets)),
        ),
        ("rank", str(lora.rank)),
        ("scale", str(lora.scale)),
        ("dropout", str(lora.dropout)),
        ("trainable parameters", f"{figures['trainable_parameters']:,}"),
        ("optimizer", f"{train.optimizer}, rate {train.learning_rate:g}, {train.schedule}"),
        ("steps", f"{train.iterations} of {train.batch_pairs * train.accumulate_batches} pairs"),
        ("seed", str(train.seed)),
    ]
    losses = [("step", "training loss", "validation loss")] + [
        (row["iteration"], row["train_loss"], row["validation_loss"]) for row in facts.history
    ]
    return "\n\n".join(
        [
            "## Training",
            markdown_table(rows),
            f"Loss in nats a token, on answers only. The weights are those of step "
            f"{figures['best_iteration']}, the best by validation loss: "
            f"{figures['base_validation_loss']:.3f} before training, "
            f"{figures['best_validation_loss']:.3f} there.",
            markdown_table(losses),
        ]
    )


# What training had of the part whose questions are answered.
SEEN = {
    "test": "which training never saw",
    "valid": "by whose loss the checkpoint was chosen, so that the figures flatter it",
}


def _measured(facts: Facts) -> str:
    table, *notes = markdown_parts(facts.comparison)
    judge_table, *judge_notes = markdown_judge_parts(facts.fitness)
    fusion, compare = facts.fusion, facts.settings.compare
    return "\n\n".join(
        [
            "## What was measured",
            f"Greedy answers of at most {facts.settings.answer.max_tokens} tokens to questions of "
            f"the {facts.settings.answer.split} part, {SEEN[facts.settings.answer.split]}. "
            "This repository holds *fused*; *finetuned* is the base with its adapter beside it.",
            table,
            "*Mean similarity* is that of the answers to the reference answers as the judge sees "
            f"it, *good* the share at {compare.good:g} or more, *poor* the share at "
            f"{compare.poor:g} or less. *Partial similarity* is what is left when what the "
            "question already said is taken out. The intervals are of the paired difference to "
            "the base on the same questions, clustered by post. The lower rows are baselines that "
            "no training made.",
            *map(escaped, notes),
            f"Merging changed nothing that counts: at {fusion['positions']} answer tokens both "
            f"models put the same token first in {fusion['top1_agreement']:.2%}, mean KL "
            f"divergence {fusion['mean_kl_micronats']:g} millionths of a nat.",
            "### Is the judge fit?",
            "It was tested on answers known to be right, spoiled or wrong. AUC is how often a "
            "right answer scores above one of that kind; 0.5 is chance.",
            judge_table,
            *map(escaped, judge_notes),
        ]
    )


def _limits(facts: Facts) -> str:
    return "\n".join(["## Limits", "", *(f"- {limit}" for limit in _each_limit(facts))])


def _each_limit(facts: Facts) -> Iterator[str]:
    yield (
        "The verdict holds for this model, on these questions, by this judge. A similarity says "
        "what an answer is about, not that it is true: check what it tells you."
    )
    if facts.settings.data.split.by == "pair":
        yield (
            "Each post was split between training and test, so the figures measure recall of told "
            "posts in other words, not knowledge of untold ones."
        )
    if facts.fitness.blind_spots:
        yield f"Known blind spots of the judge: {escaped(facts.fitness.blind_spots)}."
    if facts.comparison["near_duplicates"]:
        count = facts.comparison["near_duplicates"]
        yield f"{count} test questions nearly stand in the training data."
    mean = facts.comparison["fused"].get("mean", 0.0)
    nearest = facts.comparison.get("nearest_training_answer", {}).get("mean", 0.0)
    if nearest > mean:
        yield (
            f"A search that returns the nearest training answer scores {nearest:.3f}, above this "
            f"model's {mean:.3f}."
        )
    yield (
        "Measured: single questions, greedy. Not measured: conversations, other languages, other "
        "subjects, safety."
    )


def _origin(facts: Facts) -> str:
    return (
        f"## Where it comes from\n\nCommit `{facts.commit}` of the project that trained it; its "
        f"`dvc.lock` (sha256 `{facts.lock}`) names every input, parameter and output."
    )
