"""The arrows between the rooms: client -> contract <- operator, conformance -> contract, and nothing else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuitbreaker_cli.catalogue import COMMANDS

ROOT = Path(__file__).parents[2]
ROOMS = {
    "circuitbreaker_contract": ROOT / "contract",
    "circuitbreaker_conformance": ROOT / "contract",
    "circuitbreaker_client": ROOT / "clients" / "python",
    "circuitbreaker_operator": ROOT / "operator",
    "circuitbreaker_cli": ROOT / "cli",
    "circuitbreaker_local": ROOT / "local",
}
# What each room may import beside the standard library and itself.
ALLOWED = {
    "circuitbreaker_contract": set(),
    "circuitbreaker_conformance": {"circuitbreaker_contract", "redis", "yaml"},
    "circuitbreaker_client": {"circuitbreaker_contract", "redis"},
    "circuitbreaker_operator": {
        "circuitbreaker_contract",
        "aiohttp",
        "kopf",
        "kubernetes",
        "msgspec",
        "prometheus_client",
        "pydantic",
        "pydantic_core",
        "pydantic_settings",
        "redis",
    },
    "circuitbreaker_cli": {
        "circuitbreaker_contract",
        "circuitbreaker_operator",
        "pydantic",
        "redis",
        "rich",
        "typer",
        "yaml",
    },
    "circuitbreaker_local": {
        "circuitbreaker_client",
        "circuitbreaker_contract",
        "circuitbreaker_operator",
        "pytest",
        "redis",
    },
}
# An optional library of the client, and the one module that may import it: who has not got it can use all the others.
OPTIONAL = {
    ("circuitbreaker_client", "aiohttp.py"): {"aiohttp"},
    ("circuitbreaker_client", "httpx.py"): {"httpx"},
    ("circuitbreaker_client", "opentelemetry.py"): {"opentelemetry"},
    ("circuitbreaker_client", "prometheus.py"): {"prometheus_client"},
    ("circuitbreaker_client", "requests.py"): {"requests"},
}
PURE = [  # modules of the operator that decide; they may not do
    "plan",
    "status",
    "events",
    "models",
]
# The rooms of the plugin, the program on top and what it stands on at the bottom: each knows only what is below it.
# Those of one floor do not know each other.
FLOORS_OF_THE_CLI = [
    {"entry"},
    {"completion", "main"},
    {"catalogue"},  # it imports a command by its name
    {"commands"},
    {"options"},
    {"remote", "formats"},
    {"checks", "simulation", "terminal"},
    {"breakers"},
    {"marks"},
    {"words"},
    {"errors"},
]
PURE_OF_THE_CLI = ["breakers", "checks", "simulation", "formats", "marks", "words"]
IO = {"aiohttp", "asyncio", "kopf", "kubernetes", "redis", "socket", "subprocess", "threading", "time"}


def imported(path: Path) -> Iterator[str]:
    """The top-level names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("room", [name for name, root in ROOMS.items() if root.exists()])
def test_a_room_imports_only_what_it_may(room: str) -> None:
    """The contract imports neither redis nor kopf; client and operator never import each other."""
    import sys

    allowed = ALLOWED[room] | {room} | set(sys.stdlib_module_names)
    found = {(path.name, name) for path in (ROOMS[room] / room).rglob("*.py") for name in imported(path)}
    assert {pair for pair in found if pair[1] not in allowed | OPTIONAL.get((room, pair[0]), set())} == set()


@pytest.mark.parametrize("module", PURE)
def test_what_decides_does_nothing(module: str) -> None:
    """Decisions are pure: they import nothing that reaches out of the process or reads a clock."""
    assert set(imported(ROOMS["circuitbreaker_operator"] / "circuitbreaker_operator" / f"{module}.py")) & IO == set()


