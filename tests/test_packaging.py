"""What a wheel and a source distribution hold: the tree, as setup.py walks it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml
from distributions import FILES, FOLDERS, ROOT, Environment, build_wheel, copy_of_the_tree

import xmc

MAPPED = {
    "kernels": "xmc/kernels",
    "indexes": "xmc/indexes",
    "training": "xmc/training",
    "configs": "xmc/configs",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    return build_wheel(copy_of_the_tree(folder / "source"), folder)


def in_the_tree() -> set[str]:
    """Where each file of the tree belongs in an installed package."""
    names = {"xmc_retrieval.py"}
    for top in FOLDERS:
        for file in (ROOT / top).rglob("*"):
            relative = file.relative_to(ROOT / top).as_posix()
            if file.is_file() and "__pycache__" not in file.parts:
                names.add(f"{MAPPED.get(top, top)}/{relative}")
    return names


def contents(wheel: Path) -> dict[str, str]:
    """The SHA-256 of each file of a wheel, but its list of files, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if not name.endswith(".dist-info/RECORD")
        }


def metadata(wheel: Path) -> Message:
    """The metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(f"xmc_retrieval-{xmc.__version__}.dist-info/METADATA"))


def required(wheel: Path) -> dict[str, str]:
    """What a wheel requires, in extras too: the bounds of its version by each package's name."""
    lines = metadata(wheel).get_all("Requires-Dist") or []
    return {re.split(r"[\[<>=!~; ]", line)[0]: line for line in lines}


def named_in_messages() -> Iterator[tuple[str, str]]:
    """Where a message about a missing package stands, and each package that it tells pip."""
    for top in FOLDERS:
        for file in sorted((ROOT / top).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
                if name in ("require_package", "missing_package") and isinstance(node.args[2], ast.Constant):
                    for word in str(node.args[2].value).partition(" (")[0].split():
                        yield f"{file.relative_to(ROOT)}:{node.lineno}", word.strip('"').partition("[")[0]


def test_a_wheel_holds_what_the_tree_holds(wheel: Path) -> None:
    assert {name for name in contents(wheel) if ".dist-info/" not in name} == in_the_tree()


def test_configurations_of_a_wheel_go_by_name(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import xmc\nfrom xmc.config.shipped import shipped_configs\n"
        "print(xmc.__file__, shipped_configs()['static'], xmc.TrainConfig.load('static-lf-wordnet').batch_size)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
    size = xmc.TrainConfig.load(ROOT / "configs" / "static-lf-wordnet.yaml").batch_size
    expected = [tmp_path / "xmc" / "__init__.py", tmp_path / "xmc" / "configs" / "static.yaml", size]
    assert done.stdout.split() == list(map(str, expected)), done.stderr


def test_the_distribution_has_a_name_of_its_own(wheel: Path) -> None:
    assert wheel.name == f"xmc_retrieval-{xmc.__version__}-py3-none-any.whl"
    described = metadata(wheel)
    with zipfile.ZipFile(wheel) as archive:
        commands = archive.read(f"xmc_retrieval-{xmc.__version__}.dist-info/entry_points.txt").decode()
    assert (described["Name"], described["Version"]) == ("xmc-retrieval", xmc.__version__)
    assert commands.split() == ["[console_scripts]", "xmc", "=", "xmc_retrieval:main"]


def test_the_name_is_known_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    environment.install(wheel)
    code = "from importlib.metadata import version; import xmc; print(version('xmc-retrieval'), xmc.__file__)"
    done = environment.run("python", "-c", code)
    assert done.stdout.split() == [xmc.__version__, str(environment.packages / "xmc" / "__init__.py")], done.stderr
    assert done.stderr == ""


@pytest.mark.skipif(
    importlib.util.find_spec("build.__main__") is None, reason="build is not installed: pip install build"
)
def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    source = copy_of_the_tree(tmp_path / "source")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    (archive,) = tmp_path.glob("xmc_retrieval-*.tar.gz")
    with tarfile.open(archive) as opened:
        assert {name.partition("/")[2] for name in opened.getnames()} >= {"pyproject.toml", "setup.py", "LICENSE"}
    (built,) = tmp_path.glob("*.whl")  # from the source distribution, as `build` does it
    assert contents(built) == contents(wheel)


def test_torch_has_its_upper_bound(wheel: Path) -> None:
    assert required(wheel)["torch"] == "torch<=2.13.0,>=2.11"


def test_messages_name_packages_that_are_required(wheel: Path) -> None:
    named = list(named_in_messages())
    assert {"faiss-cpu", "gguf", "pillow", "ray", "scikit-learn"} <= {package for _, package in named}
    assert [(where, package) for where, package in named if package not in required(wheel)] == []


def test_nothing_tells_people_to_install_the_stranger() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*")]
    code = [file for top in (*FOLDERS, "tests") for file in (ROOT / top).rglob("*")]
    wrong = re.compile(r"pip3? install [^\n`]*\bxmc(?![\w-])(?!/)")
    assert wrong.search('Run: pip install "xmc[cpu]"')
    assert not wrong.search("pip install xmc-retrieval")
    for file in (*pages, *code):
        if file.suffix in (".py", ".md", ".yaml") and file != Path(__file__):
            assert not wrong.search(file.read_text(encoding="utf-8")), file


def test_every_requirement_of_torch_is_the_same(wheel: Path) -> None:
    """Images and pages too have the upper bound."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Dockerfile", ROOT / "pyproject.toml"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert set(re.findall(r"pip install[^\n]* (\"?torch\b[^ \n`]*)", text)) == {'"torch>=2.11,<=2.13.0"'}
    assert set(re.findall(r"\"torch[>=<][^\"]*\"", text)) == {'"torch>=2.11,<=2.13.0"'}


def test_an_image_is_made_of_what_the_wheel_is_made_of() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == {*FOLDERS, *FILES}
    stages = re.findall(r"^FROM (\S+) AS (\w+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for _, name in stages] == ["wheel", "base", "light", "cuda", "cpu"]


def test_the_citation_is_of_this_version(wheel: Path) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the schema of version 1.2.0 demands
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert str(citation["version"]) == xmc.__version__
    assert citation["license"] == metadata(wheel)["License-Expression"]


def test_extras_are_described(wheel: Path) -> None:
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE))
    assert described == set(metadata(wheel).get_all("Provides-Extra") or []) - {"dev", "docs"}
