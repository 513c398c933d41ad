"""`xmc doctor` in environments with other libraries than this one, and what it says of what probes saw."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from distributions import Environment
from faiss_stubs import CRASHES, faiss_without_a_card, install_stub, linked_environment

from xmc.doctor.examination import Installed, _faiss, _torch_on_gpu, _triton, run_probe
from xmc.doctor.findings import Finding, is_well

GPU: dict[str, Any] = {"gpus": [{"name": "H100", "memory": 80 << 30}], "product": True}


def examined(environment: Environment) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code, and findings by name."""
    done = environment.run("python", "-m", "xmc", "doctor", "--json")
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {finding["name"]: finding for finding in findings}


@pytest.mark.slow
def test_without_faiss(tmp_path: Path) -> None:
    code, findings = examined(linked_environment(tmp_path, "faiss"))
    assert code == 0
    assert findings["torch on the processor"]["state"] == "works"
    faiss = findings["FAISS on the processor"]
    assert (faiss["state"], faiss["command"].split()[:2]) == ("absent", ["pip", "install"])
    assert "FAISS on a GPU" not in findings


@pytest.mark.slow
def test_with_faiss_for_the_processor(tmp_path: Path) -> None:
    environment = linked_environment(tmp_path)
    code, findings = examined(environment)
    assert code == 0
    installed = f"faiss-cpu {metadata.version('faiss-cpu')}"
    assert findings["FAISS on the processor"] == {
        "name": "FAISS on the processor",
        "state": "works",
        "version": installed,
        "says": "built for the processor",
        "command": "",
    }
    printed = environment.run("python", "-m", "xmc", "doctor")
    assert printed.returncode == 0
    assert installed in " ".join(printed.stdout.split())


@pytest.mark.slow
def test_libraries_for_gpus_without_a_card(tmp_path: Path) -> None:
    environment = linked_environment(tmp_path, "faiss")
    install_stub(environment, "faiss-gpu-cuvs", "1.15.1", faiss_without_a_card())
    code, findings = examined(environment)
    assert code == 0
    assert findings["FAISS on the processor"]["says"] == "built for GPUs, with cuVS"
    assert findings["FAISS on a GPU"]["state"] == "idle"
    assert findings["FAISS on a GPU"]["version"] == "faiss-gpu-cuvs 1.15.1"


@pytest.mark.slow
def test_a_library_that_crashes_is_reported(tmp_path: Path) -> None:
    environment = linked_environment(tmp_path, "faiss")
    install_stub(environment, "faiss-gpu", "1.15.1", CRASHES)
    code, findings = examined(environment)
    assert code == 1
    faiss = findings["FAISS on the processor"]
    assert (faiss["state"], faiss["says"]) == ("fails", "the process ended by SIGSEGV")
    assert faiss["command"] == "pip install --force-reinstall faiss-gpu"
    assert findings["torch on the processor"]["state"] == "works"


@pytest.mark.slow
def test_two_distributions_of_faiss(tmp_path: Path) -> None:
    """The doctor names both; everything that needs an index is refused with a sentence."""
    environment = linked_environment(tmp_path)
    install_stub(environment, "faiss-gpu", "1.15.1", None)
    code, findings = examined(environment)
    assert code == 1
    faiss = findings["FAISS on the processor"]
    assert faiss["command"] == "pip uninstall --yes faiss-cpu faiss-gpu; pip install faiss-cpu"
    done = environment.run("python", "-m", "xmc", "quickstart", "--help")
    assert done.returncode == 0
    done = environment.run("python", "-c", "import xmc; print('imported'); xmc.Retriever")
    assert done.stdout == "imported\n"
    assert "DependencyError: faiss-cpu and faiss-gpu are installed together" in done.stderr


@pytest.mark.slow
def test_faiss_that_cannot_be_loaded_is_left_out(tmp_path: Path) -> None:
    """As a build for CUDA raises without CUDA's libraries: exact search goes on without it, and other designs say why."""
    environment = linked_environment(tmp_path, "faiss")
    install_stub(environment, "faiss-gpu", "1.15.1", "raise RuntimeError('libcudart.so.12 is missing.')")
    code = (
        "from xmc.indexes.factory import build_index\n"
        "build_index('exact', 4).build([[1, 2, 3, 4]], [1])\n"
        "try: build_index('Flat', 4)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = environment.run("python", "-c", code)
    assert done.stdout.startswith("DependencyError The index design is 'Flat'")
    assert "libcudart.so.12 is missing." in done.stdout


def test_a_probe_that_fails_says_why() -> None:
    assert run_probe("no such probe")["failure"] == "KeyError: 'no such probe'"


def machine(faiss: dict[str, str], driver: bool = True) -> Installed:
    """A machine with these distributions of FAISS."""
    described = Installed()
    described.faiss, described.has_driver = faiss, driver
    return described


def states(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.name, finding.state) for finding in findings]


def test_what_a_machine_with_a_gpu_lacks() -> None:
    """No GPU is needed to say what follows from what probes saw on one."""
    seen = {
        "FAISS on the processor": {"gpu": True, "cuvs": False, "product": True},
        "FAISS on a GPU": {"gpus": 1, "product": True},
    }
    here = machine({"faiss-gpu": "1.15.1"})
    assert states(_faiss(here, True, seen.__getitem__)) == [
        ("FAISS on the processor", "works"),
        ("FAISS on a GPU", "works"),
    ]
    seen["FAISS on a GPU"] = {"gpus": 0}
    assert states(_faiss(here, True, seen.__getitem__))[1] == ("FAISS on a GPU", "fails")
    seen["FAISS on the processor"] = {"gpu": False, "cuvs": False, "product": True}
    on_cpu = _faiss(machine({"faiss-cpu": "1.15.1"}), True, seen.__getitem__)
    assert on_cpu[1].command == "pip uninstall --yes faiss-cpu; pip install faiss-gpu"
    assert _faiss(machine({}), True, seen.__getitem__)[0].command == "pip install faiss-gpu"
    assert _torch_on_gpu(here, {"cuda": "13.0"}, GPU).says == "H100 (80 GiB)"
    assert _torch_on_gpu(here, {"cuda": "13.0"}, {"gpus": []}).state == "fails"
    assert _torch_on_gpu(here, {"cuda": None}, {"gpus": []}).command.startswith("pip uninstall --yes torch")
    assert _torch_on_gpu(machine({}, driver=False), {"cuda": "13.0"}, {"gpus": []}).state == "idle"
    assert _triton(here, True, {"failure": "it raised"}).state in ("fails", "absent")
    assert not is_well([_torch_on_gpu(here, {"cuda": "13.0"}, {"failure": "the process ended by SIGABRT"})])
