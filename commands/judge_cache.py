"""`make judge-cache`: what is kept of the judges' verdicts, and PRUNE=1 for what no judge needs."""

from pathlib import Path

import click

from blogtune.common.command import readable_errors
from blogtune.common.output import echo
from blogtune.judging.cache import digest, open_cache
from blogtune.judging.judge import identity
from blogtune.project.settings import read_settings

FOLDERS = {"judge": Path("models/judge"), "judge.second": Path("models/second")}


@click.command()
@click.option("--prune", is_flag=True, help="Drop what the judges in params.yaml did not make.")
def main(prune: bool) -> None:
    """Show how many verdicts are kept, by judge and method."""
    with readable_errors():
        cache = open_cache()
        if prune:
            judges = read_settings().judges().items()
            made = {digest(identity(judge, FOLDERS[name]) or {}) for name, judge in judges}
            dropped = cache.prune(lambda entry: entry.judge in made)
            echo(f"dropped {dropped} verdicts of other judges")
        groups = cache.groups()
        for group, count in sorted(groups.items()):
            echo(f"{count:8} {group.model}, {group.method}")
        echo(f"{groups.total():8} verdicts, {cache.bytes()} bytes in {cache.file}")


if __name__ == "__main__":
    main()
