"""Before any work: what a kill left is mended; is params.yaml valid, can all of it run, and what
will be fetched?
"""

import click

from blogtune.common.command import readable_errors, refuse
from blogtune.common.errors import Problem
from blogtune.common.output import echo
from blogtune.project.doctor import ollama
from blogtune.project.mending import check_git, mend
from blogtune.project.needs import needs_of
from blogtune.project.settings import obstacles, read_settings


@click.command()
def main() -> None:
    """Check params.yaml as a whole, and the disk before a download; called by `make repro`."""
    with readable_errors():
        check_git()
        for mended in mend():
            echo(mended)
        settings = read_settings()
        found = obstacles(settings)
        if found:
            refuse(found)
        needs = needs_of(settings)
        if needs.downloads:
            echo("\n".join(needs.lines()))
            for finding in ollama(settings):
                echo(str(Problem(finding.value, "judge", finding.remedy)))
            needs.check_disk()


if __name__ == "__main__":
    main()
