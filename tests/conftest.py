"""What every test shares.

What lives here: settings that all folders of tests need. What must not: fixtures of one folder.
"""

from __future__ import annotations

import os
import signal
from datetime import timedelta

from hypothesis import HealthCheck, settings

from tests.requirements import in_ci

# One slow machine is no reason to fail; a decoder that is slow on one input is found by the soak test, which measures growth.
settings.register_profile("default", deadline=timedelta(seconds=2), print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", deadline=None, print_blob=True, max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if in_ci() else "default"))

# A build server may start us in the background with SIGINT ignored; every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
