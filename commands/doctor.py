"""`make doctor`: what this machine has, what the settings need, what to do."""

import click

from blogtune.common.command import readable_errors
from blogtune.common.output import echo
from blogtune.project.doctor import examine
from blogtune.project.settings import read_settings


@click.command()
def main() -> None:
    """Print one line for each finding; exit with status 1 if something is lacking."""
    lacking = 0
    with readable_errors():
        for finding in examine(read_settings()):
            mark, color = ("lack", "red") if finding.remedy else (" ok ", None)
            echo(f"[{mark}] {finding.name}: {finding.value}", color=color)
            if finding.remedy:
                echo(f"       {finding.remedy}")
                lacking += 1
    raise SystemExit(min(lacking, 1))


if __name__ == "__main__":
    main()
