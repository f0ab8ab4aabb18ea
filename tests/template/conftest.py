"""Fixtures of the template's own tests, for tests that a copy of it does not need.

TEMPLATE may name another copy of the template to test: one with a mistake in it, or without an optional part.
"""

import importlib.util
import os
import sys
from pathlib import Path

TEMPLATE = Path(os.environ.get("TEMPLATE") or Path(__file__).resolve().parents[2] / "template")
sys.path.insert(0, str(TEMPLATE))
spec = importlib.util.spec_from_file_location("template_fixtures", TEMPLATE / "tests" / "conftest.py")
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)
globals().update({name: value for name, value in vars(fixtures).items() if not name.startswith("__")})