def modules_of_the_cli(room: str) -> list[Path]:
    """Of a folder all, of a file itself."""
    place = ROOMS["circuitbreaker_cli"] / "circuitbreaker_cli" / room
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def rooms_known(path: Path) -> Iterator[str]:
    """The rooms of the plugin that a file of it imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "circuitbreaker_cli":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("circuitbreaker_cli."):
            yield str(node.module).split(".")[1]


def test_every_room_of_the_plugin_has_a_floor() -> None:
    folder = ROOMS["circuitbreaker_cli"] / "circuitbreaker_cli"
    there = {each.stem for each in folder.iterdir() if each.suffix == ".py" or (each / "__init__.py").exists()}
    assert there - {"__init__"} == set().union(*FLOORS_OF_THE_CLI)


@pytest.mark.parametrize("floor", range(len(FLOORS_OF_THE_CLI)))
def test_imports_of_the_plugin_go_down(floor: int) -> None:
    below = set().union(*FLOORS_OF_THE_CLI[floor + 1 :])
    found = {
        (str(path), known)
        for room in FLOORS_OF_THE_CLI[floor]
        for path in modules_of_the_cli(room)
        for known in rooms_known(path)
        if known != room
    }
    assert {pair for pair in found if pair[1] not in below} == set()


@pytest.mark.parametrize("room", PURE_OF_THE_CLI)
def test_what_decides_at_the_terminal_does_nothing(room: str) -> None:
    """The plugin's decisions are pure as well."""
    modules = modules_of_the_cli(room)
    assert modules
    assert {(path.name, name) for path in modules for name in set(imported(path)) & IO} == set()


def loaded_by(program: str) -> set[str]:
    """Every module that a new interpreter has, once it ran the program."""
    import subprocess
    import sys

    program = f"import sys\n{program}\nsys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(done.stderr.split())


def of_rooms_of_the_cli(loaded: set[str]) -> set[str]:
    return {name.removeprefix("circuitbreaker_cli.") for name in loaded if name.startswith("circuitbreaker_cli.")}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_loads_the_cluster(command: str) -> None:
    """The plugin has words and settings of the operator, not Kopf and the client of Kubernetes, which cost a second.

    Redis is talked to by those who were told where it is; only `doctor` always asks.
    """
    loaded = loaded_by(f"from circuitbreaker_cli.main import made; made('{command}')")
    assert {"kopf", "kubernetes", "aiohttp", "prometheus_client"} & loaded == set()
    assert "redis" not in loaded or command == "doctor"
    assert "circuitbreaker_operator.models" not in loaded or command in {"doctor", "simulate"}
    others = {f"commands.{each.replace('-', '_')}" for each in COMMANDS if each != command}
    assert others & of_rooms_of_the_cli(loaded) == set()


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_program_starts_without_its_commands(flag: str) -> None:
    ended = "try: main()\nexcept SystemExit as end: assert not end.code"
    loaded = loaded_by(f"sys.argv = ['kubectl-breaker', '{flag}']\nfrom circuitbreaker_cli.entry import main\n{ended}")
    assert "typer" in loaded
    assert {"redis", "yaml", "asyncio", "rich"} & loaded == set()
    assert of_rooms_of_the_cli(loaded) - {"commands", "commands.version"} == {"entry", "main", "catalogue", "errors"}


def test_a_tab_loads_what_it_needs() -> None:
    """Names of commands come without typer, names of breakers without Redis."""
    tab = "from circuitbreaker_cli.completion import candidates; candidates"
    assert {"typer", "rich", "subprocess"} & loaded_by(f"{tab}([], 're')") == set()
    loaded = loaded_by(f"{tab}(['describe'], '--re')")
    assert "circuitbreaker_cli.commands.describe" in loaded
    assert {"redis", "pydantic"} & loaded == set()


@pytest.mark.parametrize("module", ["rules", "policy", "state", "arguments", "memory"])
def test_rules_have_no_clock(module: str) -> None:
    """The rules are told the time."""
    assert set(imported(ROOMS["circuitbreaker_contract"] / "circuitbreaker_contract" / f"{module}.py")) & IO == set()


@pytest.mark.parametrize("root", [root for root in ROOMS.values() if root.exists()])
def test_source_roots_are_not_packages(root: Path) -> None:
    """With an `__init__.py`, `operator/` would stand before the standard library's module of that name."""
    assert not (root / "__init__.py").exists()
