"""waiting: for what comes when it comes. Tests run beside others on few processors: whoever is to do something may have to wait for one, for a
second and longer. So what is to happen is waited for, and no test fails because it took long."""
import threading
import time

HANG = 120  # seconds: then what is waited for never comes


def wait_for(condition, seconds=HANG, what="condition", pause=0.01):
    """Polls until condition() is true and returns it; fails after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "%s: not within %.1f s" % (what, seconds)
        time.sleep(pause)


class Machine:
    """How long the machine itself keeps somebody waiting who only wants to be woken: what a bound in time has to allow for."""

    def __enter__(self):
        self.stalled, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        last = time.monotonic()
        while not self.over.wait(0.02):
            self.stalled, last = max(self.stalled, time.monotonic() - last - 0.02), time.monotonic()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
