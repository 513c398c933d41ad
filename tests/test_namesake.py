"""Beside another package named `xmc`: a sentence, whichever was installed first; our own former name is told apart."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from distributions import OURS, ROOT, Environment, build_wheel, copy_of_the_tree, stranger

from xmc.namesake import require_no_namesake

REMEDY = "Run: pip uninstall xmc xmc-retrieval, then install xmc-retrieval again."


def import_beside(*folders: Path) -> subprocess.CompletedProcess[str]:
    """`import xmc` of this tree, with further folders of packages on the path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *folders)))}
    code = "import xmc; print(xmc.__version__)"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd="/")


def metadata(folder: Path, name: str, entry_points: str | None = None) -> Path:
    """A folder of packages with the metadata of one; its path."""
    (folder / name).mkdir(parents=True)
    if entry_points is not None:
        (folder / name / "entry_points.txt").write_text(entry_points)
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("ours", "strange"):
        (folder / name).mkdir()
    ours = build_wheel(copy_of_the_tree(folder / "source"), folder / "ours")
    return {"ours": ours, "strange": stranger(folder / "strange")}


@pytest.mark.parametrize("order", [("strange", "ours"), ("ours", "strange")])
def test_a_strangers_package_is_refused(order: tuple[str, str], wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    for name in order:
        environment.install(wheels[name])
    sentence = (
        f"Another package named xmc (version 0.0.1, in {environment.packages}) is installed beside xmc-retrieval. "
        f"Both are imported as xmc, and their files overwrite each other. {REMEDY}"
    )
    command = environment.run("xmc", "--version")
    assert (command.returncode, command.stderr) == (2, f"error: {sentence}\n")
    if order[-1] == "ours":  # else the file that `import xmc` reads is the stranger's
        imported = environment.run("python", "-c", "import xmc")
        assert imported.stderr.splitlines()[-1] == f"ImportError: {sentence}"
    environment.pip("uninstall", "--yes", "xmc", "xmc-retrieval")
    environment.install(wheels["ours"])
    done = environment.run("python", "-c", "import xmc")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_refuses_where_only_the_stranger_is_imported(wheels: dict[str, Path], tmp_path: Path) -> None:
    """As beside an editable installation, which comes after the folder of packages on the path."""
    environment = Environment(tmp_path / "environment")
    environment.install(wheels["strange"])
    (environment.packages / "editable.pth").write_text(f"{ROOT}\n")
    done = environment.run("python", "-c", "import xmc; print(xmc.__file__); from xmc_retrieval import main; main()")
    assert done.stdout.split() == [str(environment.packages / "xmc" / "__init__.py")]
    assert done.returncode == 2
    assert done.stderr.startswith("error: Another package named xmc (version 0.0.1, in ")


@pytest.mark.parametrize("name", ["xmc-0.0.1.dist-info", "XMC-2-py3.11.egg-info", "xmc.egg-info"])
def test_metadata_anywhere_on_the_path_are_seen(name: str, tmp_path: Path) -> None:
    done = import_beside(tmp_path / "nothing", metadata(tmp_path / "packages", name))
    assert done.returncode == 1
    assert f"in {tmp_path / 'packages'}) is installed beside xmc-retrieval" in done.stderr


@pytest.mark.parametrize("name", ["xmca-1.0.dist-info", "xmc_tools-1.0.dist-info", "xmc-tools.txt", "xmc"])
def test_packages_with_longer_names_are_nobodys_concern(name: str, tmp_path: Path) -> None:
    done = import_beside(metadata(tmp_path, name))
    assert (done.returncode, done.stderr) == (0, "")


def test_our_former_name_alone_is_let_alone(tmp_path: Path) -> None:
    metadata(tmp_path, "xmc_retrieval.egg-info", OURS)  # left by a build in a checkout
    folder = metadata(tmp_path, "xmc-0.1.0.dist-info", OURS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_no_namesake([str(folder)])
    metadata(tmp_path, "xmc_retrieval-0.2.0.dist-info", OURS)
    with pytest.warns(UserWarning, match="a second time under its former name, xmc, in "):
        require_no_namesake([str(folder)])


def test_our_former_name_beside_the_new_one_is_told(tmp_path: Path) -> None:
    metadata(tmp_path / "former", "xmc.egg-info", OURS)  # left by a build in a checkout
    former = metadata(tmp_path / "former", "xmc-0.1.0.dist-info", OURS)
    done = import_beside(former, metadata(tmp_path / "new", "xmc_retrieval-0.2.0.dist-info"))
    assert done.returncode == 0
    assert f"xmc-retrieval is installed a second time under its former name, xmc, in {former}:" in done.stderr
    assert REMEDY in done.stderr
