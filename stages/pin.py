"""`make pin`: look up hub commits and Ollama digests and write them into params.yaml."""

import click

from blogtune.judging.params import OneJudge
from blogtune.models.ollama import OllamaModel
from blogtune.models.params import ModelParams
from blogtune.models.pin import hub_commit
from blogtune.settings import PINNED, read_settings, set_value
from stages.command import readable_errors


@click.command()
def main() -> None:
    """Pin every model; a source that cannot change behind its name needs no pin."""
    with readable_errors():
        settings = read_settings()
        judges = {f"{name}.model": judge for name, judge in settings.judges().items()}
        for name, model in settings.models().items():
            if model.scheme not in PINNED:
                click.echo(f"{name}: {model.source} needs no pin")
                continue
            revision = _look_up(model, judges.get(name))
            set_value(f"{name}.revision", revision)
            moved = "unchanged" if revision == model.revision else f"was {model.revision}"
            click.echo(f"{name}.revision: {revision} ({moved})")


def _look_up(model: ModelParams, judge: OneJudge | None) -> str:
    if model.scheme == "hub" or judge is None:
        return hub_commit(model.name)
    server = OllamaModel(model.name, judge.host, judge.timeout_seconds)
    return server.require(pull=judge.pull)


if __name__ == "__main__":
    main()
