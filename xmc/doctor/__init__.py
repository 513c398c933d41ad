"""What is installed on this machine and what of it works, tried in processes of its own."""

from xmc.doctor.examination import examine
from xmc.doctor.findings import Finding

__all__ = ["Finding", "examine"]
