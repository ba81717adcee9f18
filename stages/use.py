"""`make use PROFILE=...`: lay a profile over params.yaml."""

from pathlib import Path

import click

from blogtune.settings import obstacles, read_settings, use_profile
from stages.command import readable_errors


@click.command()
@click.argument("profile")
def main(profile: str) -> None:
    """Write PROFILE from profiles/ into params.yaml, and tell what of it cannot run yet."""
    with readable_errors():
        changes = use_profile(Path("profiles") / f"{profile}.yaml")
        for change in changes:
            click.echo(f"  {change}")
        click.echo(f"params.yaml holds the profile {profile} ({len(changes)} changes)")
        for obstacle in obstacles(read_settings()):
            click.secho(f"  before it runs: {obstacle}", fg="yellow")


if __name__ == "__main__":
    main()
