"""The Milvus server out of its Python package, as an asset: no environment of its own, nothing installed.

The wheel `milvus` 2.3.5 carries the real standalone server, a Go and C++ binary of 119 MB with the libraries it wants,
each packed with LZMA, and a configuration template. Its Python part only unpacks and starts them: it leaves etcd on
the fixed ports 2379 and 2380, so that two servers of one machine collide, and unpacks the 257 MB again into every data
folder. So this lab fetches the wheel like any other asset, by SHA-256, unpacks it once into the cache, and starts the
server itself (milvus_server.py).
"""

import lzma
import os
import platform
import shutil
import sys
from pathlib import Path

from labkit.assets import Asset, asset_state, fetch_asset
from labkit.errors import LabError

MILVUS_WHEEL = Asset(
    name="milvus-server",
    title="Milvus 2.3.5 standalone, the server",
    kind="program",
    language="",
    licence="Apache-2.0",
    publisher="Zilliz and contributors; package milvus",
    package="milvus",
    version="2.3.5",
    sha256="69515a0630ce29fd10e101fa442afea8ca1387b93a456cd9bd41fdf3deb93d04",
    download_bytes=57_692_521,
    kept_bytes=257_100_000,
    members=("milvus/data/*",),
    strip="milvus/data/",
    platform="manylinux2014_x86_64",
)


def server_folder() -> Path:
    """The unpacked server: `bin/`, `config.yaml.template`, `glog.conf`. Downloads 58 MB the first time.

    Raises:
        LabError: another system than Linux on x86-64, or no way to download.
    """
    if not has_wheel():
        raise LabError(f"the package milvus has no server for {sys.platform} on {platform.machine()}",
                       "MILVUS_URI=http://... of a server elsewhere (deploy/milvus), or milvus-lite")  # fmt: skip
    folder = fetch_asset(MILVUS_WHEEL, unpack)
    program = folder / "bin" / "milvus"
    if not os.access(program, os.X_OK):  # assets are kept as plain files
        program.chmod(0o755)
    return folder


def has_wheel() -> bool:
    """Whether the server runs on this machine."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def is_fetched() -> bool:
    """Whether the server is in the cache already."""
    return has_wheel() and asset_state(MILVUS_WHEEL) == "ready"


def unpack(members: Path, finished: Path) -> None:
    """The builder: every `*.lzma` becomes a program or library; the other files stay as they are."""
    (finished / "bin").mkdir()
    for packed in sorted((members / "bin").glob("*.lzma")):
        with lzma.open(packed) as source, open(finished / "bin" / packed.stem, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    for name in ("config.yaml.template", "glog.conf"):
        shutil.copyfile(members / name, finished / name)
