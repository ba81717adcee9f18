"""`make pin`: look up hub commits and Ollama digests and write them into params.yaml."""

import click

from blogtune.common.command import readable_errors
from blogtune.common.output import echo
from blogtune.common.sources import DatasetParams, ModelParams
from blogtune.fetching.hub import look_up
from blogtune.judging.params import OneJudge
from blogtune.ollama.client import OllamaModel
from blogtune.project.settings import PINNED, read_settings, set_value


@click.command()
def main() -> None:
    """Pin models and data set; a source that cannot change behind its name needs no pin."""
    with readable_errors():
        settings = read_settings()
        judges = {f"{name}.model": judge for name, judge in settings.judges().items()}
        for name, source in settings.sources().items():
            if source.scheme not in PINNED:
                echo(f"{name}: {source.source} needs no pin")
                continue
            revision = _look_up(source, judges.get(name))
            set_value(f"{name}.revision", revision)
            moved = "unchanged" if revision == source.revision else f"was {source.revision}"
            echo(f"{name}.revision: {revision} ({moved})")


def _look_up(source: ModelParams | DatasetParams, judge: OneJudge | None) -> str:
    if isinstance(source, DatasetParams):
        return look_up(source.name, "dataset").commit
    if source.scheme == "hub" or judge is None:
        return look_up(source.name, "model").commit
    server = OllamaModel(source.name, judge.host, judge.timeout_seconds)
    return server.require(pull=judge.pull)


if __name__ == "__main__":
    main()
