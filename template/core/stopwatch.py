"""Where the time of a command goes."""

import time


class Stopwatch:
    """Seconds spent on each part of a command, one part after the other.

    Attributes:
        seconds: by the name of the part. Together they are all that has passed from the start to the last lap.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to a part; a part may have several laps."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now
