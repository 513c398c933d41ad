"""The examination: each probe in a process of its own, and what follows from what it saw."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from xmc.doctor.findings import Finding
from xmc.doctor.probes import Seen
from xmc.storage.libraries import faiss_distributions

__all__ = ["Installed", "examine", "run_probe"]

PATIENCE = 180
"""Seconds after which a probe is ended: the first load of CUDA's libraries from a slow disk takes a minute."""
TORCH = '"torch>=2.11,<=2.13.0"'
TRITON = '"triton>=3.6,<3.10"'


class Installed:
    """What shows without loading a library: installed versions, and whether there is a driver of NVIDIA's."""

    def __init__(self) -> None:
        self.has_driver = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()
        self.faiss = faiss_distributions()

    def version(self, package: str) -> str:
        """The installed version of a package; "" where it is not there."""
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return ""


def examine(report: Callable[[str], None] = lambda stage: None) -> list[Finding]:
    """What works here of torch, Triton and FAISS, on the processor and on GPUs, and the command for what does not.

    report: called with the name of each probe. It takes some seconds, as each of them loads its library anew.
    """
    machine = Installed()

    def probe(name: str) -> Seen:
        report(name)
        return run_probe(name)

    findings = [_torch_on_cpu(machine, cpu := probe("torch on the processor"))]
    gpu = probe("torch on a GPU") if not cpu.get("failure") else {}
    findings.append(_torch_on_gpu(machine, cpu, gpu))
    has_gpu = bool(gpu.get("gpus"))
    findings.append(_triton(machine, has_gpu, probe("triton") if machine.version("triton") else {}))
    return [*findings, *_faiss(machine, has_gpu, probe)]


def run_probe(name: str) -> Seen:
    """What a probe saw in a process of its own; {"failure": a clause} where it raised, crashed or took too long."""
    command = [sys.executable, "-m", "xmc.doctor.probes", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"failure": f"no answer within {PATIENCE} s"}
    if done.returncode < 0:
        return {"failure": f"the process ended by {signal.Signals(-done.returncode).name}"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        errors = done.stderr.strip().splitlines()
        return {"failure": errors[-1] if errors else f"the process ended with code {done.returncode}"}
    seen: Seen = json.loads(lines[-1])
    return seen if seen.get("product", True) else {**seen, "failure": "its product is wrong"}


def _torch_on_cpu(machine: Installed, seen: Seen) -> Finding:
    name, version = "torch on the processor", machine.version("torch")
    if seen.get("failure"):
        return Finding(name, "fails", version, seen["failure"], f"pip install --force-reinstall {TORCH}")
    return Finding(name, "works", version, f"built for {_built_for(seen)}")


def _built_for(seen: Seen) -> str:
    return f"CUDA {seen['cuda']}" if seen.get("cuda") else f"ROCm {seen['hip']}" if seen.get("hip") else "the processor"


def _torch_on_gpu(machine: Installed, cpu: Seen, seen: Seen) -> Finding:
    name, version = "torch on a GPU", machine.version("torch")
    if seen.get("failure"):
        return Finding(name, "fails", version, seen["failure"], f"pip install --force-reinstall {TORCH}")
    if seen.get("gpus"):
        gpus = ", ".join(f"{gpu['name']} ({gpu['memory'] / 2**30:.0f} GiB)" for gpu in seen["gpus"])
        return Finding(name, "works", version, gpus)
    built_for_gpu = bool(cpu.get("cuda") or cpu.get("hip"))
    if machine.has_driver and not cpu.get("failure"):
        if built_for_gpu:
            return Finding(name, "fails", version, "there is a driver, and torch sees no GPU", "nvidia-smi")
        says = "there is a driver, and torch is built for the processor"
        return Finding(name, "fails", version, says, f"pip uninstall --yes torch; pip install {TORCH}")
    if built_for_gpu:
        return Finding(name, "idle", version, "no driver of a GPU is seen; a container needs --gpus all")
    return Finding(name, "idle", version, "no GPU is seen, and torch is built for the processor")


def _triton(machine: Installed, has_gpu: bool, seen: Seen) -> Finding:
    version = machine.version("triton")
    if not version:
        if has_gpu:
            says = "kernels on the GPU are torch's, which are slower"
            return Finding("triton", "absent", "", says, f"pip install {TRITON}")
        return Finding("triton", "idle", "", "it is for GPUs, and none is seen")
    if seen.get("failure"):
        return Finding("triton", "fails", version, seen["failure"], f"pip install --force-reinstall {TRITON}")
    return Finding("triton", "works", version, f"in its {seen['where']}" if not has_gpu else "on the GPU")


def _faiss(machine: Installed, has_gpu: bool, probe: Callable[[str], Seen]) -> list[Finding]:
    """FAISS on the processor, and on a GPU."""
    names = list(machine.faiss)
    best = "faiss-gpu" if has_gpu else "faiss-cpu"
    cpu, gpu = "FAISS on the processor", "FAISS on a GPU"
    if not names:
        says = 'designs of an index other than "exact" need it'
        return [Finding(cpu, "absent", "", says, f"pip install {best}")]
    version = ", ".join(f"{name} {version}" for name, version in machine.faiss.items())
    if len(names) > 1:
        says = "they are all imported as faiss, and files of one have overwritten the other's"
        kept = best if best in names else names[0]
        return [Finding(cpu, "fails", version, says, f"pip uninstall --yes {' '.join(names)}; pip install {kept}")]
    seen = probe(cpu)
    if seen.get("failure"):
        return [Finding(cpu, "fails", version, seen["failure"], f"pip install --force-reinstall {names[0]}")]
    build = "with cuVS" if seen["cuvs"] else "without cuVS"
    findings = [
        Finding(cpu, "works", version, f"built for GPUs, {build}" if seen["gpu"] else "built for the processor")
    ]
    if not seen["gpu"]:
        if has_gpu:
            command = f"pip uninstall --yes {names[0]}; pip install faiss-gpu"
            findings.append(Finding(gpu, "absent", version, "its indexes stay on the processor", command))
        return findings
    seen = probe(gpu)
    if seen.get("failure"):
        return [*findings, Finding(gpu, "fails", version, seen["failure"], f"pip install --force-reinstall {names[0]}")]
    if seen["gpus"]:
        return [*findings, Finding(gpu, "works", version, f"it sees {seen['gpus']}")]
    if has_gpu:
        says = "torch sees a GPU, and this FAISS none: its CUDA may be newer than the driver"
        return [*findings, Finding(gpu, "fails", version, says, "nvidia-smi")]
    return [*findings, Finding(gpu, "idle", version, "no GPU is seen; its indexes run on the processor")]
