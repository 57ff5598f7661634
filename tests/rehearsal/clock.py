"""A clock that moves by itself, so that what a rehearsal does depends on no machine."""


class Clock:
    """A clock that moves on by `step_s` whenever it is asked."""

    def __init__(self, step_s: float = 0.01) -> None:
        self.step_s, self.now_s = step_s, 100.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s
