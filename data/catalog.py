"""The catalog and the builders that turn an archive's members into an asset's files."""

from functools import cache
from importlib import import_module
from pathlib import Path

from labkit.assets import Asset, Builder, fetch_asset, load_catalog
from labkit.cli import nearest
from labkit.errors import LabError

CATALOG = Path(__file__).with_name("catalog.toml")


@cache
def catalog() -> dict[str, Asset]:
    """Every asset by its name, in the order of catalog.toml."""
    return load_catalog(CATALOG)


def get(name: str) -> Asset:
    """One catalog entry.

    Raises:
        LabError: there is no such asset; the advice names the nearest one.
    """
    assets = catalog()
    if name not in assets:
        best = nearest(name, list(assets))
        raise LabError(f"no asset is called {name!r}", best or "python -m data list")
    return assets[name]


def builder(asset: Asset) -> Builder | None:
    """The function named by `build = "module:function"` in the catalog, imported when it is needed."""
    if not asset.build:
        return None
    module, _, function = asset.build.partition(":")
    return getattr(import_module(f"data.{module}"), function)


def fetch(name: str, source: str | None = None, deep: bool = False) -> Path:
    """The path of an asset (its one file, or its folder), downloaded and checked when it is absent.

    Raises:
        LabError: unknown name, no network, no space, or damaged downloads.
    """
    asset = get(name)
    return fetch_asset(asset, builder(asset), source, deep)
