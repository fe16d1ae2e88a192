"""disk: the two places of the data, small file systems that can be filled up and emptied, or taken away."""
import os
import shutil
import subprocess

SIZES = {"a": 1200 << 20, "b": 700 << 20}
FILLER = "filler"


def run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)


class Disk:
    """A mount (ext4 on a loop device, or tmpfs) in the soak's own mount name space; plain: a folder that cannot be filled."""

    def __init__(self, work, name, kind, wanted):
        self.name, self.mount = name, os.path.join(work, "disk-" + name)
        self.data, self.away = os.path.join(self.mount, "data"), os.path.join(self.mount, "away")
        os.makedirs(self.mount)
        self.kind = "plain"
        if kind == "ext4" or (kind == "auto" and name == "a"):
            self._ext4(os.path.join(work, name + ".img"), SIZES[name])
        if self.kind == "plain" and kind != "plain":
            done = run("mount", "-t", "tmpfs", "-o", "size=%d" % SIZES[name], "soak", self.mount)
            self.kind = "tmpfs" if done.returncode == 0 else "plain"
        if wanted and kind == "ext4" and self.kind != "ext4":
            raise SystemExit("soak: no ext4 on a loop device here")
        os.mkdir(self.data)

    def _ext4(self, image, size):
        with open(image, "wb") as file:
            file.truncate(size)
        ok = run("mkfs.ext4", "-q", "-m", "0", "-F", image).returncode == 0 and run("mount", "-o", "loop", image, self.mount).returncode == 0
        if ok:
            self.kind = "ext4"
        else:
            os.unlink(image)

    def free(self):
        stat = os.statvfs(self.mount)
        return stat.f_bavail * stat.f_frsize

    def fill(self, leave):
        """Takes all but so many bytes; False where it cannot."""
        if self.kind == "plain":
            return False
        fd = os.open(os.path.join(self.mount, FILLER), os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            at = os.fstat(fd).st_size
            while self.free() > leave + 4096:
                step = max(4096, (self.free() - leave) // 2 & ~4095)
                try:
                    os.posix_fallocate(fd, at, step)
                    at += step
                except OSError:
                    if step == 4096:
                        break
        finally:
            os.close(fd)
        return True

    def empty(self):
        try:
            os.unlink(os.path.join(self.mount, FILLER))
        except FileNotFoundError:
            pass

    def take_away(self):
        """As if it were not mounted: an empty folder in its place."""
        os.rename(self.data, self.away)
        os.mkdir(self.data)

    def bring_back(self):
        """What is in the place meanwhile; then the data are back."""
        made = sorted(os.path.relpath(os.path.join(at, n), self.data) for at, folders, files in os.walk(self.data) for n in folders + files)
        shutil.rmtree(self.data)
        os.rename(self.away, self.data)
        return made

    def picture(self):
        """Every file and folder with its size and what a change would change."""
        out = {}
        for at, folders, files in os.walk(self.away if os.path.exists(self.away) else self.data):
            for name in folders + files:
                stat = os.lstat(os.path.join(at, name))
                out[os.path.relpath(os.path.join(at, name), self.mount)] = (stat.st_size, stat.st_mtime_ns if name in files else 0, stat.st_ino)
        return out

    def used(self):
        return SIZES[self.name] - self.free() if self.kind != "plain" else 0

    def close(self):
        if self.kind != "plain":
            run("umount", "-l", self.mount)
