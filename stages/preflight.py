"""Before any work: is params.yaml valid, and can all of it run?"""

import click

from blogtune.errors import UserError
from blogtune.settings import obstacles, read_settings
from stages.command import readable_errors


@click.command()
def main() -> None:
    """Check params.yaml as a whole; called by `make repro`."""
    with readable_errors():
        found = obstacles(read_settings())
        if found:
            raise UserError("\nerror: ".join(found))


if __name__ == "__main__":
    main()
