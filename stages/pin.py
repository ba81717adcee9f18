"""`make pin`: look up the commits of hub sources and write them into params.yaml."""

import click

from blogtune.models.pin import hub_commit
from blogtune.settings import read_settings, set_value
from stages.command import readable_errors


@click.command()
def main() -> None:
    """Pin model and judge.model; a source that is not on the hub needs no pin."""
    with readable_errors():
        settings = read_settings()
        models = {"model": settings.model, "judge.model": settings.judge.model}
        for name, model in models.items():
            if not model.source.startswith("hub:"):
                click.echo(f"{name}: {model.source} needs no pin")
                continue
            commit = hub_commit(model.source.removeprefix("hub:"))
            set_value(f"{name}.revision", commit)
            moved = "unchanged" if commit == model.revision else f"was {model.revision}"
            click.echo(f"{name}.revision: {commit} ({moved})")


if __name__ == "__main__":
    main()
