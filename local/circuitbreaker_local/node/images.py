"""Images without a registry and without Docker: buildah, around a base that debootstrap makes.

What a build reads is hashed; the result is an archive in the cache whose name carries the hash, so a second run builds
nothing. Layers stay in a storage of our own beside it. Each tool runs in mounts and processes of its own: however it
ends, it leaves none.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from circuitbreaker_local.cache import cache_folder, exclusive
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.node.packages import DEBIAN_KEYS
from circuitbreaker_local.processes import Process, tail
from circuitbreaker_local.progress import Report

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
BASE = "localhost/circuitbreaker-base"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
IGNORED = ".dockerignore"
KEPT = 3  # archives of one name: those of other checkouts and of the commit before
TICK_SECONDS = 0.5
ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Image:
    """What to build: `name:tag` from `dockerfile`, in the context `context`, of which it reads `sources`.

    `stages` are stages of the Dockerfile whose layers are worth keeping.
    """

    name: str
    tag: str
    dockerfile: Path
    context: Path
    sources: Sequence[str] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    stages: Sequence[str] = ()

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.tag}"

    @property
    def file_name(self) -> str:
        return self.reference.replace("/", "-").replace(":", "-")


def archives(images: Sequence[Image], report: Report) -> list[Path]:
    """An archive for each image, as `docker save` writes it; builds those that the cache lacks. Raises LocalError."""
    home = cache_folder() / "images"
    with exclusive(home, report):
        for left in home.glob(".building-*"):  # whoever began these was killed: we hold the lock
            shutil.rmtree(left, ignore_errors=True)
        return [_archive(image, home, report) for image in images]


def _archive(image: Image, home: Path, report: Report) -> Path:
    archive = home / f"{image.file_name}-{_key(image)}.tar"
    if archive.exists():
        archive.touch()
        return archive
    _base(home, report)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=home) as scratch:
        with report.step(f"building the image {image.reference}") as step:
            build = _Build(home, Path(scratch), step.tick)
            for stage in image.stages:
                build(image, stage=stage)
            build(image)
            built = Path(scratch) / "image.tar"
            build.buildah("push", "--quiet", _ours(image), f"docker-archive:{built}:{image.reference}")
            build.buildah("prune", "--force", may_fail=True)  # layers that no tag leads to any more
        built.rename(archive)
    ours = sorted(home.glob(f"{image.file_name}-*.tar"), key=lambda path: path.stat().st_mtime)
    for old in ours[:-KEPT]:
        old.unlink()
    return archive


def _ours(image: Image, stage: str = "") -> str:
    """Its name in our storage, where each is known by one tag, the newest."""
    return f"localhost/{image.file_name}{stage and '-' + stage}:latest"


def _key(image: Image) -> str:
    """Covers every byte that goes into the build, and where it goes."""
    digest = hashlib.sha256(json.dumps([_base_key(), image.reference, dict(image.arguments)]).encode())
    for place, path in _files(image):
        digest.update(f"{place}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _files(image: Image) -> Iterator[tuple[str, Path]]:
    """What a build reads, by names that are the same in every checkout."""
    yield "Dockerfile", image.dockerfile
    for ignored in (image.dockerfile.with_name(f"{image.dockerfile.name}.dockerignore"), image.context / IGNORED):
        if ignored.exists():
            yield ignored.name, ignored
    for source in image.sources:
        path = image.context / source
        if path.is_file():
            yield source, path
        elif path.is_dir():
            files = sorted(each for each in path.rglob("*") if each.is_file() and each.suffix != ".pyc")
            yield from ((str(each.relative_to(image.context)), each) for each in files)
        else:
            raise LocalError(f"{path}, of which {image.reference} is made, is not there")


def _base_key() -> str:
    return hashlib.sha256(json.dumps([SUITE, MIRROR, BASE_PACKAGES]).encode()).hexdigest()[:12]


def _base(home: Path, report: Report) -> None:
    """A stand-in for `python:3.13-slim`, of Debian's packages alone, in our storage."""
    archive = home / f"base-{_base_key()}.tar"
    if not archive.exists():
        with tempfile.TemporaryDirectory(prefix=".building-", dir=home) as scratch:
            folder = Path(scratch) / "root"
            with report.step("making the base image with debootstrap (once, about 1 minute)") as step:
                build = _Build(home, Path(scratch), step.tick)
                # Named, since a debootstrap that finds no keys by itself goes on, and checks nothing.
                options = ("--variant=minbase", f"--keyring={DEBIAN_KEYS}", f"--include={','.join(BASE_PACKAGES)}")
                build.run("debootstrap", *options, SUITE, str(folder), MIRROR)
                # What an image has no use for
                for waste in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
                    shutil.rmtree(folder / waste, ignore_errors=True)
                build.run(
                    "tar", "--create", "--one-file-system", f"--file={scratch}/base.tar", f"--directory={folder}", "."
                )
            (Path(scratch) / "base.tar").rename(archive)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=home) as scratch:
        build = _Build(home, Path(scratch), lambda: None)
        tag = f"{BASE}:{_base_key()}"
        if build.buildah("inspect", "--type=image", tag, may_fail=True):
            return
        (Path(scratch) / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        (Path(scratch) / "base.tar").hardlink_to(archive)
        build.buildah("build", "--quiet", f"--tag={tag}", scratch)


class _Build:
    """The tools, with our storage, and what they need to reach the package registries as this machine does."""

    def __init__(self, home: Path, scratch: Path, tick: Callable[[], None]) -> None:
        self._storage = home / "storage"
        self._scratch = scratch
        self._tick = tick

    def __call__(self, image: Image, stage: str = "") -> None:
        arguments = {"BASE_IMAGE": f"{BASE}:{_base_key()}"} | dict(image.arguments)
        self.buildah(
            "build",
            "--layers",
            "--isolation=chroot",
            "--pull=never",
            f"--file={image.dockerfile}",
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            *self._registries(),
            *([f"--target={stage}"] if stage else []),
            f"--tag={_ours(image, stage)}",
            str(image.context),
        )

    def buildah(self, command: str, *words: str, may_fail: bool = False) -> bool:
        storage = (f"--root={self._storage}", f"--runroot={self._scratch / 'run'}", "--storage-driver=overlay")
        return self.run("buildah", *storage, command, *words, may_fail=may_fail)

    def run(self, *command: str, may_fail: bool = False) -> bool:
        """Whether it succeeded. Raises LocalError with the end of what it said, unless it `may_fail`."""
        log = self._scratch / "log"
        log.unlink(missing_ok=True)
        program = shutil.which(ALONE[0]) or ALONE[0]
        with Process([program, *ALONE[1:], *command], log=log) as process:
            while True:
                try:
                    returncode = process.wait(TICK_SECONDS)
                except subprocess.TimeoutExpired:
                    self._tick()
                else:
                    break
        if returncode != 0 and not may_fail:
            raise LocalError(
                f"{tail(log, 30)}\n{' '.join(command[:1])} failed; above are the last lines of what it said"
            )
        return returncode == 0

    def _registries(self) -> Iterator[str]:
        """The machine's own authorities and index for pip and uv, as files that leave no trace in the image."""
        settings = {"pip.conf": "[global]\n", "uv.toml": "native-tls = true\n"}
        index = os.environ.get("PIP_INDEX_URL") or os.environ.get("UV_DEFAULT_INDEX")
        if index:
            settings["pip.conf"] += f"index-url = {index}\n"
            settings["uv.toml"] += f"[[index]]\nurl = {json.dumps(index)}\ndefault = true\n"
        authorities = next(
            (
                Path(path)
                for path in map(os.environ.get, ("PIP_CERT", "SSL_CERT_FILE"))
                if path and Path(path).is_file()
            ),
            AUTHORITIES,
        )
        if authorities.is_file():
            settings["pip.conf"] += f"cert = {AUTHORITIES}\n"
            yield f"--volume={authorities}:{AUTHORITIES}:ro"
        for (name, text), target in zip(settings.items(), ("/etc/pip.conf", "/etc/uv/uv.toml"), strict=True):
            path = self._scratch / name
            path.write_text(text)
            yield f"--volume={path}:{target}:ro"
