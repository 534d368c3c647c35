"""The release this code belongs to: where it lies, and what it calls itself."""

from __future__ import annotations

import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The directory that holds `vdsmd`, `state`, `drivers` and `supervdsm`: a checkout, or an installed release."""
VERSION = "0.3.0"
