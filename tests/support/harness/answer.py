"""answer: what a request was answered with: as bytes, JSON, or the lines of a stream."""
import json


class Answer:
    """status, headers (case-insensitive), body as bytes."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """Of a problem, or of the error that a stream ends with: an aggregate begins one when it has taken half a second, on a busy machine sooner or later."""
        return self.lines()[-1]["error"]["code"] if self.status == 200 else self.json()["code"]

    @property
    def outcome(self):
        """(status, code) of what was refused, whether its stream had begun or not."""
        return (self.lines()[-1]["error"]["status"] if self.status == 200 else self.status), self.code

    def all_lines(self):
        return [json.loads(line) for line in self.body.split(b"\n") if line]

    def lines(self):
        """Without those that say how far it is: whether there are any depends on how long it took."""
        return [line for line in self.all_lines() if not isinstance(line, dict) or "progress" not in line]

    def entries(self):
        """The lines of a stream without its end, which there must be."""
        lines = self.lines()
        assert lines and "end" in lines[-1], "no end line: %r" % self.body[-300:]
        return lines[:-1]

    @property
    def end(self):
        return self.lines()[-1]["end"]

    def __repr__(self):
        return "Answer(%d, %r)" % (self.status, self.body[:300])
