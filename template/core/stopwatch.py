"""Time that each part of a command takes."""

import time


class Stopwatch:
    """Seconds spent on the parts of a command, by name; their sum is all the time up to the last lap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to a part."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now
