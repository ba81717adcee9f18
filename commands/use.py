"""`make use PROFILE=...`: lay a profile over params.yaml."""

import click

from blogtune.common.command import readable_errors
from blogtune.common.output import echo
from blogtune.project.settings import obstacles, profile_file, read_settings, use_profile


@click.command()
@click.argument("profile", envvar="PROFILE", default="")
def main(profile: str) -> None:
    """Write PROFILE from profiles/ into params.yaml, and tell what of it cannot run yet."""
    with readable_errors():
        changes = use_profile(profile_file(profile))
        for change in changes:
            echo(f"  {change}")
        count = "1 change" if len(changes) == 1 else f"{len(changes)} changes"
        echo(f"params.yaml holds the profile {profile}: {count}; other keys are as they were")
        for obstacle in obstacles(read_settings()):
            echo(f"  before it runs: {obstacle}", color="yellow")


if __name__ == "__main__":
    main()
