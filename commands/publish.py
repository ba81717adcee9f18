"""`make publish`: put the fused model on the hub, with its card; no stage of dvc.yaml."""

from itertools import chain

import click
from huggingface_hub import HfApi, get_token

from blogtune.common.command import readable_errors, refuse
from blogtune.common.errors import UserError
from blogtune.common.files import write_json
from blogtune.common.output import echo
from blogtune.fetching.surroundings import prepare_client
from blogtune.project.settings import read_settings
from blogtune.publishing.bundle import CARD, made_entry, read_entries
from blogtune.publishing.card import model_card
from blogtune.publishing.checks import obstacles
from blogtune.publishing.facts import read_facts
from blogtune.publishing.receipt import RECEIPT, read_receipt
from blogtune.publishing.upload import Target, publish


@click.command()
@click.option("--dry-run", is_flag=True, help="Show card and files; no token, no network.")
@click.option("--even-if-worse", is_flag=True, help="Publish even if the verdict is worse.")
def main(*, dry_run: bool, even_if_worse: bool) -> None:
    """Upload models/fused and what `publish` adds, and write metrics/published.json."""
    with readable_errors():
        facts = read_facts(read_settings())
        params = facts.settings.publish
        folders = read_entries(params)
        card = model_card(facts)
        entries = [made_entry(CARD, card.encode()), *chain.from_iterable(folders.values())]
        found = list(obstacles(facts, folders, even_if_worse=even_if_worse))
        if dry_run:
            echo(f"{card}\n" + "\n".join(f"{e.size:14,}  {e.path}" for e in entries))
            echo("".join(f"would not publish: {e}\n" for e in found), err=True, end="")
            return
        if found:
            refuse(found)
        repository = params.repository or ""  # null was among the obstacles
        previous, token = read_receipt(repository), get_token()
        if token is None:
            remedy = "run `hf auth login`, or set HF_TOKEN"
            raise UserError("no token for the hub", remedy=remedy)
        prepare_client()
        target = Target(HfApi(token=token), repository, params.private, previous)
        receipt, changes = publish(target, entries, source_commit=facts.commit, dvc_lock=facts.lock)
        write_json(RECEIPT, receipt.model_dump())
        done = f"published, files changed: {changes}" if changes else "all of it was there already"
        echo(f"{done}: {receipt.commit_url}\nnext: commit {RECEIPT}")


if __name__ == "__main__":
    main()
