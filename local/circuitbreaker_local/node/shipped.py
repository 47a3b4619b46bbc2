"""The images of this project, and those that a node needs beside them."""

from pathlib import Path

from circuitbreaker_local.node.images import Image

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILES = ROOT / "local" / "node" / "images"
OPERATOR_SOURCES = (
    *("build-requirements.txt", "pyproject.toml", "uv.lock", "README.md", "LICENSE"),
    *("contract", "clients", "operator"),
)
SAMPLE_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "contract", "clients", "examples/mcp-app")


def operator(tag: str) -> Image:
    """The operator's, from the Dockerfile that is shipped."""
    return Image(
        "docker.io/library/circuitbreaker-operator",  # how a name without a registry is completed
        tag,
        dockerfile=ROOT / "Dockerfile",
        context=ROOT,
        sources=OPERATOR_SOURCES,
        arguments={"VERSION": tag},
        stages=("build",),
    )


def sample() -> Image:
    """The sample application's."""
    return Image(
        "docker.io/library/circuitbreaker-sample",
        "dev",
        dockerfile=ROOT / "examples" / "kubernetes" / "Dockerfile",
        context=ROOT,
        sources=SAMPLE_SOURCES,
        stages=("libraries", "build"),
    )


def redis() -> Image:
    """A stand-in for the one of components/redis."""
    return Image("localhost/redis", "7", dockerfile=DOCKERFILES / "redis.Dockerfile", context=DOCKERFILES)


def pause(program: Path) -> Image:
    """What holds the namespaces of a pod."""
    return Image(
        "localhost/pause",
        "1",
        dockerfile=DOCKERFILES / "pause.Dockerfile",
        context=program.parent,
        sources=(program.name,),
    )
