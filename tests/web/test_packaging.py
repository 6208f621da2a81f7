"""What is installed of the page."""

import subprocess
import sys
from pathlib import Path

from tiny import ROOT

STATIC = Path("ldm_jax/web/static")
LISTING = """
from setuptools import Distribution
distribution = Distribution()
distribution.parse_config_files()
command = distribution.get_command_obj("build_py")
command.ensure_finalized()
command.manifest_files = {}  # which would be written beside the sources
print(*command.find_data_files("ldm_jax.web", "ldm_jax/web"), sep="\\n")
"""


def test_the_files_of_the_page_are_installed():
    listed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LISTING], cwd=ROOT, capture_output=True, text=True
    )
    files = {str(path.relative_to(ROOT)) for path in (ROOT / STATIC).rglob("*") if path.is_file()}
    assert files <= {*listed.stdout.split()}, listed.stderr
