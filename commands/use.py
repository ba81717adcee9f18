"""`make use PROFILE=...`: lay a profile over params.yaml."""

import click

from blogtune.common.command import readable_errors
from blogtune.project.settings import obstacles, profile_file, read_settings, use_profile


@click.command()
@click.argument("profile", envvar="PROFILE", default="")
def main(profile: str) -> None:
    """Write PROFILE from profiles/ into params.yaml, and tell what of it cannot run yet."""
    with readable_errors():
        changes = use_profile(profile_file(profile))
        for change in changes:
            click.echo(f"  {change}")
        count = "1 change" if len(changes) == 1 else f"{len(changes)} changes"
        click.echo(f"params.yaml holds the profile {profile}: {count}; other keys are as they were")
        for obstacle in obstacles(read_settings()):
            click.secho(f"  before it runs: {obstacle}", fg="yellow")


if __name__ == "__main__":
    main()
