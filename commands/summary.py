"""What `make repro` ends with: the table, the verdict, where to look next."""

import click

from blogtune.common.command import readable_errors
from blogtune.common.output import echo
from blogtune.comparing.results import read_comparison
from blogtune.probing.results import read_knowledge
from blogtune.project.comparison_table import closing_table, markdown_table
from blogtune.project.lock import warn_if_stale

NEXT = """
next: make chat    ask both models something
      make show    the best and the worst changes, with their answers
      make diff    base against fine-tuned, figure by figure
      make judge   what the judge can tell apart, and what not
      dvc plots show; metrics/comparison.json; params.yaml"""


@click.command()
@click.option("--markdown", is_flag=True, help="As Markdown, for a pull request.")
def main(*, markdown: bool) -> None:
    """Print metrics/comparison.json as a table, with the verdict and what the models know."""
    with readable_errors():
        comparison, knowledge = read_comparison(), read_knowledge()
        if markdown:
            # Alone, not at the end of the run that made them.
            warn_if_stale()
            echo(markdown_table(comparison, knowledge))
        else:
            echo(closing_table(comparison, knowledge))
            echo(NEXT)


if __name__ == "__main__":
    main()
