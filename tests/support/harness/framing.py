"""framing: forms of requests whose end can be taken for another one, each with a second request after it that must not be run.

FORMS: (name, request, status or None where a proxy may do as it likes). {mark} is where the second request stands, or what would be one if
the end were guessed wrongly; MARK writes the pair "mark".
"""

HEAD = b"POST /batch?db={db} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
GET = b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n"
MARK = b"PUT /pairs/mark?db={db} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nm"
LINE = b'{"op":"pair_put","pair":"bWFyaw==","value":"bQ=="}\n'  # the same, as a line of a batch

FORMS = [
    ("two lengths", HEAD + b"Content-Length: 0\r\nContent-Length: 6\r\n\r\n{mark}", 400),
    ("two lengths, the longer first", HEAD + b"Content-Length: 6\r\nContent-Length: 0\r\n\r\n\r\n\r\n\r\n{mark}", 400),
    ("a list of lengths", HEAD + b"Content-Length: 0, 0\r\n\r\n{mark}", 400),
    ("a list of different lengths", HEAD + b"Content-Length: 0, 6\r\n\r\n{mark}", 400),
    ("a length with a sign", HEAD + b"Content-Length: +0\r\n\r\n{mark}", 400),
    ("a negative length", HEAD + b"Content-Length: -1\r\n\r\n{mark}", 400),
    ("a length in hexadecimal", HEAD + b"Content-Length: 0x10\r\n\r\n{mark}", 400),
    ("a length with letters", HEAD + b"Content-Length: 1a\r\n\r\n{mark}", 400),
    ("an empty length", HEAD + b"Content-Length:\r\n\r\n{mark}", 400),
    ("a length beyond 64 bits", HEAD + b"Content-Length: 18446744073709551616\r\n\r\n{mark}", 400),
    ("a length with a blank in it", HEAD + b"Content-Length: 0 1\r\n\r\n{mark}", 400),
    ("length, then chunked", HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{mark}", 400),
    ("chunked, then length", HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{mark}", 400),
    ("a blank before the colon of the length", HEAD + b"Content-Length : 0\r\n\r\n{mark}", 400),
    ("a blank before the colon of chunked", HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{mark}", 400),
    ("a tab before a colon", HEAD + b"X-A\t: b\r\n\r\n{mark}", 400),
    ("a vertical tab before the colon", HEAD + b"Transfer-Encoding\x0b: chunked\r\n\r\n0\r\n\r\n{mark}", 400),
    ("a blank in a name", HEAD + b"X A: b\r\n\r\n{mark}", 400),
    ("a blank before the first name", b"POST /batch?db={db} HTTP/1.1\r\n Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n{mark}", 400),
    ("no name", HEAD + b": b\r\n\r\n{mark}", 400),
    ("no colon", HEAD + b"Content-Length\r\n\r\n{mark}", 400),
    ("chunked in HTTP/1.0", b"POST /batch?db={db} HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{mark}", 400),
    ("a zero byte in a value", HEAD + b"X-A: a\0b\r\n\r\n{mark}", 400),
    ("a zero byte in a name", HEAD + b"X-\0A: b\r\n\r\n{mark}", 400),
    ("a zero byte before a name", HEAD + b"\0X-A: b\r\n\r\n{mark}", 400),
    ("a zero byte after the length", HEAD + b"Content-Length: 0\0\r\n\r\n{mark}", 400),
    ("a zero byte in the target", b"GET /version\0x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{mark}", 400),
    ("an empty line with a zero byte", HEAD + b"\0\r\n{mark}", 400),
    ("a bare carriage return in a value", HEAD + b"X-A: a\rContent-Length: 0\r\n\r\n{mark}", 400),
    ("a folded header", HEAD + b"X-A: b\r\n c\r\n\r\n{mark}", 400),
    ("a folded length", HEAD + b"Content-Length: 0\r\n 6\r\n\r\n{mark}", 400),
    ("a folded coding", HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{mark}", 501),
    ("a coding that nobody knows", HEAD + b"Transfer-Encoding: xyz\r\n\r\n{mark}", 501),
    ("identity", HEAD + b"Transfer-Encoding: identity\r\n\r\n{mark}", 501),
    ("gzip, chunked", HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{mark}", 501),
    ("chunked, identity", HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{mark}", 501),
    ("chunked twice", HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{mark}", 501),
    ("chunked in quotes", HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n{mark}', 501),
    ("an empty coding", HEAD + b"Transfer-Encoding:\r\n\r\n{mark}", 501),
    ("no Host", b"POST /batch?db={db} HTTP/1.1\r\nContent-Length: 0\r\n\r\n{mark}", 400),
    ("two Hosts", HEAD + b"Host: localhost\r\n\r\n{mark}", 400),
    ("a blank in the target", b"GET /ver sion HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{mark}", 400),
    ("two blanks in the request line", b"GET  /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{mark}", 400),
    ("no version", b"GET /version\r\nHost: 127.0.0.1\r\n\r\n{mark}", 400),
    ("a version that is none", b"GET /version HTTP/1.x\r\nHost: 127.0.0.1\r\n\r\n{mark}", 400),
    ("HTTP/2.0", b"GET /version HTTP/2.0\r\nHost: 127.0.0.1\r\n\r\n{mark}", 505),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{mark}", 505),
    ("HTTP/0.9", b"GET /version HTTP/0.9\r\nHost: 127.0.0.1\r\n\r\n{mark}", 505),
    ("a version of two digits", b"GET /version HTTP/10.1\r\nHost: 127.0.0.1\r\n\r\n{mark}", 400),
    ("no request", b"hello\r\n\r\n{mark}", 400),
    ("a method with a zero byte", b"GE\0T /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n{mark}", 400),
    ("a chunk size that is none", HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{mark}", 400),
    ("a chunk size with a sign", HEAD + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n{mark}", 400),
    ("a chunk size with a prefix", HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n{mark}", 400),
    ("a chunk size beyond 64 bits", HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{mark}", 400),
    ("a chunk size with a blank", HEAD + b"Transfer-Encoding: chunked\r\n\r\n0 \r\n\r\n{mark}", 400),
    ("a chunk that is longer than it says", HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{line}\r\n0\r\n\r\n{mark}", 400),
    ("a chunk that ends in a bare line feed", HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n\n\n0\r\n\r\n{mark}", 400),
    ("a chunk size that ends in a bare line feed", HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\n\n\r\n0\r\n\r\n{mark}", 400),
    ("a folded trailer", HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\n{mark}", 400),
    ("a batch before a bad chunk", HEAD + b"Transfer-Encoding: chunked\r\n\r\n34\r\n{line}\r\nzz\r\n", 400),
]


def write(form, db):
    """The bytes of a form."""
    return form.replace(b"{mark}", MARK).replace(b"{line}", LINE).replace(b"{db}", db.encode())
