"""Certificates for tests, made by openssl: an authority, servers, clients."""
import hashlib
import os
import ssl
import subprocess

NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


def openssl(*words):
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout


class Pair:
    """A certificate and its key."""

    def __init__(self, cert, key):
        self.cert, self.key = str(cert), str(key)

    @property
    def files(self):
        return self.cert, self.key

    @property
    def der(self):
        with open(self.cert, encoding="ascii") as file:
            return ssl.PEM_cert_to_DER_cert(file.read())

    @property
    def fingerprint(self):
        return hashlib.sha256(self.der).hexdigest()


def self_signed(folder, name="server", subject="/CN=localhost", days=2, kind=("rsa:2048",)):
    """A certificate that is its own authority."""
    pair = Pair(folder / (name + ".pem"), folder / (name + ".key"))
    openssl("req", "-x509", "-newkey", *kind, "-nodes", "-keyout", pair.key, "-out", pair.cert, "-days", str(days), "-subj", subject,
            "-addext", NAMES)
    os.chmod(pair.key, 0o600)
    return pair


class Authority:
    """Signs certificates: use is clientAuth, serverAuth, or None for no word about it."""

    def __init__(self, folder, name="authority"):
        self.folder, self.name = folder, name
        self.cert, self.key = str(folder / (name + ".pem")), str(folder / (name + ".key"))
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.key, "-out", self.cert, "-days",
                "30", "-subj", "/CN=" + name)

    def sign(self, name, subject=None, use="clientAuth", first="-1", last="+2"):
        """first and last: days from now."""
        pair = Pair(self.folder / (name + ".pem"), self.folder / (name + ".key"))
        request, extensions = str(self.folder / (name + ".csr")), self.folder / (name + ".ext")
        extensions.write_text((("extendedKeyUsage=%s\n" % use) if use else "") + NAMES + "\n")
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", pair.key, "-out", request, "-subj",
                subject or "/CN=" + name)
        openssl("ca", "-config", self._config(), "-batch", "-notext", "-in", request, "-out", pair.cert, "-extfile", str(extensions),
                "-startdate", self._date(first), "-enddate", self._date(last))
        os.chmod(pair.key, 0o600)
        return pair

    def revoke(self, pair):
        """On its next list."""
        openssl("ca", "-config", self._config(), "-revoke", pair.cert)

    def crl(self, path, last="+2"):
        """Writes the list of what was revoked; last: when there will be a newer one, days from now."""
        openssl("ca", "-config", self._config(), "-gencrl", "-out", str(path), "-crl_lastupdate", self._date(-3), "-crl_nextupdate", self._date(last))

    @staticmethod
    def _date(days):
        import datetime
        return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=float(days))).strftime("%Y%m%d%H%M%SZ")

    def _config(self):
        path = self.folder / (self.name + ".cnf")
        index = self.folder / (self.name + ".index")
        if not index.exists():
            index.write_text("")
            (self.folder / (self.name + ".index.attr")).write_text("unique_subject = no\n")
        path.write_text("""[ca]
default_ca = own
[own]
dir = %s
database = %s
new_certs_dir = %s
certificate = %s
private_key = %s
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = optional
organizationName = optional
""" % (self.folder, index, self.folder, self.cert, self.key))
        return str(path)


def context(cafile, client=None, least=None, most=None, ciphers=None):
    """For a client that trusts cafile and shows `client`, a Pair."""
    made = ssl.create_default_context(cafile=str(cafile))
    if ciphers:
        made.set_ciphers(ciphers)
    if least:
        made.minimum_version = least
    if most:
        made.maximum_version = most
    if client:
        made.load_cert_chain(*client.files)
    return made
