"""Packaging: the top-level folders kernels/, indexes/ and training/ are the packages xmc.kernels, xmc.indexes and
xmc.training. A bare top-level import name `kernels` would shadow another published package."""

from setuptools import setup

PACKAGES = {
    "xmc": "xmc",
    "xmc.batch": "xmc/batch",
    "xmc.calibration": "xmc/calibration",
    "xmc.cli": "xmc/cli",
    "xmc.data": "xmc/data",
    "xmc.data.readers": "xmc/data/readers",
    "xmc.encoders": "xmc/encoders",
    "xmc.metrics": "xmc/metrics",
    "xmc.report": "xmc/report",
    "xmc.kernels": "kernels",
    "xmc.kernels.losses": "kernels/losses",
    "xmc.kernels.triton_tiles": "kernels/triton_tiles",
    "xmc.indexes": "indexes",
    "xmc.training": "training",
}

setup(
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={
        "xmc": ["py.typed"],
        "xmc.data": ["shipped/*/*"],
        "xmc.report": ["template.html", "page.css", "page.js"],
    },
)
